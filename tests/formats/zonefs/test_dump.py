"""``zoned dump`` and ``zoned restore`` of a zonefs super block."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.formats.zonefs.images import make_image
from zoned_tools.device.image import open_image
from zoned_tools.errors import MetadataError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.zonefs.dump import restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.programs import Result


@pytest.mark.parametrize("conventional", [0, 2])
def test_round_trip(conventional: int, tmp_path: Path, program: Callable[..., Result]) -> None:
    image = make_image(tmp_path / "disk.img", conventional=conventional)
    options = ("-L", "päper", "-o", "aggr_cnv,uid=1000,gid=100,perm=600")
    assert program("mkzonefs", *options, image).status == 0
    raw = image.read_bytes()[:4096]
    (tmp_path / "data").write_bytes(b"d" * 4096)
    assert program("zoned", "zonefs", "put", image, "/seq/0", tmp_path / "data").status == 0
    assert program("zoned", "dump", image, "-o", tmp_path / "saved.json").status == 0
    with open_image(str(image), writable=True) as device:
        if not conventional:
            from zoned_tools.device.base import ZoneOperation

            device.manage(ZoneOperation.RESET, 0)
        device.write(0, bytes(4096))
    assert program("zoned", "restore", image, "-i", tmp_path / "saved.json").status == 0
    assert image.read_bytes()[:4096] == raw
    assert program("zoned", "check", image).status == 0
    assert program("zoned", "zonefs", "cat", image, "/seq/0").out == "d" * 4096


GOOD = {"label": "x", "uuid": "2e5c9ba2-3b2e-4a07-a391-a24e7a5401ac", "features": 15, "uid": 1, "gid": 1, "perm": 384}


@pytest.mark.parametrize(
    "changes",
    [
        {"features": 31},
        {"features": -1},
        {"features": "15"},
        {"uid": 0xFFFFFFFF},
        {"gid": 1 << 32},
        {"perm": True},
        {"perm": None},
        {"label": "x" * 65},
        {"uuid": "x"},
        None,
    ],
)
def test_damaged_documents(changes: dict[str, object] | None, tmp_path: Path) -> None:
    document: dict[str, object] = {"zonefs_dump_version": 1, "super_block": {**GOOD, **(changes or {})}}
    if changes is None:
        document = {"zonefs_dump_version": 2, "super_block": GOOD}
    with open_image(str(make_image(tmp_path / "disk.img"))) as device, pytest.raises(MetadataError):
        restore(Target("zonefs", (device,)), json.loads(json.dumps(document)))
