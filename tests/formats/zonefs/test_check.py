"""Check: every rule's finding."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.formats.zonefs.volumes import GOOD, UUID, evidence_of, found, image_with, repair
from zoned_tools.device.image import open_image
from zoned_tools.device.zones import ZoneCondition, ZoneTable
from zoned_tools.formats.zonefs.layout import SuperBlock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (GOOD.pack(), {}),
        (replace(GOOD, magic=0x12345678).pack(), {"sb-magic": "error"}),
        (bytes(4096), {"sb-magic": "error"}),
        (b"\xff" * 4096, {"sb-magic": "error"}),
        (GOOD.pack()[:4] + b"\0\0\0\0" + GOOD.pack()[8:], {"sb-crc": "error"}),
        (b"SFOX" + GOOD.pack()[4:], {"sb-magic": "error"}),
        (replace(GOOD, features=31).pack(), {"sb-features": "error"}),
        (replace(GOOD, uid=0xFFFFFFFF).pack(), {"sb-uid": "error"}),
        (replace(GOOD, gid=0xFFFFFFFF).pack(), {"sb-gid": "error"}),
        (replace(GOOD, features=9, uid=0xFFFFFFFF, gid=0).pack(), {"sb-ignored-field": "info"}),
        (replace(GOOD, reserved=bytes(100) + b"x" + bytes(3887)).pack(), {"sb-reserved": "error"}),
        (replace(GOOD, perm=0o10644).pack(), {"sb-perm-bits": "warning"}),
        (replace(GOOD, label_bytes=b"M" * 33).pack(), {"sb-label": "warning"}),
        (replace(GOOD, label_bytes=b"\xff\xfe").pack(), {"sb-label": "warning"}),
        (replace(GOOD, label_bytes=b"x\0ongerlabel").pack(), {"sb-label": "warning"}),
        (replace(GOOD, label_bytes="é".encode()).pack(), {}),
        (replace(GOOD, uuid=uuid.UUID(int=0)).pack(), {"sb-uuid-nil": "warning"}),
    ],
)
@pytest.mark.parametrize("conventional", [0, 2])
def test_findings_and_repair(conventional: int, raw: bytes, expected: dict[str, str], tmp_path: Path) -> None:
    """Each rule alone; repair leaves no error and keeps label and UUID where there are any."""
    with open_image(str(image_with(tmp_path / "disk.img", raw, conventional=conventional))) as device:
        assert found(device) == expected
        given = {"uuid": str(UUID), "label": "name"} if raw[:4] in (bytes(4), b"\xff" * 4) else None
        overlay = repair(device, given, *(set(expected) & {"sb-crc"})).device
        after = found(overlay)
        assert not {code for code, severity in after.items() if severity == "error"}
        if set(expected) & {"sb-label", "sb-uuid-nil", "sb-ignored-field"}:
            assert overlay.read(0, 4096) == raw
            return
        assert "sb-perm-bits" not in after
        block = SuperBlock.parse(overlay.read(0, 4096))
        assert (block.label, block.uuid) == (SuperBlock.parse(raw).label if expected == {} else "name", UUID)
        if not conventional:
            assert overlay.zones()["condition"][0] == ZoneCondition.FULL


def test_zone_0_was_reset(tmp_path: Path) -> None:
    with open_image(str(image_with(tmp_path / "disk.img", b"", conventional=0))) as device:
        assert found(device) == {"zone0-empty": "error", "sb-magic": "error"}


def test_facts_are_what_the_super_block_says(tmp_path: Path) -> None:
    with open_image(str(image_with(tmp_path / "disk.img", GOOD.pack()))) as device:
        facts = evidence_of(device).facts
    assert facts == {"label": "name", "uuid": str(UUID), "features": ["aggr_cnv", "uid", "gid", "perm"]}


def test_dead_zones_name_their_files(tmp_path: Path) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][[2, 5]] = ZoneCondition.READ_ONLY
        table["condition"][7] = ZoneCondition.OFFLINE

    image = image_with(tmp_path / "disk.img", GOOD.pack(), conventional=4, edit=kill)
    with open_image(str(image)) as device:
        where = {f.code: f.where for f in evidence_of(device).findings}
    assert where["zone-readonly"] == {"zones": [2, 5], "count": 2, "files": ["/cnv/0", "/seq/1"]}
    assert where["zone-offline"] == {"zones": [7], "count": 1, "files": ["/seq/3"]}


def test_zone_states(tmp_path: Path) -> None:
    def odd(table: ZoneTable) -> None:
        table["condition"][3:6] = ZoneCondition.IMPLICIT_OPEN
        table["wp_sector"][4] += 8
        table["wp_sector"][5] += table["length_sectors"][5]

    image = image_with(tmp_path / "disk.img", GOOD.pack(), edit=odd, max_open=1, max_active=2)
    with open_image(str(image)) as device:
        evidence = evidence_of(device)
    codes = [f.code for f in evidence.findings]
    assert codes == ["active-limit", "active-limit", "zones-state", "zones-state"]
    assert not evidence.has_errors


def test_no_usable_zone(tmp_path: Path) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][1:] = ZoneCondition.OFFLINE

    with open_image(str(image_with(tmp_path / "disk.img", GOOD.pack(), edit=kill))) as device:
        assert found(device) == {"no-zones": "error", "zone-offline": "warning"}
