"""Super blocks and emulated drives for the btrfs tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.zones import SECTOR_BYTES, Model, ZoneTable, make_table
from zoned_tools.formats.btrfs.checksum import seal
from zoned_tools.formats.btrfs.layout import MIRROR_BYTENR, SUPER_BLOCK_OFFSETS, pack, parse

if TYPE_CHECKING:
    from zoned_tools.formats.btrfs.copies import Copy
    from zoned_tools.formats.btrfs.survey import MirrorSurvey

VECTORS = Path(__file__).parents[2] / "vectors" / "btrfs-zoned"
STATES: dict[str, Any] = json.loads((VECTORS / "block-groups.json").read_text())
"""What is known of the vectors of whole file systems, by name."""

Images = Callable[[str], list[Path]]
"""All devices of a vector."""
EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_text())
MIB = 1 << 20
SUPER_BYTES = 4096


def template(csum: str = "crc32c") -> bytes:
    """A super block that mkfs.btrfs wrote, one for each checksum type."""
    return (VECTORS / "superblocks" / f"{csum}.bin").read_bytes()


_TEMPLATE = template()


def make_super(
    generation: int,
    *,
    mirror: int = 0,
    log_root: int = 0,
    base: bytes | None = None,
    zone_bytes: int = 4 * MIB,
    **changes: Any,
) -> bytes:
    """A valid super block; ``changes`` are fields, ``dev_item__NAME`` for those of the device item."""
    raw = _TEMPLATE if base is None else base
    if base is None:
        raw = _patch(raw, SUPER_BLOCK_OFFSETS["sys_chunk_array"] + 17, zone_bytes)
    for name, value in (("generation", generation), ("bytenr", MIRROR_BYTENR[mirror]), ("log_root", log_root)):
        raw = _patch(raw, SUPER_BLOCK_OFFSETS[name], value)
    if not changes:
        return reseal(raw)
    block = parse(raw)
    inner = {name.removeprefix("dev_item__"): changes.pop(name) for name in list(changes) if "__" in name}
    return reseal(pack(replace(block, **changes, dev_item=replace(block.dev_item, **inner))))


def _patch(raw: bytes, at: int, value: int) -> bytes:
    return raw[:at] + value.to_bytes(8, "little") + raw[at + 8 :]


def reseal(block: bytes) -> bytes:
    at = SUPER_BLOCK_OFFSETS["csum_type"]
    return seal(block, int.from_bytes(block[at : at + 2], "little"))


def torn(block: bytes) -> bytes:
    return block[:1536] + bytes(SUPER_BYTES - 1536)


@dataclass
class Drive:
    """How an emulated drive for a ring is made."""

    path: Path
    zone_bytes: int = 4 * MIB
    capacity_bytes: int = 16 * SUPER_BYTES
    nr_zones: int = 12
    block_bytes: int = 4096
    conventional: int = 0
    edit: Callable[[ZoneTable], None] | None = None
    contents: dict[int, list[bytes]] = field(default_factory=dict)

    def make(self) -> Path:
        """Create the image; every zone gets its blocks written one after the other."""
        table = make_table(
            self.nr_zones * self.zone_bytes // SECTOR_BYTES,
            self.zone_bytes // SECTOR_BYTES,
            nr_conventional=self.conventional,
            capacity_sectors=self.capacity_bytes // SECTOR_BYTES,
        )
        geometry = Geometry(
            Model.HOST_MANAGED,
            self.nr_zones * self.zone_bytes,
            self.zone_bytes,
            self.nr_zones,
            logical_block_bytes=self.block_bytes,
            physical_block_bytes=self.block_bytes,
            write_granularity_bytes=self.block_bytes,
        )
        create_image(str(self.path), geometry, table, overwrite=True)
        with open_image(str(self.path), writable=True) as drive:
            for zone, blocks in self.contents.items():
                if blocks:
                    drive.write(zone * self.zone_bytes, b"".join(blocks))
        if self.edit is not None:
            change_zones(self.path, self.edit)
        return self.path


def change_zones(image: Path, edit: Callable[[ZoneTable], None]) -> None:
    """Edit an image's zone table behind its back."""
    from zoned_tools.device import dump
    from zoned_tools.device.image import read_dump, sidecar_path

    decoded = read_dump(sidecar_path(str(image)))
    table = decoded.table.copy()
    edit(table)
    Path(sidecar_path(str(image))).write_bytes(dump.encode(decoded.geometry, table))


def poke(image: Path, offset: int, data: bytes) -> None:
    """Change bytes of an image behind its back."""
    with open(image, "r+b") as file:
        file.seek(offset)
        file.write(data)


def manage(image: Path, operation: ZoneOperation, zone: int) -> None:
    with open_image(str(image), writable=True) as drive:
        drive.manage(operation, zone)


def head_of(survey: MirrorSurvey) -> Copy:
    """The kernel's choice, which is there."""
    assert survey.head is not None
    return survey.head
