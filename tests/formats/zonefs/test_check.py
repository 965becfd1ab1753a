"""Check and repair: every rule's finding, damage that is recovered, power cuts, hostile input."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.zonefs.images import MIB, make_image
from tests.programs import Result
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import ZoneCondition, ZoneTable
from zoned_tools.errors import UsageError
from zoned_tools.formats.registry import CheckOptions, RepairOptions, Target
from zoned_tools.formats.zonefs import layout
from zoned_tools.formats.zonefs.check import CODES, check
from zoned_tools.formats.zonefs.constants import Feature
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.probe import probe
from zoned_tools.formats.zonefs.repair import plan_repair, recover

UUID = uuid.UUID("2e5c9ba2-3b2e-4a07-a391-a24e7a5401ac")
GOOD = SuperBlock(label_bytes=b"name", uuid=UUID, features=15, uid=1000, gid=100, perm=0o600)


def image_with(path: Path, raw: bytes, *, conventional: int = 2, finish: bool = True, **options: object) -> Path:
    image = make_image(path, size_bytes=32 * MIB, conventional=conventional, **options)  # type: ignore[arg-type]
    with open_image(str(image), writable=True) as device:
        if raw:
            device.write(0, raw)
            if not conventional and finish:
                from zoned_tools.device.base import ZoneOperation

                device.manage(ZoneOperation.FINISH, 0)
    return image


def found(device: EmulatedDrive) -> dict[str, str]:
    report = check(Target("zonefs", (device,)), CheckOptions())
    assert {f.code for f in report.findings} <= set(CODES)
    assert all(f.severity == CODES[f.code].severity for f in report.findings)
    return {f.code: str(f.severity) for f in report.findings}


def repaired(device: EmulatedDrive, settings: Mapping[str, str] | None = None, *allow: str) -> Overlay:
    overlay = Overlay(device)
    target = Target("zonefs", (overlay,))
    options = RepairOptions(allow=frozenset(allow), settings=settings or {})
    apply_plan([overlay], plan_repair(target, check(target, CheckOptions()), options).steps)
    return overlay


def damaged(block: SuperBlock) -> bytes:
    """A block that is what it is, with a checksum that fits."""
    return block.encode()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (damaged(GOOD), {}),
        (damaged(replace(GOOD, magic=0x12345678)), {"sb-magic": "error"}),
        (bytes(4096), {"sb-magic": "error"}),
        (b"\xff" * 4096, {"sb-magic": "error"}),
        (damaged(GOOD)[:4] + b"\0\0\0\0" + damaged(GOOD)[8:], {"sb-crc": "error"}),
        (b"SFOX" + damaged(GOOD)[4:], {"sb-magic": "error"}),
        (damaged(replace(GOOD, features=31)), {"sb-features": "error"}),
        (damaged(replace(GOOD, uid=0xFFFFFFFF)), {"sb-uid": "error"}),
        (damaged(replace(GOOD, gid=0xFFFFFFFF)), {"sb-gid": "error"}),
        (damaged(replace(GOOD, features=9, uid=0xFFFFFFFF, gid=0)), {"sb-ignored-field": "info"}),
        (damaged(replace(GOOD, reserved=bytes(100) + b"x" + bytes(3887))), {"sb-reserved": "error"}),
        (damaged(replace(GOOD, perm=0o10644)), {"sb-perm-bits": "warning"}),
        (damaged(replace(GOOD, label_bytes=b"M" * 33)), {"sb-label": "warning"}),
        (damaged(replace(GOOD, label_bytes=b"\xff\xfe")), {"sb-label": "warning"}),
        (damaged(replace(GOOD, label_bytes=b"x\0ongerlabel")), {"sb-label": "warning"}),
        (damaged(replace(GOOD, label_bytes="é".encode())), {}),
        (damaged(replace(GOOD, uuid=uuid.UUID(int=0))), {"sb-uuid-nil": "warning"}),
    ],
)
@pytest.mark.parametrize("conventional", [0, 2])
def test_findings_and_repair(conventional: int, raw: bytes, expected: dict[str, str], tmp_path: Path) -> None:
    """Each rule alone; repair leaves no error and keeps label and UUID where there are any."""
    with open_image(str(image_with(tmp_path / "disk.img", raw, conventional=conventional))) as device:
        assert found(device) == expected
        overlay = repaired(device, {"uuid": str(UUID), "label": "name"} if raw[:4] in (bytes(4), b"\xff" * 4) else None)
        after = found(overlay)
        assert not {code for code, severity in after.items() if severity == "error"}
        if set(expected) & {"sb-label", "sb-uuid-nil", "sb-ignored-field"}:
            assert overlay.read(0, 4096) == raw
            return
        assert "sb-perm-bits" not in after
        block = layout.decode(overlay.read(0, 4096))
        assert (block.label, block.uuid) == (layout.decode(raw).label if expected == {} else "name", UUID)
        if not conventional:
            assert overlay.zones()["condition"][0] == ZoneCondition.FULL


@given(st.integers(0, 4095), st.integers(1, 255))
def test_one_damaged_byte_is_put_right(position: int, change: int) -> None:
    raw = bytearray(GOOD.encode())
    raw[position] ^= change
    recovered = recover(bytes(raw))
    assert recovered is not None
    assert recovered.block.encode() == GOOD.encode()


@given(st.integers(0, 2**64), st.sampled_from((b"", b"SFOZ")))
def test_any_super_block(seed: int, start: bytes) -> None:
    """Nonsense is described, never a surprise; what recovery makes of it is mountable."""
    raw = start + Random(seed).randbytes(4096 - len(start))
    list(layout.mount_faults(raw))
    recovered = recover(raw)
    if recovered is not None:
        assert not list(layout.mount_faults(recovered.block.encode()))


def test_zone_0_states(tmp_path: Path) -> None:
    raw = GOOD.encode()
    with open_image(str(image_with(tmp_path / "a.img", raw, conventional=0, finish=False))) as device:
        assert found(device) == {"zone0-not-full": "warning"}
        overlay = repaired(device)
        assert found(overlay) == {}
        assert overlay.read(0, 4096) == raw
    with open_image(str(image_with(tmp_path / "b.img", b"", conventional=0))) as device:
        assert found(device) == {"zone0-empty": "error", "sb-magic": "error"}
        assert found(repaired(device)) == found(device)  # nothing to take parameters from
        assert found(repaired(device, {}, "zone0-empty")) == {}
        given = {"features": "aggr_cnv,uid=1000,gid=100,perm=600", "label": "name", "uuid": str(UUID)}
        assert repaired(device, given).read(0, 4096) == raw

    def kill(table: ZoneTable) -> None:
        table["condition"][0] = ZoneCondition.OFFLINE

    with open_image(str(make_image(tmp_path / "c.img", edit=kill))) as device:
        assert found(device) == {"zone0-offline": "error", "zone-offline": "warning"}
        assert found(repaired(device, {"label": "x"})) == found(device)
        assert probe(device, 0) is None


@pytest.mark.parametrize(
    "settings", [{"foo": "1"}, {"features": "foo"}, {"features": "perm=77777"}, {"uuid": "x"}, {"label": "x" * 65}]
)
def test_bad_settings(settings: dict[str, str], tmp_path: Path) -> None:
    with open_image(str(image_with(tmp_path / "disk.img", bytes(4096)))) as device, pytest.raises(UsageError):
        repaired(device, settings)


def test_dead_zones_name_their_files(tmp_path: Path) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][[2, 5]] = ZoneCondition.READ_ONLY
        table["condition"][7] = ZoneCondition.OFFLINE

    image = image_with(tmp_path / "disk.img", GOOD.encode(), conventional=4, edit=kill)
    with open_image(str(image)) as device:
        report = check(Target("zonefs", (device,)), CheckOptions())
    where = {f.code: f.where for f in report.findings}
    assert where["zone-readonly"] == {"zones": [2, 5], "count": 2, "files": ["/cnv/0", "/seq/1"]}
    assert where["zone-offline"] == {"zones": [7], "count": 1, "files": ["/seq/3"]}


def test_zone_states(tmp_path: Path) -> None:
    def odd(table: ZoneTable) -> None:
        table["condition"][3:6] = ZoneCondition.IMPLICIT_OPEN
        table["wp_sector"][4] += 8
        table["wp_sector"][5] += table["length_sectors"][5]

    image = image_with(tmp_path / "disk.img", GOOD.encode(), edit=odd, max_open=1, max_active=2)
    with open_image(str(image)) as device:
        report = check(Target("zonefs", (device,)), CheckOptions())
    codes = [f.code for f in report.findings]
    assert codes == ["active-limit", "active-limit", "zones-state", "zones-state"]
    assert not report.has_errors


def test_no_usable_zone(tmp_path: Path) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][1:] = ZoneCondition.OFFLINE

    with open_image(str(image_with(tmp_path / "disk.img", GOOD.encode(), edit=kill))) as device:
        assert found(device) == {"no-zones": "error", "zone-offline": "warning"}


def test_regular_device(tmp_path: Path) -> None:
    path = tmp_path / "plain.img"
    path.write_bytes(GOOD.encode() + bytes(MIB))
    with open_image(str(path)) as device:
        assert found(device) == {"not-zoned": "error"}
        assert found(repaired(device)) == {"not-zoned": "error"}


@pytest.mark.parametrize("conventional", [0, 2])
def test_power_cuts_of_a_repair(conventional: int, tmp_path: Path) -> None:
    """Whatever is left, a second repair with the parameters that the first one named ends well."""
    raw = damaged(replace(GOOD, features=31))
    with open_image(str(image_with(tmp_path / "disk.img", raw, conventional=conventional))) as base:
        recorder = Recorder(Overlay(base))
        target = Target("zonefs", (recorder,))
        plan = plan_repair(target, check(target, CheckOptions()), RepairOptions())
        assert any(
            str(UUID) in message and "aggr_cnv,uid=1000,gid=100,perm=600" in message for message in plan.messages
        )
        apply_plan([recorder], plan.steps)
        given = {"features": "aggr_cnv,uid=1000,gid=100,perm=600", "label": "name", "uuid": str(UUID)}
        for cut in range(len(recorder.log) + 1):
            for lost in (False, True):
                overlay = Overlay(base)
                replay_cut([overlay], recorder.log, cut, keep=lambda index, lost=lost: not lost)
                final = repaired(overlay, given)
                assert found(final) == {}
                assert final.read(0, 4096) == GOOD.encode()


def test_commands(tmp_path: Path, program: Callable[..., Result]) -> None:
    """fsck statuses, JSON, dry run, undo."""
    image = image_with(tmp_path / "disk.img", damaged(replace(GOOD, features=31)), conventional=0)
    before = image.read_bytes()[:MIB]
    assert program("zoned", "zonefs", "check", image).status == 4
    assert program("zoned", "check", "--repair", "--dry-run", image).status == 4
    assert image.read_bytes()[:MIB] == before
    undo = tmp_path / "undo"
    result = program("zoned", "zonefs", "check", "--repair", "--undo", undo, "--json", image)
    assert result.status == 1
    assert result.json["changed"] is True
    assert result.json["devices"][0]["verdict"] == "corrected"
    assert program("zoned", "check", image).status == 0
    assert layout.decode(image.read_bytes()[:4096]).label == "name"
    assert program("zoned", "undo", undo).status == 0
    assert image.read_bytes()[:MIB] == before
    assert program("zoned", "zonefs", "check", "--repair", "--set", "foo=1", image).status == 16


def test_undo_brings_a_finished_zone_0_back(tmp_path: Path, program: Callable[..., Result]) -> None:
    """Image and zone table byte for byte; a zone finished early has another write pointer than one filled up."""
    raw = damaged(replace(GOOD, features=31))
    image = image_with(tmp_path / "disk.img", raw, conventional=0, capacity_bytes=3 * MIB)
    sidecar, undo = Path(f"{image}.zones"), tmp_path / "undo"
    before = (image.read_bytes(), sidecar.read_bytes())
    assert program("zoned", "check", "--repair", "--undo", undo, image).status == 1
    assert program("zoned", "undo", undo).status == 0
    assert (image.read_bytes(), sidecar.read_bytes()) == before


def test_probe(tmp_path: Path, program: Callable[..., Result]) -> None:
    image = image_with(tmp_path / "disk.img", damaged(replace(GOOD, features=int(Feature.UID) | 1 << 40)))
    (row,) = program("zoned", "probe", "--json", image).json["devices"]
    assert (row["layout"], row["uuid"], row["label"]) == ("zonefs", str(UUID), "name")
    document = program("zoned", "zonefs", "inspect", "--json", image).json
    assert document["mountable"] is False
    assert document["super_block"]["crc"]["meaning"] == "right"
    assert program("zoned", "zonefs", "inspect", image).status == 0


@given(st.data())
def test_truncated_and_tiny_devices(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "tiny.img"
    size = data.draw(st.sampled_from((512, 2048, 4096, 4608)))
    path.write_bytes(GOOD.encode()[:size].ljust(size, b"\0"))
    with open_image(str(path)) as device:
        assert (probe(device, 0) is not None) == (size >= 4096)
        assert probe(device, size) is None
