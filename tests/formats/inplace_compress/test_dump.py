"""The metadata as a document, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.formats.inplace_compress.images import (
    CORRUPT,
    EXPECTED,
    corrupt_bytes,
    image_bytes,
    in_memory,
    target_of,
)
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import MetadataError
from zoned_tools.formats.inplace_compress.dump import dump, restore
from zoned_tools.formats.inplace_compress.open import open_volume


@pytest.mark.parametrize("name", [*EXPECTED, *[n for n in CORRUPT if "-map-" in n]])
def test_dump_and_restore(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = image_bytes(name) if name in EXPECTED else corrupt_bytes(name)
    device = in_memory(tmp_path, raw)
    volume = open_volume(device)
    for limit in (200_000, 3):
        monkeypatch.setattr("zoned_tools.formats.inplace_compress.dump.RUNS_MAX", limit)
        document = json.loads(json.dumps(dump(target_of(device))))
        device.write(4096, bytes(4096 * volume.meta_blocks))
        device.write(0, bytes(25) + raw[25:512])
        apply_plan([device], restore(target_of(device), document).steps)
        end = 4096 + volume.bitmap_bytes
        assert device.read(0, end) == raw[:end]
        assert device.read(4096 * (1 + volume.meta_blocks), 8192) == raw[volume.data_offset_bytes :][:8192]


def test_dumps_of_earlier_releases_restore(tmp_path: Path) -> None:
    """Their version's key was spelt ``version``."""
    device = in_memory(tmp_path, image_bytes("p1-lzo"))
    document = dump(target_of(device))
    steps = restore(target_of(device), document).steps
    old = {"version": document.pop("dump_version"), **document}
    assert restore(target_of(device), old).steps == steps
    for other in ({**document, "dump_version": 2}, {**document, "version": 2}, document):
        with pytest.raises(MetadataError):
            restore(target_of(device), other)


@pytest.mark.parametrize(
    "change",
    [
        {"data_blocks": 1 << 40},
        {"data_blocks": "x"},
        {"comp_alg": 9},
        {"extents": [[0, 1, 1]]},
        {"extents": [[0, 1 << 50, 1, 1]]},
        {"extents": [[-1, 1, 1, 1]]},
        {"extents": [[5000, 1, 1, 1]]},
        {"irregular": [[0, [99]]]},
        {"irregular": [[0, "x"]]},
        {"slack_bits": 1 << 40},
        {"bitmap_zlib_base64": "!"},
        {"bitmap_zlib_base64": "eJwDAAAAAAE="},
        {"extents": 7},
    ],
)
def test_damaged_documents(change: dict[str, object], tmp_path: Path) -> None:
    target = target_of(in_memory(tmp_path, image_bytes("p1-lzo")))
    with pytest.raises(MetadataError):
        restore(target, {**dump(target), **change})
