"""Repair of block groups against their zones: only what is proven, only the named zones, and check is clean then."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.formats.btrfs.images import MIB, STATES, change_zones, manage
from tests.formats.btrfs.nodes import own_devices
from tests.formats.btrfs.trees import content_sha256, our_content
from zoned_tools.device import dump
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.image import open_image, read_dump, sidecar_path
from zoned_tools.device.zones import ACTIVE_CONDITIONS, condition_name

if TYPE_CHECKING:
    from tests.programs import Program

ZONE = 4 * MIB
OPEN = {"implicit-open", "explicit-open", "closed"}


def zones_of(images: list[Path]) -> dict[tuple[int, int], tuple[str, int, bytes]]:
    """Condition, bytes written and content of every zone of every device."""
    found = {}
    for number, image in enumerate(images, 1):
        with open_image(str(image)) as drive:
            for zone, row in enumerate(drive.zones()):
                condition = condition_name(int(row["condition"]))
                start = zone * ZONE
                written = int(row["wp_sector"]) * 512 - start if condition in OPEN else 0
                content = b"" if condition == "offline" else drive.read(start, ZONE)
                found[number, zone] = (condition, written, content)
    return found


@pytest.mark.parametrize("name", [name for name in STATES if "repair" in STATES[name]])
def test_repairs_of_the_vectors(name: str, tmp_path: Path, program: Program) -> None:
    wanted, images = STATES[name]["repair"], own_devices(name, tmp_path)
    before = zones_of(images)
    allow = [word for code in wanted["allow"] for word in ("--allow", code)]
    if allow:  # it waits for consent, and is no error
        assert program("zoned", "check", "--repair", *images).status == 0
        assert zones_of(images) == before
    done = program("zoned", "check", "--repair", *allow, *images)
    assert done.status == 1, done.err
    after = zones_of(images)
    changes = {(change["devid"], change["zone"]): change for change in wanted["changes"]}
    assert {place for place in before if before[place] != after[place]} == set(changes)
    for place, change in changes.items():
        condition, written, content = after[place]
        assert (condition in OPEN) if change["condition"] == "open" else condition == change["condition"]
        assert change["condition"] != "open" or written == change["written_bytes"]
        kept = change.get("kept_bytes", 0)
        if "kept_sha256" in change:
            assert hashlib.sha256(content[:kept]).hexdigest() == change["kept_sha256"]
        if "same_as" in change:
            other = after[change["same_as"]["devid"], change["same_as"]["zone"]][2]
            assert content[kept:written] == other[kept:written]
    found = program("zoned", "check", "--deep", "--json", *images)
    assert found.status == 0
    assert {f["severity"] for f in found.json["devices"][0]["findings"]} <= {"info"}
    if name != "g09-data-reset":
        assert content_sha256(our_content(images)) == STATES[name]["content_sha256"]


def test_what_stays_lost_is_listed(tmp_path: Path, program: Program) -> None:
    images = own_devices("g09-data-reset", tmp_path)
    done = program("zoned", "check", "--repair", "--dry-run", *images)
    assert (
        "135168 bytes of extents from logical address 16777216 on stay lost, in /d/big, /zeros" in done.out + done.err
    )


def test_a_repair_can_be_undone(tmp_path: Path, program: Program) -> None:
    images = own_devices("g19-raid1-two-behind", tmp_path)
    before = zones_of(images)
    assert program("zoned", "check", "--repair", "--undo", tmp_path / "undo", *images).status == 1
    assert zones_of(images) != before
    assert program("zoned", "undo", tmp_path / "undo", *images).status == 0
    assert zones_of(images) == before


def test_tails_with_lost_nodes_wait_for_consent(tmp_path: Path, program: Program) -> None:
    """A leaf that is bad in both copies: what is appended may be what makes it worse."""
    [image] = own_devices("g12-leaf-lost", tmp_path)
    [lost] = STATES["g12-leaf-lost"]["lost"]
    assert lost["copies"][1]["zone"] == 8

    def shorten(table: Any) -> None:
        table["wp_sector"][8] -= 4096 * 4 // 512

    change_zones(image, shorten)
    asked = program("zoned", "check", "--repair", image)
    assert asked.status == 4
    assert "--allow btrfs.bg-wp-differs" in asked.out + asked.err
    done = program("zoned", "check", "--repair", "--allow", "bg-wp-differs", "--json", image)
    assert done.json["devices"][0]["actions"][0]["consent"] == "guesses"
    codes = {f["id"] for f in program("zoned", "check", "--json", image).json["devices"][0]["findings"]}
    assert "btrfs.bg-wp-differs" not in codes


def test_tails_of_full_zones(tmp_path: Path, program: Program) -> None:
    """A finished copy is written to its capacity, and so is the other one then."""
    images = own_devices("g01-dup-healthy", tmp_path)
    manage(images[0], ZoneOperation.FINISH, 7)
    assert program("zoned", "check", *images).status == 4
    assert program("zoned", "check", "--repair", *images).status == 1
    after = zones_of(images)
    assert after[1, 7] == after[1, 8]
    assert after[1, 8][0] == "full"
    assert content_sha256(our_content(images)) == STATES["g01-dup-healthy"]["content_sha256"]


def test_what_cannot_be_copied_is_left(tmp_path: Path, program: Program) -> None:
    """The drive's active zones are used up: the way by hand is named, and nothing is written."""
    [image] = own_devices("g05-dup-reset2", tmp_path)
    with open_image(str(image), writable=True) as drive:
        for zone in range(20, 24):  # orphans, which are active too
            drive.write(zone * ZONE, bytes(4096))
        active = int(np.isin(drive.zones()["condition"], ACTIVE_CONDITIONS).sum())
    assert active >= 8
    sidecar = sidecar_path(str(image))
    decoded = read_dump(sidecar)
    Path(sidecar).write_bytes(dump.encode(replace(decoded.geometry, max_active_zones=active), decoded.table))
    before = zones_of([image])
    done = program("zoned", "check", "--repair", image)
    assert done.status == 4
    assert "active zones are used up" in done.out + done.err
    assert zones_of([image]) == before


def test_dead_zones_are_not_repaired(tmp_path: Path, program: Program) -> None:
    for name in ("g07-data-offline", "g08-meta-readonly"):
        images = own_devices(name, tmp_path / name)
        before = zones_of(images)
        assert program("zoned", "check", "--repair", *images).status == 4
        assert zones_of(images) == before


def test_one_device_of_a_mirrored_group_is_not_judged(tmp_path: Path, program: Program) -> None:
    first, second = own_devices("g19-raid1-two-behind", tmp_path)
    before = zones_of([first, second])
    for image in (first, second):
        done = program("zoned", "check", "--repair", "--json", image)
        assert "bg-wp-differs" not in done.out
        assert zones_of([first, second]) == before


def test_unreadable_tails_are_left(tmp_path: Path, program: Program) -> None:
    """The tail of the longer copy cannot be read: nothing is written."""
    [image] = own_devices("g04-dup-behind", tmp_path)
    size, tail = image.stat().st_size, 7 * ZONE + 1097728
    rows = ["0 + 1", f"0 {tail} +", f"{tail} 4096 -", f"{tail + 4096} {size - tail - 4096} +"]
    (tmp_path / "map").write_text("\n".join(rows) + "\n")
    before = zones_of([image])
    done = program("zoned", "check", "--repair", "--mapfile", tmp_path / "map", image)
    assert done.status in (4, 8)
    assert zones_of([image]) == before
