"""Every corruption case and unclean image repaired; what waits for consent, and what it is told that is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.formats.media import DamagedDrive
from tests.formats.zdm import zx1
from tests.formats.zdm.images import (
    BLOCK,
    FOLDER,
    OLD,
    POPULATED,
    START,
    case_drive,
    cases,
    check_counts,
    digests,
    facts,
    planned,
    reader,
    target,
    writer,
)
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import ZoneCondition, is_sequential
from zoned_tools.formats.contract import CheckOptions, Consent
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.check import check
from zoned_tools.formats.zdm.layout import Dialect
from zoned_tools.formats.zdm.open import load
from zoned_tools.formats.zdm.rules import RULES
from zoned_tools.formats.zdm.tables import Direction

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = cases()


def repaired(drive: zx1.VectorDrive, start: int = START, allow: frozenset[str] = frozenset()) -> bool:
    """Repair; False when there was nothing that may be written."""
    plan = planned(drive, start, allow).plan
    apply_plan([drive], plan.steps)
    return bool(plan)


@pytest.mark.parametrize(("name", "case"), CASES, ids=[name for name, _ in CASES])
def test_corruption_is_repaired(name: str, case: dict[str, Any]) -> None:
    expected = case["expected"]["repaired"]
    drive = zx1.open_case(FOLDER, case["base"], case)
    before = dict(drive.store.changed)
    changed = repaired(drive)
    if expected is None:
        assert not changed
        assert drive.store.changed == before, "report only"
        return
    assert changed
    assert check_counts(drive, notes=False) == {}
    mapped, content, _ = digests(drive)
    if expected.get("at_least"):
        assert mapped >= expected["mapped_blocks"]
    elif not expected.get("either_entry"):
        assert (mapped, content) == (expected["mapped_blocks"], expected["content_sha256"])
    assert not repaired(drive), "a second repair has nothing to do"


@pytest.mark.parametrize("name", [n for n in POPULATED if n not in OLD])
def test_unclean_images_are_repaired_without_loss(name: str) -> None:
    expected = facts(name)
    start = expected["start_sector"]
    drive = zx1.open_vector(FOLDER, name)
    unclean = bool(check_counts(drive, start, notes=False))
    assert repaired(drive, start) == unclean
    assert check_counts(drive, start, notes=False) == {}
    mapped, content, _ = digests(drive, start)
    wanted = expected.get("repaired", expected)
    if not wanted.get("any"):
        assert (mapped, content) == (wanted["mapped_blocks"], wanted["content_sha256"])
    state = load(target(drive, start))
    if unclean:
        assert state.current is not None
        assert not state.current.dirty
        complete = {c.window for c in state.generations.candidates if c.complete}
        assert complete == {1, 512, 1024}
        assert len(state.generations.candidates) == 3, "no stale key is left"


def test_all_keys_damaged_loses_nothing_when_the_generation_is_still_there() -> None:
    for name in ("corrupt-clean", "corrupt-journal"):
        case = next(c for c in facts(name)["cases"] if c["name"] == "all-keys")
        drive = zx1.open_case(FOLDER, case["base"], case)
        assert repaired(drive)
        assert digests(drive)[:2] == (facts(name)["base_mapped"], facts(name)["base_content_sha256"])


# -- consent


def drive_lost_data() -> zx1.VectorDrive:
    """The write pointer of a zone with data fell."""
    return case_drive("corrupt-clean", "dev-wp-lower")


def drive_lost_data_and_record() -> zx1.VectorDrive:
    """The same, and what was recorded about it is damaged."""
    drive = drive_lost_data()
    drive.store.pwrite(START * 512 + layout.WP_BLOCK * BLOCK + 4000, b"damage")
    return drive


def nothing_but_tables() -> zx1.VectorDrive:
    """No key and no map cache is left."""
    drive = zx1.open_vector(FOLDER, "pop-clean")
    for start in layout.AREA_STARTS[Dialect.D3]:
        drive.store.pwrite((START // 8 + start) * BLOCK, bytes(400 * BLOCK))
    return drive


def several_damaged_keys() -> zx1.VectorDrive:
    """Generations with damaged keys whose order nothing proves: write pointers and numbers are damaged, too."""
    drive = case_drive("corrupt-clean", "all-keys")
    base = START * 512
    drive.store.pwrite(base + layout.WP_BLOCK * BLOCK + 4000, b"damage")
    for candidate in load(target(drive)).generations.candidates:
        number = layout.AREA_STARTS[Dialect.D3].index(candidate.window) + 1  # of another area
        drive.store.pwrite(base + candidate.block * BLOCK + 4080, number.to_bytes(8, "little"))
    return drive


def two_claim_one_block() -> zx1.VectorDrive:
    """Two forward entries name one block, and the reverse table knows neither of them."""
    drive = zx1.open_vector(FOLDER, "pop-clean")
    mapper = writer(drive)
    mapper.write(10, b"x" * 2 * BLOCK)
    mapper.sync(everything=True)
    places = mapper.pages.gather(Direction.FORWARD, np.array([10, 11]))
    base = mapper.geometry.table_base
    mapper.pages.scatter(Direction.FORWARD, np.array([11]), places[:1])
    mapper.pages.scatter(Direction.REVERSE, places - base, np.full(2, layout.UNMAPPED))
    mapper.close()
    assert check_counts(drive, notes=False)["map.double"] == 1
    return drive


def unreadable_page() -> DamagedDrive:
    """A forward page in use cannot be read."""
    drive = zx1.open_vector(FOLDER, "pop-clean")
    state = load(target(drive))
    page = next(int(chunk.pages[0]) for chunk in state.tables.chunks(Direction.FORWARD))
    at = START * 512 + state.tables.current(state.geometry.forward_start + page) * 4096
    return DamagedDrive(drive, [(at, at + 4096)])


def another_drives_table() -> zx1.VectorDrive:
    """The content with the zone table of an empty drive."""
    drive = zx1.open_vector(FOLDER, "pop-clean")
    table = drive.zones()
    rows = is_sequential(table)
    table["condition"][rows], table["wp_sector"][rows] = ZoneCondition.EMPTY, table["start_sector"][rows]
    return zx1.VectorDrive(drive.path, drive.geometry, table, drive.store, writable=True)


ASKING = [
    ("fwd.beyond_wp", drive_lost_data, Consent.LOSES),
    ("fwd.beyond_wp", drive_lost_data_and_record, Consent.LOSES),
    ("key.none", nothing_but_tables, Consent.LOSES),
    ("key.none", several_damaged_keys, Consent.GUESSES),
    ("map.double", two_claim_one_block, Consent.GUESSES),
    ("metadata-lost", unreadable_page, Consent.LOSES),
    ("zones-foreign", another_drives_table, Consent.LOSES),
]


def test_every_code_that_asks_is_asked_for() -> None:
    """But for the one that the engine asks about, of every layout: ``engine/test_raw_copies.py``."""
    asking = {code: max(consent for c, _, consent in ASKING if c == code) for code, _, _ in ASKING}
    assert asking == {code: r.asks for code, r in RULES.items() if r.can_wait and code != "zones-derived"}


@pytest.mark.parametrize(("code", "make", "consent"), ASKING, ids=[make.__name__ for _, make, _ in ASKING])
def test_nothing_is_done_without_consent(code: str, make: Callable[[], EmulatedDrive], consent: Consent) -> None:
    drive = make()
    others = frozenset(RULES) - {code}
    for allow in (frozenset[str](), others):
        repair = planned(drive, allow=allow)
        assert {action.id for action in repair.waiting} == {f"zdm.{code}"}
        assert {action.consent for action in repair.waiting} == {consent}
        assert not repair.plan
    assert code in {group.code for group in check(target(drive), CheckOptions()).findings.groups}
    agreed = planned(drive, allow=frozenset({code}))
    assert not agreed.waiting
    assert {action.consent for action in agreed.actions if action.id == f"zdm.{code}"} >= {consent}
    apply_plan([drive], agreed.plan.steps)
    assert check_counts(drive, notes=False) == {}
    assert not planned(drive).plan


def test_lost_data_are_dropped_only_when_allowed() -> None:
    drive = drive_lost_data()
    assert not repaired(drive)
    assert not repaired(drive, allow=frozenset({"wp.ahead"})), "a code covers itself alone"
    assert repaired(drive, allow=frozenset({"fwd.beyond_wp"}))
    assert check_counts(drive, notes=False) == {}
    assert digests(drive)[0] == 2810 - 739


def test_what_is_lost_is_named_by_range() -> None:
    drive = drive_lost_data()
    before = reader(drive)
    named: set[int] = set()
    for action in planned(drive).waiting:
        for sentence, where in action.rows.items():
            first, count = int(str(where["logical_block"])), int(str(where["blocks"]))
            assert sentence.startswith(f"logical blocks {first} to {first + count - 1} ({count}) lie above")
            assert where["data_zone"] == 0
            assert named.isdisjoint(range(first, first + count))
            named.update(range(first, first + count))
    assert len(named) == 739
    beyond = {
        block
        for extent in before.lookup(0, before.size_blocks)
        if extent.physical_block is not None and "data zone 0" in extent.why
        for block in range(extent.logical_block, extent.logical_block + extent.blocks)
    }
    assert named < beyond


def test_the_identity_is_repaired_although_the_tables_wait() -> None:
    drive = drive_lost_data()
    drive.store.pwrite(START * 512 + 300, b"damage")
    repair = planned(drive)
    assert [action.id for action in repair.actions if not action.waits] == ["zdm.ident.crc"]
    apply_plan([drive], repair.plan.steps)
    assert set(check_counts(drive, notes=False)) == {"fwd.beyond_wp", "wp.ahead"}


@pytest.mark.parametrize(
    ("file", "name", "code", "sentence"),
    [
        ("corrupt-clean", "cache-range", "cache.range", "logical blocks 52370 to 52370 (1) become unmapped"),
        ("corrupt-journal", "journal-page", "fwd.range", "logical blocks 3 to 3 (1) become unmapped"),
        ("corrupt-clean", "fwd-range", "rev.nofwd", "logical blocks 26489 to 26489 (1) are recovered"),
        ("corrupt-clean", "cache-dup", "cache.dup", "the second one is kept"),
        ("corrupt-clean", "md-crcs", "gen.torn", "is incomplete (md.crc) and is given up"),
        ("corrupt-clean", "all-keys", "key.none", "complete but for the key's checksum"),
        ("corrupt-clean", "zf-too-high", "zf.low_live", "live blocks are counted again"),
    ],
)
def test_what_is_done_is_said(file: str, name: str, code: str, sentence: str) -> None:
    repair = planned(case_drive(file, name))
    said = [text for action in repair.actions if action.id == f"zdm.{code}" for text in action.sentences()]
    assert any(sentence in text for text in said), said
    assert not repair.waiting


def test_dropped_mappings_are_named_one_and_all() -> None:
    drive = zx1.open_vector(FOLDER, "cut-direct")
    before = digests(drive)[0]
    repair = planned(drive)
    unmapped = sum(
        int(str(where["blocks"]))
        for action in repair.actions
        for sentence, where in action.rows.items()
        if "become unmapped" in sentence
    )
    apply_plan([drive], repair.plan.steps)
    assert unmapped == 449
    assert digests(drive)[0] == before - unmapped
