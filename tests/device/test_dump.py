"""The zone-info dump codec against files that zbd wrote, and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoned_tools.device import dump
from zoned_tools.errors import SidecarError

DEVICES = ["nullblk-cap3of4", "nullblk-ro-offline", "qemu-zns", "scsi-debug-aware", "scsi-debug-managed-runt"]
BAD = json.loads((Path(__file__).parents[1] / "vectors/zone-report/bad-sidecars/expected.json").read_text())


@pytest.mark.parametrize("device", DEVICES)
def test_reencoding_gives_the_same_bytes(device: str, vectors: Path) -> None:
    raw = (vectors / "zone-report" / device / "disk.img.zones").read_bytes()
    decoded = dump.decode(raw, device)
    assert dump.encode(decoded.geometry, decoded.table, decoded.zstart, decoded.zend) == raw
    assert decoded.warnings == [] or device == "qemu-zns"


@pytest.mark.parametrize("name", BAD)
def test_damaged_sidecar(name: str, vectors: Path) -> None:
    raw = (vectors / "zone-report" / "bad-sidecars" / f"{name}.zones").read_bytes()
    expected = BAD[name]
    if expected["valid"]:
        assert len(dump.decode(raw, name).warnings) == len(expected["findings"])
        return
    with pytest.raises(SidecarError) as caught:
        dump.decode(raw, name)
    first = expected["findings"][0]
    if first.startswith("zone "):
        assert f"zone {first.split()[1].rstrip(':')} " in str(caught.value)
    assert "\n" not in str(caught.value)
