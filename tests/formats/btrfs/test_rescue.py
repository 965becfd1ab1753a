"""Super blocks and tree nodes that the medium does not give."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.formats.media import DamagedDrive
from tests.sampling import some
from zoned_tools.device.base import Device
from zoned_tools.device.image import open_image
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import MetadataError
from zoned_tools.formats.btrfs.check import BtrfsEvidence, check
from zoned_tools.formats.btrfs.export import open_views
from zoned_tools.formats.btrfs.inspect import inspect
from zoned_tools.formats.btrfs.latest import find_latest
from zoned_tools.formats.btrfs.layout import SUPER_BYTES
from zoned_tools.formats.btrfs.nodes import NodePointer
from zoned_tools.formats.btrfs.open import Mode
from zoned_tools.formats.btrfs.probe import probe
from zoned_tools.formats.btrfs.repair_plan import plan_repair
from zoned_tools.formats.btrfs.roles import zone_roles
from zoned_tools.formats.btrfs.supers import list_supers, ring_as_json
from zoned_tools.formats.contract import CheckOptions, Consents, Settings, Target

Image = Callable[[str], Path]

RINGS = ("p02-inuse0", "p04-full0-inuse1", "p05-bothfull-1newer", "p06b-wrapped", "p07-bothfull-0newer", "p11-conv-sb")
TREES = ("g01-dup-healthy", "g15-conv7-mixed-healthy", "g25-25-commits")

OF_AN_OLDER_COMMIT = {"zone-orphan", "roots-unreadable"}
"""What may be found about the commit before, once the newest super block cannot be read."""


def check_device(device: Device, *, deep: bool = False) -> BtrfsEvidence:
    return check(Target("btrfs", (device,)), CheckOptions(deep))


def codes(evidence: BtrfsEvidence) -> set[str]:
    return {finding.code for finding in evidence.findings}


def use(device: Device) -> None:
    """Everything that reads, which no damage may end."""
    target = Target("btrfs", (device,))
    probe(device, 0)
    inspect(target)
    zone_roles(target)
    for mirror in list_supers(target, roots=True).mirrors:
        ring_as_json(mirror)
        find_latest(device, 0, mirror.number)
    try:
        open_views(target, Settings())
    except MetadataError as error:
        assert "no valid" in error.message  # noqa: PT017 - only where nothing is left


def repaired(device: DamagedDrive, evidence: BtrfsEvidence) -> BtrfsEvidence:
    plan = plan_repair(evidence, Consents())
    assert {action.id for action in plan.actions if action.waits} <= {"btrfs.zone-orphan"}
    apply_plan([device], plan.plan.steps)
    return check_device(device)


def chosen_rows(evidence: BtrfsEvidence) -> Iterator[int]:
    """Rows of mirror 0 around the ends of its zones, and some others."""
    mirror = evidence.survey.surveys[0].mirrors[0]
    ends = [row for row in (mirror.newest, mirror.head_row, len(mirror.copies) - 1, 0) if row is not None]
    first = int((mirror.copies["zone"] == 0).sum())
    ends += [max(first - 1, 0), min(first, len(mirror.copies) - 1)]
    others = some(range(len(mirror.copies)), 3, random.Random(1))
    yield from dict.fromkeys([*ends, *others])


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", RINGS)
def test_any_super_block_of_a_ring(name: str, known: bool, vector_image: Image) -> None:
    """It is an invalid copy, and nothing else is found; a repair has the kernel find the newest that is left."""
    with open_image(str(vector_image(name))) as whole:
        before = check_device(whole)
        mirror = before.survey.surveys[0].mirrors[0]
        for row in chosen_rows(before):
            offset = int(mirror.copies["offset_bytes"][row])
            device = DamagedDrive(whole, [(offset + 4000, offset + 4001)], known=known)
            use(device)
            evidence = check_device(device)
            one = len(mirror.copies) == 1
            older = OF_AN_OLDER_COMMIT if row == mirror.newest else set()
            assert codes(evidence) - codes(before) - older == ({"metadata-lost"} if one else {"block-unreadable"})
            (finding,) = [f for f in evidence.findings if f.code in ("block-unreadable", "metadata-lost")]
            assert (finding.where["offset_bytes"], finding.where["length_bytes"]) == (offset, SUPER_BYTES)
            survey = evidence.survey.surveys[0].mirrors[0]
            assert survey.newest is None if one else not survey.copies["unreadable"][survey.newest]
            if row != mirror.newest:
                assert survey.newest_generation == mirror.newest_generation
            if one:
                continue
            after = repaired(device, evidence).survey.surveys[0].mirrors[0]
            assert after.valid_head is not None
            assert int(after.valid_head["generation"]) == survey.newest_generation


@pytest.mark.parametrize("name", RINGS)
def test_two_super_blocks_and_all(name: str, vector_image: Image) -> None:
    with open_image(str(vector_image(name))) as whole:
        before = check_device(whole)
        offsets = before.survey.surveys[0].mirrors[0].copies["offset_bytes"].tolist()
        chance = random.Random(2)
        for chosen in ([chance.choice(offsets), chance.choice(offsets)], offsets[-2:], offsets):
            device = DamagedDrive(whole, [(offset, offset + SUPER_BYTES) for offset in set(chosen)])
            use(device)
            evidence = check_device(device)
            assert codes(evidence) - codes(before) - OF_AN_OLDER_COMMIT <= {"block-unreadable", "metadata-lost"}
            survey = evidence.survey.surveys[0].mirrors[0]
            if len(set(chosen)) == len(offsets):
                assert codes(evidence) >= {"metadata-lost"}
                if survey.mirror.mode is Mode.RING:
                    assert ring_as_json(survey)["state"] == "invalid"
                assert not plan_repair(evidence, Consents()).plan
            else:
                assert repaired(device, evidence).survey.surveys[0].mirrors[0].valid_head is not None


def test_other_mirrors_serve_where_no_copy_of_one_can_be_read(vector_image: Image) -> None:
    with open_image(str(vector_image("p13-mirrors-8GiB-zones"))) as whole:
        before = check_device(whole)
        mirrors = before.survey.surveys[0].mirrors
        assert len(mirrors) > 1
        bad = [(int(at), int(at) + SUPER_BYTES) for at in mirrors[0].copies["offset_bytes"]]
        device = DamagedDrive(whole, bad, known=True)
        use(device)
        evidence = check_device(device)
        assert codes(evidence) - codes(before) == {"block-unreadable"}
        assert evidence.survey.newest is not None
        assert repaired(device, evidence).survey.surveys[0].mirrors[0].valid_head is not None


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", TREES)
def test_any_stripe_of_a_tree_node(name: str, known: bool, vector_image: Image) -> None:
    """The other stripe serves, as a finding; without it the roots, a tree or a node are lost."""
    with open_image(str(vector_image(name))) as whole:
        before = check_device(whole, deep=True)
        assert before.trees is not None
        walk = before.trees.walk
        chance = random.Random(3)
        for logical in some(sorted(walk.good), 6, chance):
            places = [p.offset_bytes for p in walk.chunks.copies(logical, walk.rules.nodesize)]
            size = walk.rules.nodesize
            for place in places:
                device = DamagedDrive(whole, [(place + size - 1, place + size)], known=known)
                evidence = check_device(device, deep=True)
                new = codes(evidence) - codes(before)
                if len(places) == 1:
                    assert new & {"roots-unreadable", "tree-lost", "node-lost"}
                    continue
                assert new == {"block-unreadable"}
                (finding,) = [f for f in evidence.findings if f.code == "block-unreadable"]
                where = {key: finding.where[key] for key in ("what", "offset_bytes", "length_bytes")}
                assert where == {"what": "node", "offset_bytes": place, "length_bytes": size}
                assert evidence.facts["nodes_read"] == before.facts["nodes_read"]
            device = DamagedDrive(whole, [(place, place + 1) for place in places], known=known)
            use(device)
            lost = codes(check_device(device, deep=True)) - codes(before)
            assert lost & {"roots-unreadable", "tree-lost", "node-lost"}
            assert "block-unreadable" not in lost


def test_the_roots_of_a_super_block_with_an_unreadable_root_are_unreadable(vector_image: Image) -> None:
    with open_image(str(vector_image("g01-dup-healthy"))) as whole:
        evidence = check_device(whole)
        block = evidence.survey.newest
        assert block is not None
        assert evidence.trees is not None
        walk = evidence.trees.walk
        pointer = NodePointer(1, block.root, block.generation, block.root_level)
        places = [p.offset_bytes for p in walk.chunks.copies(pointer.logical, walk.rules.nodesize)]
        device = DamagedDrive(whole, [(place, place + 1) for place in places])
        survey = list_supers(Target("btrfs", (device,)), roots=True).mirrors[0]
        assert survey.newest is not None
        assert survey.roots_readable(survey.newest) is False


@pytest.mark.parametrize("name", ["p02-inuse0", "p04-full0-inuse1", "p07-bothfull-0newer"])
def test_a_raw_copy_with_an_unreadable_block_keeps_its_ring(name: str, vector_image: Image, tmp_path: Path) -> None:
    """Unreadable blocks count as written."""
    raw = tmp_path / "raw.img"
    raw.hardlink_to(vector_image(name))
    with open_image(str(raw)) as whole:
        assert not whole.geometry.is_zoned
        mirror = check_device(whole).survey.surveys[0].mirrors[0]
        for row in {0, len(mirror.copies) // 2, len(mirror.copies) - 1}:
            offset = int(mirror.copies["offset_bytes"][row])
            device = DamagedDrive(whole, [(offset, offset + SUPER_BYTES)], known=True)
            found = check_device(device).survey.surveys[0]
            assert found.placement.derived
            assert np.array_equal(found.mirrors[0].copies["offset_bytes"], mirror.copies["offset_bytes"])
            latest = find_latest(device)
            assert latest is not None
            head = found.mirrors[0].head
            assert head is not None
            assert int(latest["offset_bytes"]) == int(head["offset_bytes"])
