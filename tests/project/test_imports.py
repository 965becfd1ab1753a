"""Start-up loads next to nothing; that imports point downward is checked by import-linter (pyproject.toml)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import zoned_tools

PACKAGE = Path(zoned_tools.__file__).parent

HEAVY = {"numpy", "construct", "rich", "pyudev", "crc32c", "pydantic", "asyncio", "xxhash", "lzallright", "mfusepy"}


def _modules_after(program: str, *arguments: str) -> tuple[set[str], int]:
    code = (
        f"import sys; sys.argv = [{program!r}, *{list(arguments)!r}]; from zoned_tools.cli import entry\n"
        f"status = getattr(entry, {program!r})()\n"
        "print('\\nloaded:', status, *sys.modules)"
    )
    # -S: an environment's site hooks are none of our doing; the path is given instead.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join([str(PACKAGE.parent), *sys.path]), "PATH": "/usr/bin:/bin"},
        check=True,
    )
    status, *modules = done.stdout.rpartition("loaded:")[2].split()
    return set(modules), int(status)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("zoned", "--version"), 0),
        (("zoned", "--help"), 0),
        (("zoned", "report", "--help"), 0),
        (("zoned", "check", "--help"), 0),
        (("zoned", "explain", "dm-zoned.sb-bad-magic"), 0),
        (("zoned", "schema"), 0),
        (("zoned", "schema", "check"), 0),
        (("zoned", "schema", "nonsense"), 16),
        (("zoned", "nonsense"), 16),
        (("zoned", "report", "--nonsense"), 16),
        (("zoned", "report"), 16),
        (("dmzadm", "--version"), 0),
        (("dmzadm", "--help"), 0),
        (("dmzadm",), 1),
        (("dmzadm", "--nonsense"), 1),
        (("dmzadm", "--check"), 1),
        (("dmzadm", "--check", "x", "--nonsense"), 1),
        (("dmzadm", "--check", "--seq=3", "x"), 1),
        (("zdmadm", "--help"), 0),
        (("zdmadm",), 1),
        (("mkzonefs", "--help"), 0),
        (("mkzonefs",), 1),
        (("zdmadm", "--version"), 0),
        (("mkzonefs", "--version"), 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_start_up_loads_nothing_heavy(arguments: tuple[str, ...], status: int) -> None:
    modules, got = _modules_after(*arguments)
    assert not {name.split(".")[0] for name in modules} & HEAVY
    assert got == status
    if arguments[0] != "zoned":
        assert "typer" not in modules, "the clones read their command lines without it"
    if "--version" in arguments:
        assert "typer" not in modules
        assert len(modules) < 80


def test_every_command_loads_and_its_summary_is_its_docstring() -> None:
    from zoned_tools.cli.completion import click_tree
    from zoned_tools.cli.lazy import LazyGroup
    from zoned_tools.cli.zoned import REGISTRY

    group = click_tree("zoned")
    assert isinstance(group, LazyGroup)
    for name, (_, summary) in REGISTRY.items():
        command = group.get_command(None, name)
        assert command is not None
        assert (command.help or "").strip().split("\n")[0] == summary, name
