"""Block groups against zones on the images that kernels judged: findings by code, and what the kernel did with them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.formats.btrfs.images import STATES, Images
from zoned_tools.device.image import open_image
from zoned_tools.formats.btrfs.block_groups import block_groups_of
from zoned_tools.formats.btrfs.check import check
from zoned_tools.formats.btrfs.chunks import BLOCK_GROUP_TYPES, profile_name
from zoned_tools.formats.btrfs.constants import NAME
from zoned_tools.formats.contract import CheckOptions, Target

if TYPE_CHECKING:
    from tests.programs import Program

CODES_OF_BLOCK_GROUPS = {"bg-wp-differs", "bg-zone-dead", "bg-striping", "bg-wp-over-capacity", "bg-unmatched"}
"""Errors for which the kernel refuses the mount; bg-extents-beyond-wp only beside a conventional copy."""


@pytest.mark.parametrize("name", STATES)
def test_findings_of_a_deep_check(name: str, images: Images, program: Program) -> None:
    wanted = STATES[name]["check"]
    found = program("zoned", "check", "--deep", "--json", *images(name))
    [row] = found.json["devices"]
    assert row["verdict"] == wanted["verdict"]
    assert found.status == {"clean": 0, "errors": 4}[wanted["verdict"]]
    findings = [(f["id"].removeprefix("btrfs."), f["severity"], f["where"]) for f in row["findings"]]
    counts = Counter(code for code, _, _ in findings)
    assert {code: counts[code] for code in counts if code not in wanted["may"]} == Counter(
        must["code"] for must in wanted["must"]
    )
    for must in wanted["must"]:
        assert any(
            (code, severity) == (must["code"], must["severity"]) and must["where"].items() <= where.items()
            for code, severity, where in findings
        ), must
    assert row["facts"]["trees_checked"] == "all"
    assert row["facts"]["nodes_read"] == STATES[name]["nodes"]


@pytest.mark.parametrize("name", STATES)
def test_the_kernel_refuses_what_the_check_says(name: str, images: Images, program: Program) -> None:
    """Plain check, with the mount of a 6.12 kernel beside it."""
    [row] = program("zoned", "check", "--json", *images(name)).json["devices"]
    errors = [(f["id"].removeprefix("btrfs."), f["where"]) for f in row["findings"] if f["severity"] == "error"]
    profiles = {group["logical"]: group for group in STATES[name]["block_groups"]}
    refused = [
        code
        for code, where in errors
        if code in CODES_OF_BLOCK_GROUPS
        or (
            code == "bg-extents-beyond-wp"
            and "conv" in {stripe["wp"] for stripe in profiles[where["block_group"]]["stripes"]}
        )
    ]
    assert bool(refused) == (STATES[name]["kernel_6_12"]["ro"] == "refused")
    assert row["facts"]["trees_checked"] == "roots"


@pytest.mark.parametrize("name", STATES)
def test_what_is_measured(name: str, images: Images) -> None:
    """U, the item's used, L, and W of every stripe."""
    drives = [open_image(str(path)) for path in images(name)]
    try:
        evidence = check(Target(NAME, tuple(drives)), CheckOptions())
        assert evidence.trees is not None
        block = evidence.survey.newest
        assert block is not None
        found = block_groups_of(evidence.trees, evidence.survey.zone_states(block))
    finally:
        for drive in drives:
            drive.close()
    rows = []
    for number, group in enumerate(found.groups):
        stripes = found.stripes[found.stripes["group"] == number]
        rows.append(
            {
                "logical": int(group["logical"]),
                "kind": "|".join(n for bit, n in BLOCK_GROUP_TYPES.items() if int(group["type"]) >> bit & 1),
                "profile": profile_name(int(group["type"])),
                "used": int(group["used"]),
                "item_used": int(group["item_used"]),
                "last": int(group["last"]),
                "stripes": [
                    {"stripe": int(s["stripe"]), "devid": int(s["devid"]), "zone": int(s["zone"]), "wp": wp_text(s)}
                    for s in stripes
                ],
            }
        )
    assert rows == STATES[name]["block_groups"]


@pytest.mark.parametrize("name", STATES)
def test_zones_and_who_owns_them(name: str, images: Images, program: Program) -> None:
    document = program("zoned", "btrfs", "zones", "--json", *images(name)).json
    assert (document["schema"], document["generation"]) == ("zoned.btrfs.zones/1", STATES[name]["generation"])
    for device, wanted in zip(document["devices"], STATES[name]["zones"], strict=True):
        assert (device["devid"], device["active_zones"]) == (wanted["devid"], wanted["active_zones"])
        rows = {row["zone"]: row for row in device["zones"]}
        assert sorted(rows) == list(range(device["nr_zones"]))
        for row in wanted["zones"]:
            assert {key: rows[row["zone"]].get(key) for key in row} == row
        others = set(rows) - {row["zone"] for row in wanted["zones"]}
        assert {rows[zone]["owner"] for zone in others} <= {"free"}


def test_zones_as_text(images: Images, program: Program) -> None:
    text = program("zoned", "btrfs", "zones", *images("g01-dup-healthy")).out
    lines = text.splitlines()
    assert lines[0].endswith("device 1, zones of 4194304 bytes")
    numbers = " ".join(lines[6].split())
    group = "block group 16777216, data, single, stripe 0"
    assert numbers == f"4 seq-required implicit-open block-group 135168 135168 0 4059136 {group}"
    assert lines[-1].endswith("1 orphans, 21 free zones; 7 zones active")
    assert len(lines) == 32 + 3


def wp_text(stripe: Any) -> int | str:
    words = {-1: "conv", -2: {0xF: "offline", 0xD: "read-only"}.get(int(stripe["condition"]), "?")}
    return words.get(int(stripe["written"]), int(stripe["written"]))
