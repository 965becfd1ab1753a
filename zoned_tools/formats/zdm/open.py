"""Loading: identity, newest complete generation, journal, write pointers, as a correct loader must.

Unlike the reference, which never looks at the third area and takes the first key it finds
without testing whether its generation is complete.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.errors import GeometryError, MetadataError
from zoned_tools.formats.zdm import judge, layout, volume
from zoned_tools.formats.zdm.checksums import crc16_pages
from zoned_tools.formats.zdm.layout import BLOCK_SECTORS, GROUP_ZONES, CreateLayout, Dialect, Geometry
from zoned_tools.formats.zdm.losses import unread_crc_pages
from zoned_tools.formats.zdm.superblock import SuperBlock
from zoned_tools.formats.zdm.tables import Direction, JournalFaults, Tables, usable_journal
from zoned_tools.formats.zdm.volume import Volume

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.shared.zones import ZoneFacts
    from zoned_tools.formats.zdm.judge import Candidate, Generations
    from zoned_tools.formats.zdm.volume import Bytes2D


@dataclass(slots=True)
class State:
    """Everything about one ZDM but its tables' content.

    Attributes:
        identity: block 0 decoded, right or wrong.
        current: the generation that counts; None on a fresh format, or when none is complete.
        geometry_faults: why identity, partition and key do not belong together.
        refusal: why the layout cannot be used at all; empty when it can.
        wp, zf: recorded write pointers (with flags) and free estimates of the data zones.
        wp_bad, zf_bad: groups whose block does not match the key's checksum, or cannot be read.
        wp_unread, zf_unread: those that cannot be read; their write pointers are the drive's, or the end of the zone.
        traces: what tells that a ZDM without any key was started once; empty when nothing does.
    """

    volume: Volume
    identity: SuperBlock
    generations: Generations
    geometry: Geometry
    geometry_faults: list[str]
    refusal: str
    zones: ZoneFacts
    tables: Tables
    journal_faults: JournalFaults
    wp: npt.NDArray[np.uint32]
    zf: npt.NDArray[np.uint32]
    wp_bad: list[int]
    zf_bad: list[int]
    traces: str = ""
    wp_unread: list[int] = field(default_factory=list)
    zf_unread: list[int] = field(default_factory=list)

    @property
    def unread_keys(self) -> list[int]:
        """Blocks of the areas of generations that cannot be read."""
        starts = layout.AREA_STARTS[self.dialect]
        ranges = [range(start, start + judge.WINDOW_BLOCKS) for start in starts]
        return sorted(b for b in self.volume.unread if any(b in blocks for blocks in ranges))

    @property
    def home_only(self) -> bool:
        """No generation is complete, and that may be because a block cannot be read: the tables at home count."""
        return self.current is None and not self.fresh and bool(self.unread_keys)

    @property
    def current(self) -> Candidate | None:
        return self.generations.chosen

    @property
    def dialect(self) -> Dialect:
        return self.current.dialect if self.current else Dialect.D3

    @property
    def fresh(self) -> bool:
        """Formatted and never started: nothing that looks like a key, and no trace of a session."""
        return not self.generations.candidates and not self.traces

    @property
    def logical_blocks(self) -> int:
        """Size of the logical device; what the format itself allows when the identity cannot tell."""
        most = self.geometry.table_base + self.geometry.area_blocks - self.geometry.data_start
        if self.identity.usable and 0 < self.identity.zdm_blocks <= most * BLOCK_SECTORS:
            return self.identity.zdm_blocks // BLOCK_SECTORS
        created = self.created
        if 0 < created.logical_sectors <= most * BLOCK_SECTORS:
            return created.logical_sectors // BLOCK_SECTORS
        return most

    @property
    def created(self) -> CreateLayout:
        """What create computes for this partition."""
        reserved = self.identity.reserved if self.identity.usable else 8
        return CreateLayout.compute(self.geometry.start_sector, self.volume.size_blocks * BLOCK_SECTORS, reserved)

    @property
    def path(self) -> str:
        return self.volume.device.path


def load(target: Target) -> State:
    """Read the metadata of the ZDM at ``target.start_bytes``.

    Raises:
        MetadataError: there is no trace of a ZDM.
        GeometryError: the partition cannot hold one.
    """
    device = target.device
    rest = Volume.rest_of(device, target.start_bytes)
    if not rest.has(0, layout.ZEROED_BLOCKS):
        raise MetadataError("too small for a ZDM", device=device.path)
    identity = SuperBlock.parse(rest.read_rows(layout.IDENTITY_BLOCK, 1)[0].tobytes())
    found = judge.scan(rest)
    if found.unsupported:
        raise MetadataError(
            f"metadata of releases {found.unsupported} (megazones) are recognised but cannot be read",
            device=device.path,
        )
    if not identity.magic_ok and not any(c.valid for c in found.candidates):
        raise MetadataError("no ZDM found", device=device.path, hint="name the partition's first sector with --start")
    return assemble(_fit_partition(rest, identity, found), identity, found)


def _fit_partition(rest: Volume, identity: SuperBlock, found: Generations) -> Volume:
    """The partition: the identity's size where it can be right, else everything up to the drive's end."""
    device, size = rest.device, identity.sect_size // BLOCK_SECTORS
    if not identity.usable:
        return rest
    own_node = rest.offset_bytes == 0 and identity.sect_start and not device.geometry.is_zoned
    if own_node and identity.sect_size * SECTOR_BYTES == device.geometry.size_bytes:
        return replace(rest, start_sector=identity.sect_start, size_blocks=size)  # the node of a partition
    if not layout.ZEROED_BLOCKS <= size <= rest.size_blocks:
        return rest
    if found.chosen is not None:
        agreed = _zones_of(rest, size, found.chosen) == int(found.chosen.key.super.nr_zones)
        return replace(rest, size_blocks=size) if agreed else rest
    created = CreateLayout.compute(rest.start_sector, identity.sect_size, identity.reserved)
    agreed = created.logical_sectors % (1 << 64) == identity.zdm_blocks
    return replace(rest, size_blocks=size) if agreed else rest


def _zones_of(rest: Volume, size_blocks: int, key: Candidate) -> int:
    try:
        geometry = Geometry.compute(rest.start_sector, size_blocks, int(key.key.super.zdstart), key.dialect)
    except GeometryError:
        return -1
    return geometry.data_zones


def _zdstart(part: Volume, identity: SuperBlock, found: Generations) -> int:
    """Zone where data begins: the key's word, else the identity's, else what create computes."""
    if found.chosen is not None:
        return int(found.chosen.key.super.zdstart)
    created = CreateLayout.compute(part.start_sector, part.size_blocks * BLOCK_SECTORS, 8)
    return identity.data_start if identity.usable else created.data_start_zone


def assemble(part: Volume, identity: SuperBlock, found: Generations) -> State:
    """The state of a partition whose block 0 and keys have been read already."""
    device, chosen = part.device, found.chosen
    dialect = chosen.dialect if chosen else Dialect.D3
    geometry = Geometry.compute(
        part.start_sector, part.size_blocks, _zdstart(part, identity, found), dialect, device=device.path
    )
    if not part.has(0, geometry.data_start):
        raise GeometryError(f"the tables of {geometry.data_zones} zones do not fit the partition", device=device.path)
    rows = chosen.journal if chosen else np.zeros((0, 3), np.int64)
    md_crcs = chosen.md_crcs if chosen else np.zeros(4096, np.uint16)
    journal, faults = usable_journal(part, geometry, rows, md_crcs)
    wp, zf, wp_bad, zf_bad = _read_pointers(part, geometry, chosen)
    zones = volume.data_zones(part, geometry)
    first = layout.WP_BLOCKS[dialect]
    wp_unread, zf_unread = (
        [g for g in range(geometry.groups) if first + 2 * g + kind in part.unread] for kind in (0, 1)
    )
    _assume_pointers(wp, wp_unread, zones)
    return State(
        part,
        identity,
        found,
        geometry,
        _geometry_faults(part, identity, device),
        _refusal(part, identity, geometry, found),
        zones,
        Tables(part, geometry, journal),
        faults,
        wp,
        zf,
        wp_bad,
        zf_bad,
        "" if found.candidates else _traces(part, geometry),
        wp_unread if chosen else [],
        zf_unread if chosen else [],
    )


def _assume_pointers(wp: npt.NDArray[np.uint32], groups: list[int], zones: ZoneFacts) -> None:
    """Write pointers of ``groups`` whose block cannot be read: the drive's, or the end where it has none."""
    known = zones.sequential & (zones.wp_blocks >= 0)
    limit = np.where(known, zones.wp_blocks, layout.ZONE_BLOCKS).astype(np.uint32)
    for group in groups:
        part = slice(group * GROUP_ZONES, (group + 1) * GROUP_ZONES)
        wp[part] = limit[part]


def _traces(part: Volume, geometry: Geometry) -> str:
    """Traces of sessions in blocks that create zeroes: recorded write pointers and estimates, journaled pages.

    A first start that was cut before its first key leaves none: it records zones that are empty.
    """
    rows = part.read_rows(layout.WP_BLOCK, layout.ZEROED_BLOCKS - layout.WP_BLOCK)
    wp, zf = _pointers_of(rows[: 2 * geometry.groups], geometry)
    estimates = zf & np.uint32(layout.ZF_MASK)
    used = (wp & np.uint32(layout.WP_MASK)) != 0
    used |= (estimates != 0) & (estimates != layout.ZONE_BLOCKS)
    found = []
    if used.any():
        found.append(f"{np.count_nonzero(used)} data zones are recorded as used")
    if rows[layout.JOURNAL_BLOCK - layout.WP_BLOCK :].any():
        found.append("there are pages in the journal")
    return ", and ".join(found)


def _geometry_faults(part: Volume, identity: SuperBlock, device: Device) -> list[str]:
    """Disagreements of the identity with the partition."""
    if not identity.usable:
        return []
    faults = []
    if identity.sect_start != part.start_sector:
        faults.append(f"it says the partition begins at sector {identity.sect_start}, not {part.start_sector}")
    expected = volume.partition_sectors(device, part.offset_bytes)
    if identity.sect_size != expected and part.offset_bytes == 0 and part.start_sector:
        expected = identity.sect_size  # the node of a partition, found by its size
    if identity.sect_size != expected:
        faults.append(f"it says the partition has {identity.sect_size} sectors, not {expected}")
    if identity.zone_size != layout.ZONE_SECTORS:
        faults.append(f"it says zones have {identity.zone_size} sectors, not {layout.ZONE_SECTORS}")
    return faults


def _refusal(part: Volume, identity: SuperBlock, geometry: Geometry, found: Generations) -> str:
    """Why the reference would corrupt (or has corrupted) this layout."""
    unsuitable = volume.zone_size_refusal(part.device)
    if unsuitable or geometry.table_base != geometry.data_start:
        return unsuitable
    start = identity.data_start if identity.usable else geometry.zdstart
    created = CreateLayout.compute(part.start_sector, part.size_blocks * BLOCK_SECTORS, 8)
    if found.chosen is not None and found.chosen.dialect is not Dialect.D3:
        created = CreateLayout(
            created.start_sector, created.size_sectors, 8, geometry.table_zones, start, 0, geometry.md_start
        )
    try:
        planned = Geometry.compute(part.start_sector, part.size_blocks, start, device=part.device.path)
    except GeometryError as error:
        return error.message
    return layout.refusal(planned, created)


def _read_pointers(
    part: Volume, geometry: Geometry, chosen: Candidate | None
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], list[int], list[int]]:
    """Recorded write pointers and free estimates, and the groups whose checksum is wrong."""
    count, groups = geometry.data_zones, geometry.groups
    if chosen is None:
        return np.zeros(count, np.uint32), np.full(count, layout.ZONE_BLOCKS, np.uint32), [], []
    rows = part.read_rows(layout.WP_BLOCKS[chosen.dialect], 2 * groups)
    crcs = crc16_pages(rows)
    wp_bad = np.flatnonzero(crcs[0::2] != chosen.wp_crcs[:groups]).tolist()
    zf_bad = np.flatnonzero(crcs[1::2] != chosen.zf_crcs[:groups]).tolist()
    return *_pointers_of(rows, geometry), wp_bad, zf_bad


def _pointers_of(rows: Bytes2D, geometry: Geometry) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Words of the data zones in alternating write pointer and free estimate blocks."""
    entries = rows.view("<u4").reshape(-1, 2, GROUP_ZONES)
    wp, zf = (entries[:, kind].reshape(-1)[: geometry.data_zones].copy() for kind in (0, 1))
    return wp, zf


def _crc_pages_in_use(tables: Tables, direction: Direction) -> bool:
    """Whether a CRC page that can be read is not as create leaves it."""
    used = (tables.crc_pages(direction) != layout.EMPTY_PAGE_CRC).any(axis=1)
    used[unread_crc_pages(tables, direction)] = False
    return bool(used.any())


def require_usable(state: State) -> None:
    """Refuse what cannot be mapped without doing harm.

    Raises:
        GeometryError: the layout aliases, or its parts do not belong together.
        MetadataError: no generation is complete.
    """
    if state.refusal:
        raise GeometryError(state.refusal, device=state.path)
    current = state.current
    if current is None:
        if state.home_only:
            return
        if not state.fresh:
            why = f", but {state.traces}" if state.traces else ""
            raise MetadataError(
                f"no complete generation of the metadata is left{why}", device=state.path, hint="repair it"
            )
        if not state.identity.usable and layout.IDENTITY_BLOCK not in state.volume.unread:
            raise MetadataError("the identity super block is damaged", device=state.path, hint="repair it")
        if any(_crc_pages_in_use(state.tables, direction) for direction in Direction):
            raise MetadataError("the tables are in use, but no key block is left", device=state.path, hint="repair it")
        return
    if state.identity.usable and state.identity.data_start != state.geometry.zdstart:
        raise MetadataError(
            f"the key block puts data in zone {state.geometry.zdstart}, the identity in zone "
            f"{state.identity.data_start}",
            device=state.path,
            hint="wrong partition or wrong start sector?",
        )
