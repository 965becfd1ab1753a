"""Repair: what is certain is done, what would guess waits for its own code, and power cuts leave what a repair ends."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.formats.media import DamagedDrive
from tests.formats.zonefs.images import MIB, make_image
from tests.formats.zonefs.volumes import GIVEN, GOOD, UUID, consents_of, evidence_of, found, image_with, repair
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import ZoneCondition, ZoneTable
from zoned_tools.formats.contract import CheckOptions, Consent, Target
from zoned_tools.formats.zonefs.check import check
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.repair_plan import plan_repair
from zoned_tools.formats.zonefs.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.programs import Result
    from zoned_tools.device.emulated import EmulatedDrive

NO_CHECKSUM = GOOD.pack()[:4] + bytes(4) + GOOD.pack()[8:]
UNKNOWN_FEATURE = replace(GOOD, features=31).pack()
"""Has a checksum that fits, so there is one way to mend it."""


# -- what is certain


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"SFOX" + GOOD.pack()[4:], id="magic"),
        pytest.param(replace(GOOD, magic=0x12345678).pack(), id="magic-under-checksum"),
        pytest.param(UNKNOWN_FEATURE, id="features"),
        pytest.param(replace(GOOD, reserved=bytes(100) + b"x" + bytes(3887)).pack(), id="reserved"),
        pytest.param(GOOD.pack()[:0x200] + b"two bytes" + GOOD.pack()[0x209:], id="reserved-alone-damaged"),
        pytest.param(GOOD.pack()[:0x58] + b"\x0d" + GOOD.pack()[0x59:], id="one-byte"),
    ],
)
@pytest.mark.parametrize("conventional", [0, 2])
def test_what_is_certain_is_done(conventional: int, raw: bytes, tmp_path: Path) -> None:
    """All parameters survive, and a sequential zone 0 is full again."""
    with open_image(str(image_with(tmp_path / "disk.img", raw, conventional=conventional))) as device:
        result = repair(device)
        assert [action.consent for action in result.plan.actions] == [Consent.CERTAIN]
        assert result.device.read(0, 4096) == GOOD.pack()
        assert found(result.device) == {}
        assert (result.device.zones()["condition"][0] == ZoneCondition.FULL) == (conventional == 0)


@pytest.mark.parametrize(
    ("block", "dropped"),
    [
        (replace(GOOD, uid=0xFFFFFFFF), replace(GOOD, features=13, uid=0)),
        (replace(GOOD, gid=0xFFFFFFFF), replace(GOOD, features=11, gid=0)),
        (replace(GOOD, perm=0o10644), replace(GOOD, perm=0o644)),
    ],
)
def test_what_a_kernel_refuses_is_dropped(block: SuperBlock, dropped: SuperBlock, tmp_path: Path) -> None:
    with open_image(str(image_with(tmp_path / "disk.img", block.pack()))) as device:
        assert repair(device).device.read(0, 4096) == dropped.pack()


@pytest.mark.parametrize(
    "block",
    [
        replace(GOOD, features=9, uid=0xFFFFFFFF, gid=0),
        replace(GOOD, label_bytes=b"M" * 33),
        replace(GOOD, label_bytes=b"\xff\xfe"),
        replace(GOOD, label_bytes=b"x\0ongerlabel"),
        replace(GOOD, uuid=uuid.UUID(int=0)),
    ],
)
def test_what_has_no_repair_stays(block: SuperBlock, tmp_path: Path) -> None:
    with open_image(str(image_with(tmp_path / "disk.img", block.pack()))) as device:
        result = repair(device)
        assert (result.plan.actions, result.plan.plan.steps) == ([], [])
        assert found(result.device) == found(device)


def test_a_uuid_is_given(tmp_path: Path) -> None:
    with open_image(str(image_with(tmp_path / "disk.img", replace(GOOD, uuid=uuid.UUID(int=0)).pack()))) as device:
        assert repair(device, {"label": "x"}).plan.actions == []
        assert repair(device, {"uuid": str(UUID)}).device.read(0, 4096) == GOOD.pack()


def test_an_unfinished_zone_0_is_finished(tmp_path: Path) -> None:
    with open_image(str(image_with(tmp_path / "disk.img", GOOD.pack(), conventional=0, finish=False))) as device:
        assert found(device) == {"zone0-not-full": "warning"}
        result = repair(device)
        assert found(result.device) == {}
        assert result.device.read(0, 4096) == GOOD.pack()


# -- what asks


def overwritten(path: Path) -> EmulatedDrive:
    return open_image(str(image_with(path, b"\xff" * 4096)))


def without_checksum(path: Path) -> EmulatedDrive:
    return open_image(str(image_with(path, NO_CHECKSUM)))


def zone_reset(path: Path) -> EmulatedDrive:
    return open_image(str(image_with(path, b"", conventional=0)))


def unreadable(path: Path) -> EmulatedDrive:
    return DamagedDrive(open_image(str(image_with(path, GOOD.pack()))), [(0, 4096)])


ASKING = [
    ("sb-magic", overwritten),
    ("sb-crc", without_checksum),
    ("zone0-empty", zone_reset),
    ("metadata-lost", unreadable),
]


def test_every_code_that_asks_has_a_scenario() -> None:
    """But for the one that the engine asks about, of every layout: ``engine/test_raw_copies.py``."""
    asking = {code for code, rule in RULES.items() if rule.can_wait} - {"zones-derived"}
    assert sorted({code for code, _ in ASKING}) == sorted(asking)


@pytest.mark.parametrize(("code", "scenario"), ASKING)
def test_a_guess_waits_for_its_own_code(code: str, scenario: Callable[[Path], EmulatedDrive], tmp_path: Path) -> None:
    """Without consent nothing is written; every other code together agrees to nothing."""
    with scenario(tmp_path / "disk.img") as device:
        for allow in ((), tuple(set(RULES) - {code})):
            result = repair(device, None, *allow)
            assert result.waiting == [code]
            assert result.sentences[0].endswith(f"; it waits for --allow zonefs.{code}")
            assert result.plan.plan.steps == []
            assert found(result.device) == found(device)


@pytest.mark.parametrize(("code", "scenario"), ASKING)
@pytest.mark.parametrize("settings", [None, GIVEN, {"label": "name"}])
def test_a_guess_that_is_agreed_to_is_done(
    code: str, scenario: Callable[[Path], EmulatedDrive], settings: dict[str, str] | None, tmp_path: Path
) -> None:
    """By its code, or by giving parameters; what was given is what is written."""
    with scenario(tmp_path / "disk.img") as device:
        result = repair(device, settings, *(() if settings else (code,)))
        (action,) = result.plan.actions
        assert (action.id, action.consent, action.waits) == (f"zonefs.{code}", RULES[code].asks, False)
        assert found(result.device) == {}
        block = SuperBlock.parse(result.device.read(0, 4096))
        if settings or code == "sb-crc":
            assert block.label == "name"
        if settings == GIVEN or code == "sb-crc":
            assert result.device.read(0, 4096) == GOOD.pack()
        elif settings is None:
            assert replace(block, uuid=UUID, crc=0) == replace(SuperBlock(uuid=UUID), label_bytes=bytes(64))


def test_the_sentence_names_the_parameters(tmp_path: Path) -> None:
    """They can be given again if the repair does not come to its end."""
    with without_checksum(tmp_path / "disk.img") as device:
        (sentence,) = repair(device, None, "sb-crc").sentences
        assert sentence.endswith(f"features=aggr_cnv,uid=1000,gid=100,perm=600 label='name' uuid={UUID}")


def test_nothing_is_planned_for_a_dead_zone_0(tmp_path: Path) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][0] = ZoneCondition.OFFLINE

    with open_image(str(make_image(tmp_path / "disk.img", edit=kill))) as device:
        assert found(device) == {"zone0-offline": "error", "zone-offline": "warning"}
        result = repair(device, {"label": "x"}, *RULES)
        assert (result.plan.plan.steps, result.plan.actions) == ([], [])
        assert result.plan.plan.messages == ["zone 0 cannot be written, the super block stays as it is"]


def test_regular_device(tmp_path: Path) -> None:
    path = tmp_path / "plain.img"
    path.write_bytes(GOOD.pack() + bytes(MIB))
    with open_image(str(path)) as device:
        assert found(device) == {"not-zoned": "error"}
        assert repair(device, GIVEN, *RULES).plan.plan.steps == []


def test_an_unreadable_super_block_is_a_finding(tmp_path: Path) -> None:
    with open_image(str(image_with(tmp_path / "disk.img", GOOD.pack()))) as base:
        device = DamagedDrive(base, [(512, 1024)])
        evidence = evidence_of(device)
        assert [(f.code, f.where["what"]) for f in evidence.findings] == [("metadata-lost", "super")]
        assert plan_repair(evidence, consents_of(None, "sb-crc")).plan.steps == []
        apply_plan([device], plan_repair(evidence, consents_of(GIVEN)).plan.steps)
        assert found(device) == {}
        assert device.read(0, 4096) == GOOD.pack()


# -- power cuts, and the commands


def all_of_it(_entry: int) -> bool:
    """Every write before the cut reached the medium."""
    return True


def nothing(_entry: int) -> bool:
    """Only what was flushed did."""
    return False


@pytest.mark.parametrize("conventional", [0, 2])
def test_power_cuts_of_a_repair(conventional: int, tmp_path: Path) -> None:
    """Whatever is left, a second repair with the parameters that the first one named ends well."""
    with open_image(str(image_with(tmp_path / "disk.img", UNKNOWN_FEATURE, conventional=conventional))) as base:
        recorder = Recorder(Overlay(base))
        plan = plan_repair(check(Target("zonefs", (recorder,)), CheckOptions()), consents_of())
        (sentence,) = (text for action in plan.actions for text in action.sentences())
        assert str(UUID) in sentence
        assert GIVEN["features"] in sentence
        apply_plan([recorder], plan.plan.steps)
        for cut in range(len(recorder.log) + 1):
            for kept in (all_of_it, nothing):
                overlay = Overlay(base)
                replay_cut([overlay], recorder.log, cut, keep=kept)
                final = repair(overlay, GIVEN).device
                assert found(final) == {}
                assert final.read(0, 4096) == GOOD.pack()


def test_commands(tmp_path: Path, program: Callable[..., Result]) -> None:
    """fsck statuses, JSON, dry run, undo."""
    image = image_with(tmp_path / "disk.img", UNKNOWN_FEATURE, conventional=0)
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
    assert SuperBlock.parse(image.read_bytes()[:4096]).label == "name"
    assert program("zoned", "undo", undo, image).status == 0
    assert image.read_bytes()[:MIB] == before
    assert program("zoned", "zonefs", "check", "--repair", "--set", "foo=1", image).status == 16


def test_consent_on_the_command_line(tmp_path: Path, program: Callable[..., Result]) -> None:
    """Another code's consent is none; the dry run names the option that would be one."""
    image = image_with(tmp_path / "disk.img", b"\xff" * 4096)
    words = ("zoned", "check", "--repair", "--layout", "zonefs")
    waiting = program(*words, "--dry-run", image)
    assert "it waits for --allow zonefs.sb-magic" in waiting.out
    assert program(*words, "--allow", "zone-readonly", image).status == 4
    assert image.read_bytes()[:4096] == b"\xff" * 4096
    assert program(*words, "--allow", "zonefs.sb-magic", image).status == 1
    assert program("zoned", "check", image).status == 0


def test_undo_brings_a_finished_zone_0_back(tmp_path: Path, program: Callable[..., Result]) -> None:
    """Image and zone table byte for byte; a zone finished early has another write pointer than one filled up."""
    image = image_with(tmp_path / "disk.img", UNKNOWN_FEATURE, conventional=0, capacity_bytes=3 * MIB)
    sidecar, undo = Path(f"{image}.zones"), tmp_path / "undo"
    before = (image.read_bytes(), sidecar.read_bytes())
    assert program("zoned", "check", "--repair", "--undo", undo, image).status == 1
    assert program("zoned", "undo", undo, image).status == 0
    assert (image.read_bytes(), sidecar.read_bytes()) == before
