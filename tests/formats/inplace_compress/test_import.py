"""Import and export: content, holes, processes, power cuts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.inplace_compress.images import (
    check_device,
    content,
    corrupt_bytes,
    everything,
    extents_of,
    image_bytes,
    in_memory,
    mapper_of,
)
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import LoggedDiscard, LoggedWrite, Recorder
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import DeviceError
from zoned_tools.formats.inplace_compress import import_
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.encoding import Choice
from zoned_tools.formats.inplace_compress.import_ import plan_import
from zoned_tools.formats.inplace_compress.mapper.copying import copy_volume
from zoned_tools.formats.inplace_compress.open import open_volume
from zoned_tools.formats.inplace_compress.probe import probe
from zoned_tools.formats.inplace_compress.source import open_source

piece = st.one_of(
    st.tuples(st.sampled_from(["text:1", "rand:2", "mix:3:900", "zero"]), st.integers(1, 40)),
)


@settings(max_examples=25)
@given(
    st.lists(piece, min_size=1, max_size=10),
    st.integers(0, 4095),
    st.sampled_from([2, 32]),
    st.sampled_from([Compressor.LZO, Compressor.C842]),
    st.booleans(),
)
def test_what_is_imported_comes_out(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[tuple[str, int]],
    cut: int,
    window: int,
    compressor: Compressor,
    exact: bool,
) -> None:
    folder = tmp_path_factory.mktemp("import")
    plain = b"".join(content(spec, 4096 * count) for spec, count in pieces)
    plain = plain[: len(plain) - cut]
    (folder / "raw").write_bytes(plain)
    device = in_memory(folder, content("rand:9", 2 << 20))  # old content everywhere
    plan, result = plan_import(device, open_source(str(folder / "raw")), Choice(compressor, window, exact))
    apply_plan([device], plan.steps)
    padded = plain + bytes(-len(plain) % 4096)
    assert everything(device) == padded + bytes(4096 * result.data_blocks - len(padded))
    assert check_device(device, deep=True).findings.groups == []
    rows = extents_of(device)
    assert len(rows) == result.extents
    assert sum(512 * row[2] for row in rows) == result.stored_bytes  # type: ignore[operator,misc]
    for head, blocks, *_ in rows:
        assert head // window == (head + blocks - 1) // window  # type: ignore[operator]
        assert any(padded[4096 * head : 4096 * (head + 1)])  # type: ignore[operator]


def test_a_power_cut_in_an_import_never_leaves_half_a_volume(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(content("text:1", 300_000))
    recorder = Recorder(in_memory(tmp_path, image_bytes("p1-lzo")))  # there is another volume before
    plan, _ = plan_import(recorder, open_source(str(tmp_path / "raw")), Choice(Compressor.LZO))
    apply_plan([recorder], plan.steps)
    (tmp_path / "cut").mkdir()
    device = in_memory(tmp_path / "cut", image_bytes("p1-lzo"))
    changes = [e for _, e in recorder.log if isinstance(e, LoggedWrite | LoggedDiscard)]
    for change in changes[:-1]:
        if isinstance(change, LoggedWrite):
            device.write(change.offset_bytes, change.data)
        else:
            device.discard(change.offset_bytes, change.length_bytes)
        assert probe(device, 0) is None
    assert isinstance(changes[-1], LoggedWrite)
    assert changes[-1].offset_bytes == 0


@pytest.fixture
def parallel_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, bytes]:
    """An image that two processes filled, with a hole in its middle."""
    monkeypatch.setattr(import_, "WORTHWHILE_BYTES", dict.fromkeys(Compressor, 0))
    half = content("mix:1:700", 6 << 20)
    plain = half + bytes(32 << 20) + content("text:5", 1 << 20)
    source, image = tmp_path / "raw", tmp_path / "image"
    with source.open("wb") as file:
        file.write(half)
        file.truncate(38 << 20)
        file.seek(38 << 20)
        file.write(plain[38 << 20 :])
    with image.open("wb") as file:
        file.truncate(64 << 20)
    done: list[int] = []
    with open_image(str(image), writable=True) as device:
        plan, _ = plan_import(
            device,
            open_source(str(source)),
            Choice(Compressor.LZO),
            processes=2,
            progress=done.append,
            data_blocks=10000,
        )
        apply_plan([device], plan.steps)
    assert done == sorted(done)
    assert done[-1] == len(plain)
    assert os.stat(image).st_blocks * 512 < 12 << 20
    return image, plain


@pytest.mark.parametrize("processes", [1, 2])
def test_copying_with_processes(parallel_image: tuple[Path, bytes], processes: int, tmp_path: Path) -> None:
    image, plain = parallel_image
    out = tmp_path / "out"
    out.touch()
    done: list[int] = []
    with open_image(str(image)) as device:
        copied = copy_volume(open_volume(device), str(out), processes=processes, progress=done.append)
        assert mapper_of(device).read(0, len(plain) // 4096) == plain
    assert out.read_bytes() == plain + bytes(4096 * 10000 - len(plain))
    assert done[-1] == 4096 * 10000
    assert copied.lost == []
    assert copied.data_bytes == 7 << 20
    assert os.stat(out).st_blocks * 512 < 9 << 20


def test_errors_in_workers_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoned_tools.formats.inplace_compress.mapper.copying.RANGE_BLOCKS", 512)
    image, out = tmp_path / "image", tmp_path / "out"
    image.write_bytes(corrupt_bytes("lzo-tag-magic"))
    out.touch()
    with open_image(str(image)) as device:
        volume = open_volume(device)
        with pytest.raises(DeviceError) as caught:
            copy_volume(volume, str(out), processes=2)
        assert "block 1 cannot be read: EXT_TAG" in str(caught.value)
        copied = copy_volume(volume, str(out), processes=2, skip_errors=True)
        assert [(bad.block, bad.blocks, bad.code) for bad in copied.lost] == [(1, 1, "EXT_TAG")]
        assert out.read_bytes() == everything(device, unreadable="zeroes")


def test_check_over_processes_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoned_tools.formats.inplace_compress.workers.WORTHWHILE_BYTES", dict.fromkeys(Compressor, 0))
    monkeypatch.setattr("zoned_tools.formats.inplace_compress.workers._PART_EXTENTS", 16)
    image = tmp_path / "image"
    image.write_bytes(corrupt_bytes("842-payload-flip"))
    with open_image(str(image)) as device:
        reports = [check_device(device, {"processes": processes}) for processes in ("1", "2")]
    assert list(reports[0].findings) == list(reports[1].findings)
    assert reports[0].facts == reports[1].facts
    assert len(reports[0].findings) == 1
