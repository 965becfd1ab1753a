"""Devices that are not what they are named as: one sentence says what each is, and what to name or do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.formats.dm_zoned.crash_model import formatted
from tests.formats.dm_zoned.images import MIB, Images, check_target, drive, regular
from zoned_tools.device.base import Device
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.errors import RefusedError
from zoned_tools.formats.contract import Consents, Target
from zoned_tools.formats.dm_zoned.free import plan_free
from zoned_tools.formats.dm_zoned.repair_plan import plan_repair


def of(*devices: Device) -> Target:
    return Target("dm-zoned", devices)


def refused(devices: Sequence[Device], match: str) -> None:
    with pytest.raises(RefusedError, match=match):
        check_target(of(*devices))


def three() -> list[Device]:
    """A regular device of 9 zones, members with 20 and 16."""
    return formatted([regular(9 * MIB), drive(20, 0), drive(16, 4)], reserved=4)


def test_the_last_member_is_missing() -> None:
    devices = three()
    refused(devices[:2], r"zones 29 to 44 of dm-zoned target .* are on a member that is not named")


def test_the_regular_device_is_missing() -> None:
    devices = three()
    refused(devices[1:], "zoned member of dm-zoned target 'test' .*, zones from 9 on; name its regular device first")


def test_a_member_in_the_middle_is_missing() -> None:
    devices = three()
    findings = list(check_target(of(devices[0], devices[2])).findings)
    assert [finding.code for finding in findings] == ["regular-size-changed"]
    assert "or a zoned member between the devices is not named" in findings[0].message


def test_members_in_the_wrong_order() -> None:
    devices = three()
    for device, name in zip(devices, ("cache", "first drive", "second"), strict=True):
        device.path = name  # type: ignore[misc]
    findings = list(check_target(of(devices[0], devices[2], devices[1])).findings)
    assert {finding.code for finding in findings} == {"sb-bad-location"}
    for finding in findings:
        assert "the members are in the wrong order; name them as cache 'first drive' second" in finding.message
        assert not finding.repair


@pytest.mark.parametrize("number", [1, 2])
def test_a_member_of_another_target(number: int) -> None:
    devices, others = three(), three()
    devices[number] = others[number]
    (finding,) = check_target(of(*devices)).findings
    assert finding.code == "sb-uuid-mismatch"
    assert "is a member of another dm-zoned target, 'test' (" in finding.message
    assert f"name the member with zones from {(9, 29)[number - 1]} on instead" in finding.message


@pytest.mark.parametrize(
    ("condition", "word"), [(ZoneCondition.READ_ONLY, "read-only"), (ZoneCondition.OFFLINE, "offline")]
)
def test_a_dead_metadata_zone(condition: ZoneCondition, word: str) -> None:
    devices = formatted([drive(24, 6)], reserved=4)
    devices[0].machine.table["condition"][1] = condition  # type: ignore[attr-defined]
    said = f"zone 1 holds metadata set 1 and is {word}: the target cannot be written"
    evidence = check_target(of(*devices))
    died = [finding for finding in evidence.findings if finding.code == "sb-bad-chunks"]
    assert died
    assert all(said in finding.message and not finding.repair for finding in died)
    for refuses in (lambda: plan_free(of(*devices)), lambda: plan_repair(evidence, Consents())):
        with pytest.raises(RefusedError, match=said):
            refuses()


def test_a_dead_zone_without_metadata_is_repaired(images: Images) -> None:
    devices = formatted([drive(24, 6)], reserved=4)
    devices[0].machine.table["condition"][10] = ZoneCondition.OFFLINE  # type: ignore[attr-defined]
    evidence = check_target(of(*devices))
    assert {finding.code for finding in evidence.findings} == {"sb-bad-chunks"}
    assert all(finding.repair for finding in evidence.findings)
    assert plan_repair(evidence, Consents()).plan.steps
