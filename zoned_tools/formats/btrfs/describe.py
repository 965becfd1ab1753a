"""A super block as text, in the field names of ``btrfs inspect-internal dump-super``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.checksum import ALGORITHMS, csum_matches
from zoned_tools.formats.btrfs.chunks import ChunkError, chunk_type_text, sys_chunks
from zoned_tools.formats.btrfs.layout import CSUM_BYTES, MAGIC, BackupRoot, SuperBlock, metadata_uuid, parse
from zoned_tools.formats.btrfs.names import (
    BACKUP_TREES,
    COMPAT_RO_NAMES,
    FLAG_NAMES,
    INCOMPAT_NAMES,
    SHOWN_DEVICE_FIELDS,
    SHOWN_FIELDS,
    bit_names,
    magic_text,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DONT_MATCH = "DON'T MATCH"
_DEPRECATED = frozenset({"log_root_transid", "leafsize"})


def full_text(raw: bytes, device: str) -> Iterator[str]:
    """Lines of a full dump, backup roots and system chunk array included."""
    block = parse(raw)
    yield f"superblock: bytenr={block.bytenr}, device={device}"
    yield "-" * 57
    yield from _identity_lines(raw, block)
    for name in SHOWN_FIELDS:
        yield _line(f"{name} (deprecated)" if name in _DEPRECATED else name, getattr(block, name))
    yield _line("compat_flags", f"{block.compat_flags:#x}")
    yield from _flag_lines("compat_ro_flags", block.compat_ro_flags, COMPAT_RO_NAMES)
    yield from _flag_lines("incompat_flags", block.incompat_flags, INCOMPAT_NAMES)
    yield _line("cache_generation", block.cache_generation)
    yield _line("uuid_tree_generation", block.uuid_tree_generation)
    yield from _device_lines(block)
    yield "sys_chunk_array[2048]:"
    yield from _chunk_lines(block)
    yield "backup_roots[4]:"
    for number, backup in enumerate(block.backup_roots):
        yield from _backup_lines(number, backup)


def _csum_verdict(raw: bytes, block: SuperBlock) -> str:
    if block.csum_type not in ALGORITHMS:
        return "UNKNOWN CSUM TYPE OR SIZE"
    return "match" if csum_matches(raw, block.csum_type) else DONT_MATCH


def _line(name: str, value: object) -> str:
    tabs = "\t" * max(3 - len(name) // 8, 1)
    return f"{name}{tabs}{value}"


def _flag_lines(name: str, value: int, names: dict[int, str]) -> Iterator[str]:
    yield _line(name, f"{value:#x}")
    listed = bit_names(value, names)
    if listed:
        yield "\t\t\t( " + " |\n\t\t\t  ".join(listed) + " )"


def _identity_lines(raw: bytes, block: SuperBlock) -> Iterator[str]:
    algorithm = ALGORITHMS.get(block.csum_type)
    size = algorithm.size if algorithm else CSUM_BYTES
    yield _line("csum_type", f"{block.csum_type} ({algorithm.name if algorithm else 'INVALID'})")
    yield _line("csum_size", size)
    yield _line("csum", f"0x{block.csum[:size].hex()} [{_csum_verdict(raw, block)}]")
    yield _line("bytenr", block.bytenr)
    yield from _flag_lines("flags", block.flags, FLAG_NAMES)
    yield _line("magic", f"{magic_text(block.magic)} [{'match' if block.magic == MAGIC else DONT_MATCH}]")
    yield _line("fsid", block.fsid)
    yield _line("metadata_uuid", metadata_uuid(block))
    yield _line("label", printable(block.label))


def _device_lines(block: SuperBlock) -> Iterator[str]:
    item = block.dev_item
    verdict = "match" if item.fsid == metadata_uuid(block) else DONT_MATCH
    yield _line("dev_item.uuid", item.uuid)
    yield _line("dev_item.fsid", f"{item.fsid} [{verdict}]")
    for name in SHOWN_DEVICE_FIELDS:
        yield _line(f"dev_item.{name}", getattr(item, name))


def _chunk_lines(block: SuperBlock) -> Iterator[str]:
    try:
        chunks = sys_chunks(block)
    except ChunkError as error:
        yield f"\tERROR: {error}"
        return
    for number, chunk in enumerate(chunks):
        yield f"\titem {number} key (FIRST_CHUNK_TREE CHUNK_ITEM {chunk.logical})"
        yield (
            f"\t\tlength {chunk.length_bytes} owner {chunk.owner} stripe_len {chunk.stripe_len} "
            f"type {chunk_type_text(chunk.type)}"
        )
        yield f"\t\tio_align {chunk.io_align} io_width {chunk.io_width} sector_size {chunk.sector_size}"
        yield f"\t\tnum_stripes {len(chunk.stripes)} sub_stripes {chunk.sub_stripes}"
        for index, stripe in enumerate(chunk.stripes):
            yield f"\t\t\tstripe {index} devid {stripe.devid} offset {stripe.offset_bytes}"
            yield f"\t\t\tdev_uuid {stripe.dev_uuid}"


def _backup_lines(number: int, backup: BackupRoot) -> Iterator[str]:
    yield f"\tbackup {number}:"
    for tree in BACKUP_TREES:
        name = {"csum_root": "csum_root:", "fs_root": "backup_fs_root:\t"}.get(tree, f"backup_{tree}:")
        level = getattr(backup, f"{tree}_level")
        yield f"\t\t{name}\t{getattr(backup, tree)}\tgen: {getattr(backup, f'{tree}_gen')}\tlevel: {level}"
    for name in ("total_bytes", "bytes_used", "num_devices"):
        yield f"\t\tbackup_{name}:\t{getattr(backup, name)}"
    yield ""
