"""Findings on every image and every corruption case, by code and number."""

from __future__ import annotations

from typing import Any

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import (
    FOLDER,
    OLD,
    POPULATED,
    cases,
    check_counts,
    digests,
    facts,
    planned,
    reader,
    target,
)
from zoned_tools.errors import GeometryError, MetadataError, RefusedError
from zoned_tools.formats.contract import Settings
from zoned_tools.formats.zdm.mapper.open import open_mapper
from zoned_tools.formats.zdm.open import load, require_usable

CASES = cases()


def meant(expected: dict[str, int]) -> dict[str, int]:
    """Estimates whose checksum is wrong are no error: these images have one group."""
    return {code: n for code, n in expected.items() if code != "zf.low_live" or "zf.crc" not in expected}


@pytest.mark.parametrize("name", [n for n in POPULATED if "expected_findings" in facts(n)])
def test_check_finds_exactly_what_is_expected(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    assert check_counts(drive, expected["start_sector"]) == meant(expected["expected_findings"])


@pytest.mark.parametrize("name", OLD)
def test_old_dialects_check_clean_and_are_never_written(name: str) -> None:
    drive = zx1.open_vector(FOLDER, name)
    assert check_counts(drive, notes=False) == {"key.dirty": 1}
    assert not planned(drive).plan
    with pytest.raises(RefusedError, match="only read"):
        open_mapper(target(drive), writable=True, settings=Settings())


@pytest.mark.parametrize("name", ["fmt-16z", "fmt-64z-1mib", "fmt-1101z"])
def test_fresh_formats_are_clean_and_empty(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    start = expected["start_sector"]
    assert check_counts(drive, start) == {"key.none": 1}
    assert check_counts(drive, start, notes=False) == {}
    mapper = reader(drive, start)
    assert mapper.size_blocks == expected["identity"]["zdm_blocks"] // 8
    (extent,) = mapper.lookup(0, mapper.size_blocks)
    assert extent.physical_block is None


def test_whole_drive_format_is_refused() -> None:
    drive = zx1.open_vector(FOLDER, "fmt-whole")
    with pytest.raises(GeometryError, match="whole drive"):
        reader(drive, 0)
    assert check_counts(drive, 0) == {"ident.geometry": 1}
    assert not planned(drive, 0).plan


@pytest.mark.parametrize(("name", "case"), CASES, ids=[name for name, _ in CASES])
def test_corruption_is_found(name: str, case: dict[str, Any]) -> None:
    expected = case["expected"]
    drive = zx1.open_case(FOLDER, case["base"], case)
    found = check_counts(drive)
    assert found == meant(expected["findings"])
    assert set(expected["required_findings"]) <= set(found)
    state = load(target(drive))
    if expected["usable_generation"] is None:
        assert state.current is None
        with pytest.raises(MetadataError):
            require_usable(state)
        return
    assert state.current is not None
    assert state.current.generation == expected["usable_generation"]
    mapped, content, _ = digests(drive)
    assert mapped == expected["mapped_blocks"]
    # The drive shows zeroes above its write pointer, and nothing of an offline zone.
    if case["name"] not in ("dev-wp-lower", "zone-offline"):
        assert content == expected["content_sha256"]
