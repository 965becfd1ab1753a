"""Raw content in pieces: holes are skipped, ends are filled up, what is no content is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zoned_tools.device.rawsource import PIECE_BYTES, RawSource
from zoned_tools.errors import DeviceError, UsageError

BLOCK = 4096


def joined(source: RawSource, size: int) -> bytes:
    content = bytearray(size)
    before = 0
    for offset, data in source.pieces():
        assert offset >= before
        assert not offset % BLOCK
        assert not len(data) % BLOCK
        assert len(data) <= PIECE_BYTES
        content[offset : offset + len(data)] = data
        before = offset + len(data)
    return bytes(content[:size])


def test_holes_are_skipped_and_the_end_is_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    with open(path, "wb") as file:
        file.truncate(40 * PIECE_BYTES + 100)
        for at, data in ((5, b"a"), (3 * PIECE_BYTES - 7, b"b" * 20), (40 * PIECE_BYTES + 99, b"c")):
            os.pwrite(file.fileno(), data, at)
    with RawSource(str(path)) as source:
        assert source.size_bytes == 40 * PIECE_BYTES + 100
        assert joined(source, source.size_bytes) == path.read_bytes()
        assert sum(len(data) for _, data in source.pieces()) < 4 * PIECE_BYTES
        assert source.chunks(PIECE_BYTES) == 4
        assert source.chunks(40 * PIECE_BYTES) == 2
        assert source.chunks(64 * PIECE_BYTES) == 1


@pytest.mark.parametrize("size", [0, 1, BLOCK, PIECE_BYTES, PIECE_BYTES + 1])
def test_standard_input_is_read_to_its_end(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "raw"
    path.write_bytes(os.urandom(size))
    with open(path, "rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        with RawSource("-") as source:
            assert source.chunks(BLOCK) is None
            assert joined(source, size) == path.read_bytes()
            assert source.size_bytes == size


def test_a_pipe_comes_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x" * 5000)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        with RawSource("-") as source:
            assert joined(source, 5000) == b"x" * 5000


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        RawSource(str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="neither a file nor a block device"):
        RawSource("/dev/null")
    with pytest.raises((DeviceError, UsageError)):
        RawSource(str(tmp_path))
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DeviceError, match="closed"):
        RawSource("-")


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(b"x" * 3 * BLOCK)
    with RawSource(str(path)) as source:
        os.truncate(path, BLOCK)
        with pytest.raises(DeviceError, match="ends at byte 4096"):
            source.read(0, 3 * BLOCK)
