"""What sysfs tells of drives without zones."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from zoned_tools.device import identity, sysfs
from zoned_tools.device.sysfs import BlockSysfs

ZONED_BYTE = 8
"""Of VPD page B1h; bits 4 and 5: 0 says nothing, 1 is host-aware, 2 drive-managed."""


def disk(folder: Path, page: bytes | None) -> BlockSysfs:
    (folder / "sda" / "device").mkdir(parents=True)
    if page is not None:
        (folder / "sda" / "device" / "vpd_pgb1").write_bytes(page)
    return BlockSysfs(folder / "sda")


@pytest.mark.parametrize(
    ("page", "managed"),
    [
        (bytes([0, 0xB1, 0, 60, 0, 1, 0, 0, 0x20, 0]), True),
        (bytes([0, 0xB1, 0, 60, 0, 1, 0, 0, 0x10, 0]), False),
        (bytes([0, 0xB1, 0, 60, 0, 1, 0, 0, 0, 0]), False),
        (bytes(ZONED_BYTE), False),
        (None, False),
    ],
)
def test_drive_managed_drives(page: bytes | None, managed: bool, tmp_path: Path) -> None:
    assert disk(tmp_path, page).is_drive_managed is managed


def test_they_are_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = disk(tmp_path, bytes([0, 0xB1, 0, 60, 0, 1, 0, 0, 0x20, 0]))
    monkeypatch.setattr(sysfs.BlockSysfs, "of_device_number", lambda rdev: drive)
    image = tmp_path / "image"
    image.write_bytes(b"")
    assert str(identity.not_zoned(str(image))) == f"{image}: not a zoned device"
    monkeypatch.setattr(stat, "S_ISBLK", lambda mode: True)
    said = str(identity.not_zoned(os.fspath(image)))
    assert "not a zoned device (a drive-managed SMR drive hides its zones and is used like any other disk)" in said
