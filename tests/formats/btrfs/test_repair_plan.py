"""Check and repair of rings beyond the vectors: other capacities, other mirrors, other damage."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.formats.btrfs.images import (
    MIB,
    SUPER_BYTES,
    Drive,
    change_zones,
    head_of,
    make_super,
    manage,
    poke,
    reseal,
    torn,
)
from tests.programs import Result
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import apply_plan
from zoned_tools.formats.btrfs.check import check
from zoned_tools.formats.btrfs.nodes import ROOT_ITEM, ROOT_ITEM_TYPE, NodeRules
from zoned_tools.formats.btrfs.repair_plan import plan_repair
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.btrfs.survey import survey_device
from zoned_tools.formats.contract import CheckOptions, Consents, Target

Program = Callable[..., Result]
Image = Callable[[str], Path]

GIB = 1 << 30
RING_CODES = {"ring-invalid", "choice-influenced", "wp-unaligned"} | {
    f"head-{fault}" for fault in ("none", "magic", "torn", "csum", "bytenr", "fsid")
}


def errors_of(target: Target) -> set[str]:
    return {f.code for f in check(target, CheckOptions()).findings if f.severity == "error"}


def ring_errors(target: Target) -> set[str]:
    """Without the trees, which the synthetic rings have not."""
    return errors_of(target) & RING_CODES


def repair_on(device: Any) -> None:
    target = Target("btrfs", (device,))
    apply_plan([device], plan_repair(check(target, CheckOptions()), Consents()).plan.steps)


def damaged(block: bytes, kind: str) -> bytes:
    match kind:
        case "torn":
            return torn(block)
        case "zero":
            return bytes(SUPER_BYTES)
        case "magic":
            return block[:64] + b"nonsense" + block[72:]
        case "temporary":
            return reseal(block[:64] + b"!BHRfS_M" + block[72:])
        case "bytenr":
            return make_super(int.from_bytes(block[72:80], "little"), mirror=1, base=block)
        case "fsid":
            return reseal(block[:32] + bytes(16) + block[48:])
        case _:
            return block[:72] + (1 << 60).to_bytes(8, "little") + block[80:]


KINDS = ["torn", "zero", "magic", "temporary", "bytenr", "fsid", "huge"]


@dataclass(frozen=True)
class Ring:
    """Any fills of two zones, and any damage."""

    slots: int
    counts: tuple[int, int]
    newer: int
    damage: tuple[tuple[int, int, str], ...]

    def contents(self) -> dict[int, list[bytes]]:
        """Blocks of both zones; of one full zone and one in use the latter is newer, as in every real ring."""
        full = [count == self.slots for count in self.counts]
        newer = self.newer if full[0] == full[1] else full.index(False)
        zones = {}
        for zone in (0, 1):
            first = 1000 if zone == newer else 500
            zones[zone] = [make_super(first + n) for n in range(self.counts[zone])]
        for zone, back, kind in self.damage:
            if back < self.counts[zone]:
                zones[zone][-1 - back] = damaged(zones[zone][-1 - back], kind)
        return zones


@st.composite
def rings(draw: st.DrawFn) -> Ring:
    slots = draw(st.integers(2, 5))
    counts = st.tuples(st.integers(0, slots), st.integers(0, slots))
    one = st.tuples(st.integers(0, 1), st.sampled_from([0, 0, 0, 1, 3]), st.sampled_from(KINDS))
    return Ring(slots, draw(counts), draw(st.integers(0, 1)), tuple(draw(st.lists(one, max_size=3))))


@settings(max_examples=60)
@example(Ring(2, (1, 2), 0, ((0, 0, "torn"), (1, 0, "zero"))), 0)  # the block written again stands first in both zones
@given(ring=rings(), remainder=st.sampled_from([0, 512, 3584]))
def test_any_ring_is_repaired_whatever_the_power_does(
    tmp_path_factory: pytest.TempPathFactory, ring: Ring, remainder: int
) -> None:
    """After repair the kernel finds the newest valid block; a cut at any step can be repaired to the same end."""
    path = tmp_path_factory.mktemp("ring") / "disk.img"
    capacity = ring.slots * SUPER_BYTES + remainder
    Drive(path, capacity_bytes=capacity, block_bytes=512, contents=ring.contents()).make()
    with open_image(str(path)) as image:
        before = survey_device(image).mirrors[0]
        recorder = Recorder(Overlay(image))
        repair_on(recorder)
        after = survey_device(recorder).mirrors[0]
        if before.newest is None:
            assert recorder.log == []
            return
        wanted = before.newest_generation
        assert after.head_is_valid
        assert int(head_of(after)["generation"]) == wanted
        assert not ring_errors(Target("btrfs", (recorder,)))
        for cut in range(len(recorder.log)):
            device = Overlay(image)
            replay_cut([device], recorder.log, cut, lambda index: False)
            repair_on(device)
            survey = survey_device(device).mirrors[0]
            assert survey.head_is_valid
            assert int(head_of(survey)["generation"]) == wanted


def test_unaligned_write_pointer(tmp_path: Path) -> None:
    """A drive with 512-byte blocks that took only a part of a super block."""
    path = Drive(
        tmp_path / "disk.img", block_bytes=512, contents={0: [make_super(7), make_super(8), make_super(9)[:1536]]}
    ).make()
    with open_image(str(path), writable=True) as drive:
        target = Target("btrfs", (drive,))
        assert "wp-unaligned" in ring_errors(target)
        repair_on(drive)
        assert not ring_errors(target)
        assert int(head_of(survey_device(drive).mirrors[0])["generation"]) == 8


def test_dead_zone_is_reported_and_left_alone(tmp_path: Path) -> None:
    path = Drive(
        tmp_path / "disk.img",
        contents={0: [make_super(7)]},
        edit=lambda table: table["condition"].__setitem__(1, 0xD),
    ).make()
    with open_image(str(path), writable=True) as drive:
        target = Target("btrfs", (drive,))
        assert "ring-zone-dead" in errors_of(target)
        repair = plan_repair(check(target, CheckOptions()), Consents())
        assert not repair.plan
        assert not repair.actions
        assert any("read-only or offline" in message for message in repair.plan.messages)


def test_offline_zone_is_not_read(tmp_path: Path, program: Program) -> None:
    path = Drive(
        tmp_path / "disk.img",
        contents={0: [make_super(7)], 1: []},
        edit=lambda table: table["condition"].__setitem__(0, 0xF),
    ).make()
    ring = program("zoned", "btrfs", "supers", "--json", path).json["rings"][0]
    assert (ring["state"], ring["kernel_choice"], ring["copies"]) == ("invalid", None, [])


# -- the other mirrors


def rings_of(program: Program, image: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = program("zoned", "btrfs", "supers", "--json", image).json["rings"]
    return found


def test_mirror_zero_lost_is_taken_from_another(own_image: Image, program: Program) -> None:
    image = own_image("p13-mirrors-8GiB-zones")
    manage(image, ZoneOperation.RESET, 0)
    found = program("zoned", "check", "--json", image)
    assert found.status == 4
    assert {f["id"] for f in found.json["devices"][0]["findings"]} == {"btrfs.head-none"}
    assert program("zoned", "check", "--repair", image).status == 1
    ring = rings_of(program, image)[0]
    assert ring["kernel_choice"]["generation"] == 16
    assert ring["kernel_choice"]["bytenr"] == 65536
    assert ring["kernel_choice"]["valid"]


def test_newer_generation_of_another_mirror_wins(own_image: Image, program: Program) -> None:
    """Mirror 0's last commit was torn, the others have it whole: nothing has to be lost."""
    image = own_image("p13-mirrors-8GiB-zones")
    poke(image, 40960 + 1536, bytes(2560))
    found = program("zoned", "check", "--json", image)
    assert {f["id"] for f in found.json["devices"][0]["findings"]} == {"btrfs.head-torn", "btrfs.mirror-ahead"}
    assert program("zoned", "check", "--repair", image).status == 1
    assert [ring["kernel_choice"]["generation"] for ring in rings_of(program, image)] == [16, 16, 16]


@pytest.mark.parametrize(("mirror", "offset"), [(1, 549755875328), (2, 4398046572544)])
def test_damage_in_another_mirror(mirror: int, offset: int, own_image: Image, program: Program) -> None:
    image = own_image("p13-mirrors-8GiB-zones")
    poke(image, offset + 100, b"damage")
    found = program("zoned", "check", "--json", image)
    assert found.status == 0, "the kernel does not read it at mount"
    [finding] = found.json["devices"][0]["findings"]
    assert (finding["id"], finding["severity"], finding["where"]["mirror"]) == ("btrfs.head-torn", "warning", mirror)
    assert program("zoned", "check", "--repair", image).status == 1
    ring = rings_of(program, image)[mirror]
    assert (ring["kernel_choice"]["generation"], ring["kernel_choice"]["valid"]) == (16, True)


def test_invalid_state_of_another_mirror_is_an_error(own_image: Image, program: Program) -> None:
    """The kernel looks at the state of every ring at mount."""
    image = own_image("p13-mirrors-8GiB-zones")
    with open_image(str(image), writable=True) as drive:
        drive.write(65 * 8 * GIB, make_super(17, mirror=1))
    found = program("zoned", "check", "--json", image)
    assert found.status == 4
    assert "btrfs.ring-invalid" in {f["id"] for f in found.json["devices"][0]["findings"]}
    assert program("zoned", "check", "--repair", image).status == 1


def test_lagging_mirror(own_image: Image, program: Program) -> None:
    image = own_image("p13-mirrors-8GiB-zones")

    def take_back(table: Any) -> None:
        table["wp_sector"][64] -= 2 * SUPER_BYTES // 512

    change_zones(image, take_back)
    found = program("zoned", "check", "--json", image)
    assert found.status == 0
    assert {f["id"] for f in found.json["devices"][0]["findings"]} == {"btrfs.mirror-behind", "btrfs.wp-behind"}


# -- in place


def test_regular_places_repair_each_other(own_image: Image, program: Program) -> None:
    for place, other in ((65536, 1), (64 * MIB, 0)):
        image = own_image("p21-emulated-regular")
        poke(image, place + 300, b"damage")
        found = program("zoned", "check", "--json", image)
        assert found.status == (4 if place == 65536 else 0)
        assert program("zoned", "check", "--repair", image).status == 1
        rings = rings_of(program, image)
        assert all(ring["kernel_choice"]["valid"] for ring in rings)
        assert {ring["kernel_choice"]["generation"] for ring in rings} == {6}
        assert rings[other]["kernel_choice"]["offset_bytes"] != place


def test_conventional_super_block_zone(own_image: Image, program: Program) -> None:
    image = own_image("p11-conv-sb")
    poke(image, 300, b"damage")
    found = program("zoned", "check", "--json", "--layout", "btrfs", image)
    assert found.status == 4
    codes = {f["id"] for f in found.json["devices"][0]["findings"]}
    assert codes == {"btrfs.head-csum", "btrfs.nothing-valid"}
    # there is no other mirror to take it from
    assert program("zoned", "check", "--layout", "btrfs", "--repair", image).status == 4


def test_mixed_modes(own_image: Image, program: Program) -> None:
    """Mirror 0 in place on a conventional zone, mirrors 1 and 2 rings: each repairs the other way."""
    image = own_image("p13-mirrors-8GiB-zones")
    with open_image(str(image)) as drive:
        newest = drive.read(40960, SUPER_BYTES)

    def front_is_conventional(table: Any) -> None:
        table["type"][:2] = 1
        table["condition"][:2] = 0

    change_zones(image, front_is_conventional)
    poke(image, 0, newest)
    assert [ring["mode"] for ring in rings_of(program, image)] == ["in-place", "ring", "ring"]
    assert program("zoned", "check", image).status == 0
    poke(image, 200, b"damage")
    assert program("zoned", "check", image).status == 4
    assert program("zoned", "check", "--repair", image).status == 1
    with open_image(str(image)) as drive:
        assert drive.read(0, SUPER_BYTES) == newest


def test_raw_copy_without_zone_table_is_repaired(own_image: Image, program: Program) -> None:
    for name, generation in (
        ("pv01-torn-last", 8),
        ("pv10-bothfull-newest-badcsum", 516),
        ("pv20-wrapped-torn-first", 517),
    ):
        image = own_image(name)
        Path(f"{image}.zones").unlink()
        assert program("zoned", "check", image).status == 4
        assert program("zoned", "check", "--repair", image).status == 4, "it waits for consent to the derived zones"
        assert program("zoned", "check", "--repair", "--allow", "zones-derived", image).status == 1
        ring = rings_of(program, image)[0]
        assert ring["kernel_choice"]["generation"] == generation
        assert ring["kernel_choice"]["valid"]


def test_trees_are_looked_at_under_a_damaged_head(own_image: Image, program: Program) -> None:
    """The super block that becomes the head leads to lost trees: told before the repair, which is no worse then."""
    image = own_image("p02-inuse0")
    with open_image(str(image)) as drive:
        target = Target("btrfs", (drive,))
        block = survey_device(drive).super_block(head_of(survey_device(drive).mirrors[0]))
        reader = check(target, CheckOptions()).survey.reader
        chunks, rules = reader.chunk_map(block), NodeRules.of(block)
        items = reader.items(chunks, rules, block.root, block.generation, block.root_level)
        roots = [ROOT_ITEM.parse(i.data).bytenr for i in items if i.type == ROOT_ITEM_TYPE and i.objectid in (5, 7)]
        places = [place for root in roots for _, place in chunks.places(root, block.nodesize)]
    assert len(places) >= 2
    for place in places:
        poke(image, place, bytes(SUPER_BYTES))
    with open_image(str(image), writable=True) as drive:
        drive.write(4 * SUPER_BYTES, torn(make_super(10)))
    found = program("zoned", "check", "--json", image)
    codes = [f["id"] for f in found.json["devices"][0]["findings"] if f["severity"] == "error"]
    assert codes.count("btrfs.tree-lost") == 2
    assert "btrfs.head-torn" in codes
    assert program("zoned", "check", "--repair", image).status == 4
    left = program("zoned", "check", "--json", image).json["devices"][0]["findings"]
    assert {f["id"] for f in left if f["severity"] == "error"} == {"btrfs.tree-lost"}


def test_every_error_is_explained(program: Program) -> None:
    for code in random.Random(1).sample(sorted(RULES), 8):
        assert RULES[code].meaning in " ".join(program("zoned", "explain", f"btrfs.{code}").out.split())


def test_a_mirror_that_was_never_written(own_image: Image, program: Program) -> None:
    """Both zones of another mirror are empty: the next commit starts it, and nothing is to be repaired."""
    image = own_image("p13-mirrors-8GiB-zones")
    for zone in (64, 65):
        manage(image, ZoneOperation.RESET, zone)
    found = program("zoned", "check", "--json", image)
    rows = {(f["id"], f["severity"]) for f in found.json["devices"][0]["findings"]}
    assert (found.status, rows) == (0, {("btrfs.mirror-absent", "info")})
    assert rings_of(program, image)[1]["kernel_choice"] is None
    assert program("zoned", "check", "--repair", image).status == 0


def test_a_regular_place_that_was_never_written(own_image: Image, program: Program) -> None:
    image = own_image("p21-emulated-regular")
    poke(image, 64 * MIB, bytes(SUPER_BYTES))
    found = program("zoned", "check", "--json", image)
    assert ("btrfs.mirror-absent", "info") in {(f["id"], f["severity"]) for f in found.json["devices"][0]["findings"]}
    assert found.status == 0
    assert rings_of(program, image)[1]["kernel_choice"] is None
