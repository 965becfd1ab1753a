"""Metadata as a document, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import BLOCK, FOLDER, check_counts, digests, facts, target
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import GeometryError, MetadataError
from zoned_tools.formats.zdm import LAYOUT
from zoned_tools.formats.zdm.dump import dump, restore
from zoned_tools.formats.zdm.format import place_of, plan_wipe
from zoned_tools.formats.zdm.probe import probe

if TYPE_CHECKING:
    from zoned_tools.device.plan import Plan


@pytest.mark.parametrize("name", ["pop-journal", "pop-clean", "pop-1mib-hm", "old-r108", "old-r127", "fmt-16z"])
def test_dump_and_restore(name: str) -> None:
    start = facts(name)["start_sector"]
    drive = zx1.open_vector(FOLDER, name)
    document = json.loads(json.dumps(dump(target(drive, start))))
    before, found = digests(drive, start), check_counts(drive, start)
    if name != "fmt-16z":
        place = place_of(drive, start)
        apply_plan([drive], plan_wipe(place, None).steps)
        drive.store.pwrite(start * 512 + 65536 * BLOCK, bytes(BLOCK))
        assert probe(drive, start * 512) is None
    plan: Plan = restore(target(drive, start), document)
    apply_plan([drive], plan.steps)
    assert (digests(drive, start), check_counts(drive, start)) == (before, found)


def test_restore_refuses_what_does_not_fit() -> None:
    document = json.loads(json.dumps(dump(target(zx1.open_vector(FOLDER, "pop-small")))))
    other = zx1.open_vector(FOLDER, "pop-1mib-hm")
    with pytest.raises(MetadataError, match="from sector"):
        restore(target(other, 2048), document)
    drive = zx1.open_vector(FOLDER, "pop-small")
    for damage in (
        {"blocks": [[0, "!!!"]]},
        {"blocks": [[-1, "AAAA"]]},
        {"blocks": [[10**9, document["blocks"][0][1]]]},
        {"blocks": 5},
        {"blocks": [5]},
        {"blocks": [[0]]},
        {"blocks": [[0, 5]]},
        {"label": "AA"},
        {"label": 7},
        {"dialect": "r1"},
        {"dump_version": 2},
        {"dump_version": None},
        {"dump_version": None, "zdm_dump_version": 2},
        {"partition_blocks": 1},
        {"partition_blocks": "x"},
        {"data_start_zone": 14},
        {"data_start_zone": 10**12},
    ):
        with pytest.raises((MetadataError, GeometryError)):
            restore(target(drive), {**document, **damage})


def test_documents_of_older_versions_are_restored() -> None:
    drive = zx1.open_vector(FOLDER, "pop-small")
    document = dump(target(drive))
    steps = restore(target(drive), document).steps
    old = {"zdm_dump_version" if key == "dump_version" else key: value for key, value in document.items()}
    assert restore(target(drive), old).steps == steps


def test_the_label_stands_nowhere_but_under_private_keys() -> None:
    drive = zx1.open_vector(FOLDER, "fmt-64z-1mib")
    document = dump(target(drive, facts("fmt-64z-1mib")["start_sector"]))

    def without(value: object) -> object:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in LAYOUT.private_keys}
        return [without(v) for v in value] if isinstance(value, list) else value

    assert "seagate-a" in json.dumps(document)
    shown = without(document)
    assert isinstance(shown, dict)
    assert "seagate-a" not in json.dumps(shown)
    assert restore(target(drive, 2048), document).steps
    with pytest.raises(MetadataError, match="label"):
        restore(target(drive, 2048), shown)
