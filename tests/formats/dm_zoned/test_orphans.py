"""Zones that no readable entry of the mapping table names, as files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.formats.dm_zoned.images import BLOCK, MIB, Images, check_target
from tests.formats.dm_zoned.test_unreadable import content
from tests.formats.dm_zoned.unreadable import BadDrive, KnowingDrive, damaged, layout_of
from zoned_tools.engine.orphans import export_orphans
from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.formats.contract import Target
from zoned_tools.report.documents.logical import orphans_document


def without_map(images: Images, base: str, more: tuple[int, ...] = (), kind: type[BadDrive] = BadDrive) -> Target:
    layout = layout_of(images, base)
    return damaged(images.target(base), [layout.map_block(0), layout.map_block(1), *more], kind=kind)


@pytest.mark.parametrize("base", ["hm64x1", "dual"])
def test_orphans_and_pairs_give_everything_back(images: Images, base: str, tmp_path: Path) -> None:
    """The zones of the lost chunks, laid over each other as the lost table says, are the content of the target."""
    whole, mapping = content(images.target(base)), check_target(images.target(base)).chosen.map
    target = without_map(images, base)
    written = export_orphans(target, str(tmp_path / "orphans"), {})
    zone_bytes = layout_of(images, base).zone_blocks * BLOCK
    files = {row.orphan.zone: (tmp_path / "orphans" / f"zone-{row.orphan.zone:05}.raw").read_bytes() for row in written}
    rows = {row.orphan.zone: row for row in written}
    found = bytearray(len(whole))
    for chunk, pair in enumerate(zip(mapping.data.tolist(), mapping.buffer.tolist(), strict=True)):
        parts = [files[zone] for zone in pair if zone in files]
        if len(parts) == 2:
            assert pair[1] in rows[pair[0]].orphan.pairs
            assert pair[0] in rows[pair[1]].orphan.pairs
        for part in parts:
            assert len(part) == zone_bytes
            merged = int.from_bytes(found[chunk * zone_bytes :][:zone_bytes]) | int.from_bytes(part)
            found[chunk * zone_bytes : (chunk + 1) * zone_bytes] = merged.to_bytes(zone_bytes)
    assert found == whole
    for row in written:
        assert row.sha256 == hashlib.sha256(files[row.orphan.zone]).hexdigest()
        assert row.orphan.first <= row.orphan.last
        assert (row.orphan.wp_blocks is None) == (row.orphan.kind != "sequential")
    document = json.loads(json.dumps(orphans_document(target, written)))
    assert [row["zone"] for row in document["orphans"]] == sorted(rows)


def test_a_named_zone_is_no_orphan(images: Images, tmp_path: Path) -> None:
    zones = {row.orphan.zone for row in export_orphans(without_map(images, "hm64x1"), str(tmp_path / "a"), {})}
    named = export_orphans(without_map(images, "hm64x1"), str(tmp_path / "b"), {"pair": "0:15,11:26+5"})
    assert zones - {row.orphan.zone for row in named} == {15, 26, 5}
    assert export_orphans(images.target("hm64x1"), str(tmp_path / "c"), {}) == []


def test_torn_blocks_need_consent(images: Images, tmp_path: Path) -> None:
    bad = 15 * MIB // BLOCK + 3
    target = without_map(images, "hm64x1", (bad,), KnowingDrive)
    with pytest.raises(DeviceError, match="4096 bytes of zone 15"):
        export_orphans(target, str(tmp_path / "a"), {})
    assert not (tmp_path / "a/zone-00015.raw").exists()
    written = export_orphans(target, str(tmp_path / "b"), {}, skip_errors=True)
    assert {row.orphan.zone: row.lost_bytes for row in written if row.lost_bytes} == {15: BLOCK}
    assert not any((tmp_path / "b/zone-00015.raw").read_bytes()[3 * BLOCK : 4 * BLOCK])


def test_files_are_not_overwritten_unasked(images: Images, tmp_path: Path) -> None:
    target = without_map(images, "hm64x1")
    export_orphans(target, str(tmp_path), {})
    with pytest.raises(DeviceError, match="already exists"):
        export_orphans(target, str(tmp_path), {})
    assert export_orphans(target, str(tmp_path), {}, force=True)
    with pytest.raises(UsageError):
        export_orphans(target, str(tmp_path), {"colour": "1"})
