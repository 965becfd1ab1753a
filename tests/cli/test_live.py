"""Drives that somebody uses: whoever reads them says that the content is live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zoned_tools.cli.clones.dmzadm import members
from zoned_tools.device import device_mapper, identity
from zoned_tools.device.device_mapper import Mapping
from zoned_tools.engine import checking
from zoned_tools.errors import BusyError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program

USE = "is in use, held by dm-0 (cut)"


@pytest.fixture
def drive(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image that looks like a block device on which a target runs."""
    image = tmp_path / "drive.img"
    made = program("zoned", "image", "create", image, "--zones", 24, "--zone-size", "1MiB", "--conventional", 6)
    assert made.status == 0
    assert program("dmzadm", "--format", image, "--seq=2").status == 0

    def use(path: str) -> str:
        return USE if path == str(image) else ""

    def refuse(path: str) -> None:
        if use(path):
            raise BusyError(USE, device=path)

    monkeypatch.setattr(identity, "describe_use", use)
    monkeypatch.setattr(checking, "describe_use", use)
    monkeypatch.setattr(members, "refuse_if_used", refuse)
    return image


@pytest.mark.parametrize("command", ["check", "map", "inspect", "dump", "export -o -"])
def test_readers_say_that_it_is_live(command: str, drive: Path, zoned: Program) -> None:
    name, *options = command.split()
    done = zoned(name, drive, *options)
    assert done.status == 0
    assert done.err.splitlines()[0] == f"zoned: {drive}: note: {USE}: what is read is live, and may change meanwhile"


def test_a_document_of_a_check_says_it_too(drive: Path, zoned: Program, tmp_path: Path) -> None:
    assert zoned("check", drive, "--json").json["devices"][0]["facts"]["live"] == {str(drive): USE}
    (tmp_path / "other.img").write_bytes(drive.read_bytes())
    (tmp_path / "other.img.zones").write_bytes((tmp_path / "drive.img.zones").read_bytes())
    other = zoned("check", tmp_path / "other.img", "--json")
    assert (other.err, "live" in other.json["devices"][0]["facts"]) == ("", False)


@pytest.mark.parametrize("operation", ["--check", "--repair", "--relabel", "--start"])
def test_the_clone_refuses_like_the_original(operation: str, drive: Path, program: Program) -> None:
    done = program("dmzadm", operation, drive)
    assert (done.status, done.err) == (1, f"dmzadm: {drive}: {USE}\n")


def test_a_started_target_is_said_to_be_so(drive: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_mapper, "mappings_on", lambda path: [Mapping("cut", "zoned", "")])
    done = program("dmzadm", "--start", drive)
    assert (done.status, done.err) == (1, "dmzadm: drive.img: already started as cut\n")
