"""Hostile and damaged undo files: refused in little memory before anything is written."""

from __future__ import annotations

import json
import os
import random
import time
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.device.undo_support import ZONE, ZONES, first_version, make, play, saved, state
from zoned_tools.device.image import open_image
from zoned_tools.device.undo import UndoFile
from zoned_tools.device.undo_files import list_undo_files
from zoned_tools.device.undo_format import PIECES, TOUCHED, WRITTEN
from zoned_tools.errors import MetadataError, RefusedError, ZonedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Members = dict[str, bytes]


def repacked(undo: str, members: Members, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(undo, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def edit(name: str, dtype: np.dtype[np.void], field: str, value: int, row: int = 0) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        table = np.frombuffer(members[name], dtype).copy()
        table[field][row] = value
        members[name] = table.tobytes()

    return change


def header(**changes: object) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members["header.json"] = json.dumps({**json.loads(members["header.json"]), **changes}).encode()

    return change


def replace(name: str, data: bytes | None) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        if data is None:
            del members[name]
        else:
            members[name] = data

    return change


HOSTILE: dict[str, Callable[[Members], None]] = {
    "a device that is not there": edit("pieces", PIECES, "device", 7),
    "a device that is not there, zone": edit("touched", TOUCHED, "device", 7),
    "a device that is not there, block": edit("written", WRITTEN, "device", 1),
    "a zone that is not there": edit("touched", TOUCHED, "zone", 8, 1),
    "a zone far away": edit("touched", TOUCHED, "zone", 0xFFFFFFFF, 1),
    "a conventional zone": edit("touched", TOUCHED, "zone", 0),
    "a zone that was not saved": edit("touched", TOUCHED, "zone", 3),
    "beyond the end": edit("pieces", PIECES, "offset_bytes", ZONES * ZONE, 1),
    "far beyond the end": edit("pieces", PIECES, "offset_bytes", (1 << 64) - 4096, 1),
    "into another zone": edit("pieces", PIECES, "offset_bytes", 5 * ZONE, 1),
    "not at the start of the zone": edit("pieces", PIECES, "offset_bytes", 4 * ZONE + 4096, 1),
    "half a block": edit("pieces", PIECES, "offset_bytes", 4097),
    "too long": edit("pieces", PIECES, "length_bytes", 1 << 62),
    "nothing": edit("pieces", PIECES, "length_bytes", 0),
    "overlapping": edit("pieces", PIECES, "offset_bytes", 4 * ZONE),
    "another chunk": edit("pieces", PIECES, "chunk", 1, 1),
    "a chunk far away": edit("pieces", PIECES, "chunk", 0xFFFFFFFF),
    "another place in the chunk": edit("pieces", PIECES, "skip_bytes", 512, 1),
    "a block beyond the end": edit("written", WRITTEN, "offset_bytes", (1 << 64) - 1),
    "a long block": edit("written", WRITTEN, "length_bytes", 0xFFFFFFFF),
    "no pieces": replace("pieces", b""),
    "half a piece": replace("pieces", bytes(31)),
    "no content": replace("data/0", None),
    "short content": replace("data/0", b"short"),
    "more content": replace("data/1", b"more"),
    "another member": replace("other", b"member"),
    "no zone table": replace("zones/0", None),
    "a bad zone table": replace("zones/0", bytes(192 + 8 * 64)),
    "a zone table of nobody": replace("zones/9", bytes(192)),
    "no table of blocks": replace("written", None),
    "header: no devices": header(devices=[]),
    "header: two devices": header(devices=[{"path": "x", "start_bytes": 0, "size_bytes": 1, "model": "regular"}] * 2),
    "header: other types": header(devices=7),
    "header: a text": header(devices=[{"path": "x", "start_bytes": "0", "size_bytes": 1, "model": "regular"}]),
    "header: negative": header(devices=[{"path": "x", "start_bytes": -5, "size_bytes": 1, "model": "regular"}]),
    "header: huge": header(devices=[{"path": "x", "start_bytes": 1 << 80, "size_bytes": 1, "model": "regular"}]),
    "header: another schema": header(schema="zoned.undo/9"),
    "header: a list": replace("header.json", b"[1, 2]"),
    "header: nested": replace("header.json", b"[" * 100_000),
    "header: not text": replace("header.json", b"\xff\xfe\x00"),
}


@pytest.fixture
def good(tmp_path: Path) -> tuple[str, str, Members]:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    saved(path, undo)
    with zipfile.ZipFile(undo) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert list(members) == ["header.json", "written", "touched", "zones/0", "data/0", "pieces"]
    return path, undo, members


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_before_anything_is_written(
    what: str, *, force: bool, good: tuple[str, str, Members]
) -> None:
    path, undo, members = good
    HOSTILE[what](members)
    repacked(undo, members)
    before = state(path)
    with pytest.raises((MetadataError, RefusedError)):
        play(path, undo, force=force)
    assert state(path) == before


BOMBS: dict[str, Callable[[Members], None]] = {
    "header": replace("header.json", b"[" + b" " * (1 << 28) + b"]"),
    "lists": replace("header.json", b"[" + b"[]," * (60 << 20) + b"1]"),
    "blocks": replace("written", bytes(48 << 22)),
    "pieces": replace("pieces", bytes(32 << 23)),
    "zones": replace("touched", bytes(8 << 25)),
    "zone table": replace("zones/0", bytes(1 << 28)),
    "content": replace("data/0", bytes(1 << 28)),
    "another member": replace("more", bytes(1 << 28)),
}


@pytest.mark.parametrize("schema", ["zoned.undo/2", "zoned.undo/1"])
@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_refused_in_little_memory(what: str, schema: str, good: tuple[str, str, Members]) -> None:
    path, undo, members = good
    header(schema=schema)(members)
    BOMBS[what](members)
    repacked(undo, members, zipfile.ZIP_DEFLATED)
    members.clear()
    assert os.path.getsize(undo) < 4 << 20
    before = state(path)
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ZonedError):
        play(path, undo, force=True)
    assert time.process_time() - started < 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20
    assert state(path) == before
    assert list_undo_files(os.path.dirname(undo)) == [] or what not in ("header", "lists")


def test_a_first_version_of_many_blocks_is_bounded(tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    first_version(path, undo)
    with zipfile.ZipFile(undo) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, size in (("written", 48 << 22), ("data/0/4096", 1 << 28), ("zones/0", 1 << 28)):
        repacked(undo, {**members, name: bytes(size)}, zipfile.ZIP_DEFLATED)
        before = state(path)
        tracemalloc.start()
        with pytest.raises(ZonedError):
            play(path, undo, force=True)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100 << 20
        assert state(path) == before


def test_any_damage_is_an_error_of_the_project(good: tuple[str, str, Members]) -> None:
    """Bytes changed, cut off, doubled: nothing else is raised, and nothing is written unless all of it fits."""
    path, undo, _ = good
    with open(undo, "rb") as file:
        raw = file.read()
    before = state(path)
    rng = random.Random(7)
    outcomes = {"refused": 0, "played": 0}
    for _round in range(300):
        bad = bytearray(raw)
        match rng.randrange(4):
            case 0:
                bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            case 1:
                at = rng.randrange(len(bad))
                bad[at : at + rng.randrange(64)] = rng.randbytes(rng.randrange(64))
            case 2:
                del bad[rng.randrange(len(bad)) :]
            case 3:  # the directory and the end of the archive
                bad[-1 - rng.randrange(400)] = rng.randrange(256)
        with open(undo, "wb") as file:
            file.write(bad)
        with open_image(path) as drive:
            try:
                with UndoFile(undo) as saved_file:
                    saved_file.check([drive])
                    for _step in saved_file.steps([drive]):
                        pass
                outcomes["played"] += 1
            except (MetadataError, RefusedError):
                outcomes["refused"] += 1
    assert state(path) == before
    assert outcomes["refused"] > 200


def test_the_message_of_a_damaged_file_names_it(good: tuple[str, str, Members]) -> None:
    path, undo, _ = good
    with open(undo, "r+b") as file:
        with zipfile.ZipFile(undo) as archive:
            file.seek(archive.getinfo("data/0").header_offset + 50)
        file.write(b"!")
    with pytest.raises(MetadataError, match="damaged undo file: data/0 fails its checksum") as caught:
        play(path, undo)
    assert caught.value.device == undo
