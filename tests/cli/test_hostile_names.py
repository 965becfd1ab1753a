"""Names of drives and files on text channels: one line stays one line, and nothing reaches a terminal raw."""

from __future__ import annotations

import ast
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zoned_tools
from tests.programs import Result

if TYPE_CHECKING:
    from tests.programs import Program

PACKAGE = Path(zoned_tools.__file__).parent
EVIL = os.fsdecode(b"a\nx.img: dm-zoned: clean\t\x1b[31m\xff\xe2\x80\xae.img")
SHOWN = r"a\nx.img: dm-zoned: clean\t\x1b[31m\udcff\u202e.img"

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("zoned", "probe", EVIL),
    ("zoned", "probe", "--export", EVIL),
    ("zoned", "check", EVIL),
    ("zoned", "check", "--repair", "--dry-run", EVIL),
    ("zoned", "inspect", EVIL),
    ("zoned", "map", EVIL, "--at", "0+4"),
    ("zoned", "diagram", EVIL),
    ("zoned", "image", "info", EVIL),
    ("zoned", "report", "--info", "--summary", EVIL),
    ("zoned", "report", EVIL, "plain.img"),
    ("zoned", "metrics", "--check", EVIL),
    ("zoned", "zone", "finish", "--zone", "20", "--force", "--dry-run", EVIL),
    ("zoned", "replay", "--dry-run", "--trace", "trace", EVIL),
    ("zoned", "export", EVIL, "-o", "out.raw", "--force"),
    ("zoned", "image", "convert", "plain.img", f"{EVIL}.dir"),
    ("zoned", "undo", "--list"),
    ("dmzadm", "--check", EVIL),
    ("dmzadm", "--repair", "--dry-run", EVIL),
    ("dmzadm", "--relabel", "--label=x", "--dry-run", EVIL),
    ("dmzadm", "--format", "--force", "--verbose", EVIL),
    ("mkzonefs", "-f", "-v", EVIL),
)
REFUSALS: tuple[tuple[str, ...], ...] = (
    ("zoned", "table", EVIL),
    ("zoned", "probe", EVIL + "x"),
    ("zoned", "check", EVIL, EVIL),
    ("zoned", "report", EVIL + "x"),
    ("zoned", "serve", "--name", EVIL, "--socket", "socket", EVIL),
    ("zoned", "undo", "plain.img", EVIL),
    ("zoned", "dump", EVIL, "-o", "plain.img"),
    ("zoned", "check", "--set", EVIL, EVIL),
    ("dmzadm", "--start", EVIL),
    ("dmzadm", "--check", EVIL + "x"),
    ("zdmadm", "--probe", EVIL),
    ("mkzonefs", EVIL),
)


@pytest.fixture
def drive(tmp_path: Path, zoned: Program, program: Program, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZONED_UNDO_DIR", str(tmp_path / "undo"))
    for name in ("plain.img", EVIL):
        assert zoned("image", "create", name, "--zones", 32, "--zone-size", "4M", "--conventional", 8).status == 0
        assert program("dmzadm", "--format", name, "--label=x").status == 0
    Path("trace").write_text("fio version 2 iolog\n")
    return EVIL


def require_visible(result: Result) -> None:
    """In the test's process no stream stands in between: this is what commands write."""
    for text in (result.out, result.err):
        assert not {c for c in text if not c.isprintable()} - {"\n"}, text
        assert not any(line.startswith("x.img: ") for line in text.splitlines())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(w for w in words if w.isprintable()))
@pytest.mark.usefixtures("drive")
def test_results(command: tuple[str, ...], program: Program) -> None:
    result = program(*command)
    assert result.status == 0, result
    require_visible(result)
    named = command[:2] not in {("dmzadm", "--relabel"), ("zoned", "export"), ("zoned", "replay")}
    escaped = SHOWN.replace("\\", "\\\\") if command[1] == "metrics" else SHOWN.removesuffix(".img")
    assert (escaped in result.out + result.err) or not named, result


@pytest.mark.parametrize("command", REFUSALS, ids=lambda words: " ".join(w for w in words if w.isprintable()))
@pytest.mark.usefixtures("drive")
def test_refusals(command: tuple[str, ...], program: Program) -> None:
    result = program(*command)
    assert result.status != 0
    assert "internal error" not in result.err
    require_visible(result)


@pytest.mark.usefixtures("drive")
def test_layouts_with_other_commands(program: Program, zoned: Program) -> None:
    Path(name := EVIL + "2").write_bytes(bytes(1 << 20))
    for operation in ("format", "check", "stat", "repair"):
        made = zoned("inplace-compress", operation, name)
        assert made.status == 0, made
        require_visible(made)
    assert program("mkzonefs", "-f", EVIL).status == 0
    for operation in ("ls", "stat", "inspect", "check"):
        require_visible(zoned("zonefs", operation, EVIL))
    require_visible(zoned("zonefs", "put", "--dry-run", "--pad", EVIL, "/seq/0", "trace"))
    require_visible(zoned("zonefs", "truncate", "--dry-run", EVIL, "/seq/0", "max"))


@pytest.mark.usefixtures("drive")
def test_an_undo_file_that_is_named_can_be_played_back(program: Program, zoned: Program) -> None:
    undo = os.fsdecode(b"u \n'\xff.undo")
    with open(EVIL, "r+b") as raw:
        raw.write(b"\xff" * 4096)
    repaired = zoned("check", "--repair", "--undo", undo, EVIL)
    require_visible(repaired)
    line = next(line for line in repaired.err.splitlines() if "takes it back" in line)
    word = line.removeprefix("note: zoned undo ").removesuffix(" DEV... takes it back")
    assert word == r"$'u \x0a\'\xff.undo'"
    undone = zoned("undo", undo, EVIL)
    assert undone.status == 0, undone
    require_visible(undone)
    plain = zoned("check", "--repair", "--undo", "two words", EVIL)
    assert shlex.split(next(x for x in plain.err.splitlines() if "takes it back" in x))[3] == "two words"


WRITERS = {
    "cli/entry.py": "the version, before anything is loaded",
    "cli/run.py": "errors",
    "cli/output.py": "errors",
    "cli/commands/demo.py": "colours",
    "report/stream.py": "everything else",
}


def test_text_is_written_in_one_place() -> None:
    """A command that prints by itself would print names raw."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                *("print", "typer.echo", "sys.stdout.write", "sys.stderr.write", "sys.stdout.writelines"),
            ):
                found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(ast.unparse(node.func))
    assert set(found) <= set(WRITERS), found
