"""Exports: sparse files, streams, unreadable blocks, existing files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.volumes import BLOCK, MemoryMapper
from zoned_tools.engine import export as export_module
from zoned_tools.engine.export import ExportResult, export_volume
from zoned_tools.engine.output import open_output
from zoned_tools.errors import DeviceError, RefusedError
from zoned_tools.formats.contract import MapExtent


@pytest.fixture
def mapper() -> MemoryMapper:
    """16 MiB with data in three places."""
    mapper = MemoryMapper(4096, writable=False)
    rng = random.Random(4)
    for block in [0, *range(500, 2800), 4000]:
        mapper.blocks[block] = rng.randbytes(BLOCK)
    return mapper


def export(mapper: MemoryMapper, path: Path, *, force: bool = False, skip_errors: bool = False) -> ExportResult:
    with open_output(str(path), [], force=force) as output:
        return export_volume(mapper, output, skip_errors=skip_errors)


def test_the_file_has_the_content_and_the_holes(mapper: MemoryMapper, tmp_path: Path) -> None:
    path = tmp_path / "out"
    told: list[int] = []
    with open_output(str(path), []) as output:
        result = export_volume(mapper, output, progress=told.append)
    assert path.read_bytes() == mapper.content()
    assert path.stat().st_blocks * 512 < 2400 * BLOCK
    assert result == ExportResult(4096 * BLOCK, 2302 * BLOCK)
    assert told == sorted(told)
    assert told[-1] == 4096 * BLOCK


def test_an_empty_device_is_one_hole(tmp_path: Path) -> None:
    export(MemoryMapper(1000), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == bytes(1000 * BLOCK)
    assert (tmp_path / "out").stat().st_blocks == 0


@given(st.sets(st.integers(0, 99)), st.sampled_from([1, 3, 100]), st.sampled_from([7, 32, 1000]))
def test_any_layout_any_window(
    tmp_path_factory: pytest.TempPathFactory, blocks: set[int], chunk: int, window: int
) -> None:
    mapper = MemoryMapper(100)
    mapper.blocks = {n: bytes([n + 1]) * BLOCK for n in blocks}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "CHUNK_BYTES", chunk * BLOCK)
        patch.setattr(export_module, "WINDOW_BYTES", window * BLOCK)
        path = tmp_path_factory.mktemp("export") / "out"
        assert export(mapper, path).data_bytes == len(blocks) * BLOCK
    assert path.read_bytes() == mapper.content()


_STREAM = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.engine.volumes import BLOCK, MemoryMapper
from zoned_tools.engine.export import export_volume
from zoned_tools.engine.output import open_output
mapper = MemoryMapper(4096)
mapper.blocks = {n: bytes([n % 251]) * BLOCK for n in range(100, 3000, 3)}
with open_output("-", []) as output:
    export_volume(mapper, output)
"""


def test_a_stream_has_its_holes_filled(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    expected = MemoryMapper(4096)
    expected.blocks = {n: bytes([n % 251]) * BLOCK for n in range(100, 3000, 3)}
    command = [sys.executable, "-c", _STREAM, here]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == 0
    assert done.stdout == expected.content()
    with open(tmp_path / "out", "wb") as out:
        out.write(b"before")
        out.flush()
        subprocess.run(command, stdout=out, timeout=60, check=True)
    assert (tmp_path / "out").read_bytes() == b"before" + expected.content()


def test_existing_files_are_kept(mapper: MemoryMapper, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"precious" * 10_000_000)
    with pytest.raises(DeviceError, match="already exists"):
        export(mapper, path)
    assert path.read_bytes()[:8] == b"precious"
    export(mapper, path, force=True)
    assert path.read_bytes() == mapper.content()


def test_the_source_is_never_the_output(tmp_path: Path) -> None:
    image, link = tmp_path / "disk.img", tmp_path / "link"
    for path in (image, tmp_path / "disk.img.zones"):
        path.write_bytes(b"drive")
    os.link(image, link)
    for output in (image, link, tmp_path / "disk.img.zones"):
        with pytest.raises(RefusedError), open_output(str(output), [str(image)], force=True):
            pass
        assert output.read_bytes() == b"drive"


def test_unreadable_blocks_stop_an_export_and_leave_no_file(mapper: MemoryMapper, tmp_path: Path) -> None:
    mapper.broken = {2000}
    with pytest.raises(DeviceError, match="block 2000 cannot be read"):
        export(mapper, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unreadable_blocks_can_be_skipped(mapper: MemoryMapper, tmp_path: Path) -> None:
    mapper.broken = {0, 3000, *range(1000, 1040), 2799}
    result = export(mapper, tmp_path / "out", skip_errors=True)
    for block in mapper.broken:
        mapper.blocks.pop(block, None)
    broken, mapper.broken = mapper.broken, set()
    assert (tmp_path / "out").read_bytes() == mapper.content()
    assert [(lost.offset_bytes // BLOCK, lost.length_bytes // BLOCK) for lost in result.lost] == [
        (0, 1),
        (1000, 40),
        (2799, 1),
        (3000, 1),
    ]
    assert result.lost[1].reason == "block 1000 cannot be read"
    assert len(broken) == 43


def test_where_lookup_fails_reading_decides(mapper: MemoryMapper, tmp_path: Path) -> None:
    def broken_lookup(block: int, count: int) -> Iterator[MapExtent]:
        raise DeviceError("the mapping table cannot be read")

    mapper.lookup = broken_lookup  # type: ignore[method-assign]  # the fault to be injected
    with pytest.raises(DeviceError, match="mapping table"):
        export(mapper, tmp_path / "out")
    assert export(mapper, tmp_path / "out", skip_errors=True).lost == []
    assert (tmp_path / "out").read_bytes() == mapper.content()


def test_outputs_that_cannot_be_made(tmp_path: Path) -> None:
    for path in (str(tmp_path), str(tmp_path / "none" / "out"), "nul\0"):
        with pytest.raises(DeviceError), open_output(path, [], force=True):
            pass


def test_a_full_output_is_an_error(mapper: MemoryMapper) -> None:
    with pytest.raises(DeviceError, match="/dev/full: cannot write: No space left"):
        export(mapper, Path("/dev/full"), force=True)
