"""Packages that this process finds, and drives for their layouts."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.formats.plugin.packages import SMALL, install_module
from tests.programs import Program
from zoned_tools.cli import run
from zoned_tools.formats import registry

Install = Callable[..., None]
"""``install("small_a", "LAYOUT = Layout(**KW)")``: a module that begins as :data:`SMALL` does."""


def _forget() -> None:
    importlib.invalidate_caches()
    registry.get.cache_clear()
    registry._installed.cache_clear()
    run._SAID.clear()


@pytest.fixture
def install_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs modules for this process; each test has names of its own, because modules stay loaded."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(module: str, code: str = "LAYOUT = Layout(**KW)", *, before: str = SMALL) -> None:
        install_module(site, module, f"{before}\n{code}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
        _forget()  # the drives may have been made already, and asked for layouts

    yield install
    _forget()


@pytest.fixture
def small_drive(tmp_path: Path, zoned: Program) -> Path:
    """16 MiB with the mark of the small layout."""
    path = tmp_path / "small.img"
    assert zoned("image", "create", path, "--size", "16M", "--zone-size", "1M", "--conventional", "3").status == 0
    with path.open("r+b") as file:
        file.write(b"SMALL")
    return path


@pytest.fixture
def our_drive(tmp_path: Path, program: Program) -> Path:
    """A clean zonefs."""
    path = tmp_path / "ours.img"
    made = program("zoned", "image", "create", path, "--size", "16M", "--zone-size", "1M", "--conventional", "3")
    assert made.status == 0
    assert program("mkzonefs", path).status == 0
    return path
