"""Going back to an older super block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formats.btrfs.images import SUPER_BYTES, head_of, make_super, poke
from tests.programs import Result
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import apply_plan
from zoned_tools.formats.btrfs.rollback import plan_rollback
from zoned_tools.formats.btrfs.survey import survey_device
from zoned_tools.formats.contract import Target

Program = Callable[..., Result]
Image = Callable[[str], Path]


def digest(image: Path) -> tuple[str, bytes]:
    with open(image, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), Path(f"{image}.zones").read_bytes()


def head(program: Program, image: Path) -> dict[str, Any]:
    ring = program("zoned", "btrfs", "supers", "--json", image).json["rings"][0]
    assert ring["kernel_choice"]["valid"]
    choice: dict[str, Any] = ring["kernel_choice"]
    return choice


@pytest.mark.parametrize(
    ("name", "generation"),
    [
        ("p02-inuse0", 7),
        ("p03-full0-empty1", 255),
        ("p04-full0-inuse1", 270),
        ("p04-full0-inuse1", 12),
        ("p05-bothfull-1newer", 516),
        ("p06-wrapped-0inuse-1full", 516),
        ("p07-bothfull-0newer", 765),
        ("pv01-torn-last", 7),
        ("pv06-both-inuse", 8),
        ("pv11-bothfull-old-gen-huge", 515),
    ],
)
def test_rollback_and_undo(name: str, generation: int, own_image: Image, tmp_path: Path, program: Program) -> None:
    image = own_image(name)
    before = digest(image)
    dry = program("zoned", "btrfs", "rollback", "--to-generation", generation, "--dry-run", image)
    assert dry.status == 0
    assert f"super block of generation {generation}" in dry.out
    assert digest(image) == before

    undo = tmp_path / "undo"
    done = program("zoned", "btrfs", "rollback", "--to-generation", generation, "--undo", undo, image)
    assert done.status == 0
    assert f"everything written after generation {generation} is lost" in done.err
    assert head(program, image)["generation"] == generation
    # whatever was wrong with the head is gone too
    assert program("zoned", "check", image).status == 0

    assert program("zoned", "undo", undo, image).status == 0
    assert digest(image) == before


@pytest.mark.parametrize(("name", "generation"), [("p05-bothfull-1newer", 300), ("p10-capsize-full0-inuse1", 500)])
def test_unreadable_roots_are_refused(name: str, generation: int, own_image: Image, program: Program) -> None:
    image = own_image(name)
    before = digest(image)
    refused = program("zoned", "btrfs", "rollback", "--to-generation", generation, image)
    assert refused.status == 8
    assert f"the roots of generation {generation} cannot be read" in refused.err
    assert digest(image) == before


def test_generation_that_is_not_there(vector_image: Image, program: Program) -> None:
    missing = program("zoned", "btrfs", "rollback", "--to-generation", 5, "--dry-run", vector_image("p02-inuse0"))
    assert missing.status == 8
    assert "there are generations 6 to 9" in missing.err


def test_rollback_to_the_newest_changes_nothing(own_image: Image, program: Program) -> None:
    image = own_image("p02-inuse0")
    before = digest(image)
    done = program("zoned", "btrfs", "rollback", "--to-generation", 9, "--json", image)
    assert done.status == 0
    assert not done.json["changed"]
    assert digest(image) == before


def test_tree_log_is_named_and_can_be_dropped(own_image: Image, program: Program) -> None:
    """Ten super blocks have generation 10; the last one has the newest log."""
    image = own_image("p12-fsync-equal-gen")
    back = program("zoned", "btrfs", "rollback", "--to-generation", 9, "--dry-run", "--json", image).json
    assert not any("log" in message for message in back["messages"])
    dropped = program("zoned", "btrfs", "rollback", "--to-generation", 10, "--drop-log", "--json", image).json
    assert dropped["changed"]
    assert any("tree log at 21250048 is cleared" in message for message in dropped["messages"])
    choice = head(program, image)
    assert (choice["generation"], choice["log_root"], choice["roots_readable"]) == (10, 0, None)
    full = program("zoned", "btrfs", "supers", "--json", "--full", image).json["super_block"]
    assert (full["log_root"], full["log_root_level"], full["csum_ok"]) == (0, 0, True)


def test_kept_tree_log_is_announced(own_image: Image, program: Program) -> None:
    image = own_image("p12-fsync-equal-gen")
    assert program("zoned", "btrfs", "rollback", "--to-generation", 8, image).status == 0
    back = program("zoned", "btrfs", "rollback", "--to-generation", 10, "--json", image).json
    assert any("replays the tree log at 21250048" in message for message in back["messages"])
    assert head(program, image)["log_root"] == 21250048


def test_unreadable_tree_log_is_refused(own_image: Image, program: Program) -> None:
    image = own_image("p12-fsync-equal-gen")
    full = program("zoned", "btrfs", "supers", "--json", "--full", image).json["super_block"]
    with open_image(str(image)) as drive:
        target = Target("btrfs", (drive,))
        survey = survey_device(drive)
        raw = survey.block(head_of(survey.mirrors[0]))
        assert plan_rollback(target, 9)
    # the log's node is in a single chunk: find it through the listing of chunks in the check's own map
    from zoned_tools.formats.btrfs.layout import parse
    from zoned_tools.formats.btrfs.trees import TreeReader

    with open_image(str(image)) as drive:
        chunks = TreeReader({1: drive}).chunk_map(parse(raw))
        [(_, place)] = chunks.places(full["log_root"], full["nodesize"])
    poke(image, place + 200, b"damage")
    found = program("zoned", "check", "--json", image)
    assert found.status == 4
    assert [f["id"] for f in found.json["devices"][0]["findings"]] == ["btrfs.log-unreadable"]
    assert program("zoned", "btrfs", "rollback", "--to-generation", 8, image).status == 0
    refused = program("zoned", "btrfs", "rollback", "--to-generation", 10, image)
    assert refused.status == 8
    assert "--drop-log" in refused.err
    assert program("zoned", "btrfs", "rollback", "--to-generation", 10, "--drop-log", image).status == 0
    assert head(program, image)["log_root"] == 0
    assert program("zoned", "check", image).status == 0


def test_unreadable_log_can_be_dropped_by_repair(own_image: Image, program: Program) -> None:
    image = own_image("p12-fsync-equal-gen")
    # a log root that no chunk holds
    with open_image(str(image), writable=True) as drive:
        survey = survey_device(drive)
        raw = survey.block(head_of(survey.mirrors[0]))
        drive.write(14 * SUPER_BYTES, make_super(10, log_root=1 << 50, base=raw))
    assert program("zoned", "check", image).status == 4
    assert program("zoned", "check", "--repair", image).status == 4
    assert program("zoned", "check", "--repair", "--allow", "log-unreadable", image).status == 1
    assert head(program, image)["log_root"] == 0


def test_unreadable_roots_can_be_left_behind_by_repair(own_image: Image, program: Program) -> None:
    image = own_image("p02-inuse0")
    with open_image(str(image), writable=True) as drive:
        raw = drive.read(3 * SUPER_BYTES, SUPER_BYTES)
        drive.write(4 * SUPER_BYTES, make_super(10, base=raw))
    found = program("zoned", "check", "--json", image)
    assert [f["id"] for f in found.json["devices"][0]["findings"]] == ["btrfs.roots-unreadable"]
    assert program("zoned", "check", "--repair", "--allow", "roots-unreadable", image).status == 1
    assert head(program, image)["generation"] == 9


def test_power_cuts_during_a_rollback(vector_image: Image) -> None:
    """Any cut leaves the old newest or the chosen one; both are what the kernel then finds."""
    for name, generation in (("p05-bothfull-1newer", 515), ("p03-full0-empty1", 250), ("p07-bothfull-0newer", 763)):
        with open_image(str(vector_image(name))) as image:
            newest = int(head_of(survey_device(image).mirrors[0])["generation"])
            recorder = Recorder(Overlay(image))
            apply_plan([recorder], plan_rollback(Target("btrfs", (recorder,)), generation).steps)
            for cut in range(len(recorder.log) + 1):
                device = Overlay(image)
                replay_cut([device], recorder.log, cut, lambda index: False)
                survey = survey_device(device).mirrors[0]
                assert survey.head_is_valid
                assert int(head_of(survey)["generation"]) in (newest, generation)


def test_lost_trees_are_announced(own_image: Image, program: Program) -> None:
    """The root tree of generation 514 is there, but the file system tree it leads to is not."""
    image = own_image("p05-bothfull-1newer")
    done = program("zoned", "btrfs", "rollback", "--to-generation", 514, "--json", image).json
    assert any("kernel will refuse to mount it: file system tree" in message for message in done["messages"])
    found = program("zoned", "check", "--json", image)
    assert found.status == 4
    assert "btrfs.tree-lost" in {f["id"] for f in found.json["devices"][0]["findings"]}


def test_distant_rollback_warns_of_the_other_zone(own_image: Image, program: Program) -> None:
    image = own_image("p03-full0-empty1")
    done = program("zoned", "btrfs", "rollback", "--to-generation", 7, "--json", image).json
    assert any("keeps a zone that ends with generation 261" in message for message in done["messages"])
    assert head(program, image)["generation"] == 7


def test_all_mirrors_go_back_together(own_image: Image, program: Program) -> None:
    image = own_image("p13-mirrors-8GiB-zones")
    assert program("zoned", "btrfs", "rollback", "--to-generation", 14, image).status == 0
    rings = program("zoned", "btrfs", "supers", "--json", image).json["rings"]
    assert [ring["kernel_choice"]["generation"] for ring in rings] == [14, 14, 14]
    assert all(ring["kernel_choice"]["valid"] for ring in rings)
    found = program("zoned", "check", "--json", image)
    assert found.status == 0
    assert {f["id"] for f in found.json["devices"][0]["findings"]} == {"btrfs.generation-decreases"}
