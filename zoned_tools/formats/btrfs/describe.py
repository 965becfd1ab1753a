"""A super block as text and as a tree, in the field names of ``btrfs inspect-internal dump-super``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoned_tools.formats.btrfs.checksum import ALGORITHMS, csum_matches
from zoned_tools.formats.btrfs.layout import (
    COMPAT_RO_NAMES,
    CSUM_BYTES,
    FLAG_NAMES,
    INCOMPAT_METADATA_UUID,
    INCOMPAT_NAMES,
    MAGIC,
    SUPER_BLOCK,
    TEMPORARY_MAGIC,
    Chunk,
    ChunkError,
    bit_names,
    chunk_type_text,
    metadata_uuid,
    sys_chunks,
)

_PLAIN_FIELDS = (
    ("generation", "generation"),
    ("root", "root"),
    ("sys_array_size", "sys_array_size"),
    ("chunk_root_generation", "chunk_root_generation"),
    ("root_level", "root_level"),
    ("chunk_root", "chunk_root"),
    ("chunk_root_level", "chunk_root_level"),
    ("log_root", "log_root"),
    ("log_root_transid (deprecated)", "log_root_transid"),
    ("log_root_level", "log_root_level"),
    ("total_bytes", "total_bytes"),
    ("bytes_used", "bytes_used"),
    ("sectorsize", "sectorsize"),
    ("nodesize", "nodesize"),
    ("leafsize (deprecated)", "leafsize"),
    ("stripesize", "stripesize"),
    ("root_dir", "root_dir"),
    ("num_devices", "num_devices"),
)
_DEVICE_FIELDS = (
    "type",
    "total_bytes",
    "bytes_used",
    "io_align",
    "io_width",
    "sector_size",
    "devid",
    "dev_group",
    "seek_speed",
    "bandwidth",
    "generation",
)
_BACKUP_TREES = ("tree_root", "chunk_root", "extent_root", "fs_root", "dev_root", "csum_root")


def shown_metadata_uuid(block: Any) -> str:
    """The metadata uuid as it counts: the fsid when the feature is off."""
    return str(metadata_uuid(block))


def csum_verdict(raw: bytes, block: Any) -> str:
    """``match``, ``DON'T MATCH`` or ``UNKNOWN CSUM TYPE OR SIZE``."""
    if block.csum_type not in ALGORITHMS:
        return "UNKNOWN CSUM TYPE OR SIZE"
    return "match" if csum_matches(raw, block.csum_type) else "DON'T MATCH"


def magic_text(block: Any) -> str:
    """The eight characters of the magic, others than printable ones as dots."""
    raw = int(block.magic).to_bytes(8, "little")
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in raw)


def full_text(raw: bytes, device: str) -> Iterator[str]:
    """Lines of a full dump, backup roots and system chunk array included."""
    block: Any = SUPER_BLOCK.parse(raw)
    yield f"superblock: bytenr={block.bytenr}, device={device}"
    yield "-" * 57
    yield from _identity_lines(raw, block)
    for name, field in _PLAIN_FIELDS:
        yield _line(name, block[field])
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


def _line(name: str, value: object) -> str:
    tabs = "\t" * max(3 - len(name) // 8, 1)
    return f"{name}{tabs}{value}"


def _flag_lines(name: str, value: int, names: dict[int, str]) -> Iterator[str]:
    yield _line(name, f"{value:#x}")
    listed = bit_names(value, names)
    if listed:
        yield "\t\t\t( " + " |\n\t\t\t  ".join(listed) + " )"


def _identity_lines(raw: bytes, block: Any) -> Iterator[str]:
    algorithm = ALGORITHMS.get(block.csum_type)
    size = algorithm.size if algorithm else CSUM_BYTES
    yield _line("csum_type", f"{block.csum_type} ({algorithm.name if algorithm else 'INVALID'})")
    yield _line("csum_size", size)
    yield _line("csum", f"0x{block.csum[:size].hex()} [{csum_verdict(raw, block)}]")
    yield _line("bytenr", block.bytenr)
    yield from _flag_lines("flags", block.flags, FLAG_NAMES)
    yield _line("magic", f"{magic_text(block)} [{'match' if block.magic == MAGIC else DONT_MATCH}]")
    yield _line("fsid", block.fsid)
    yield _line("metadata_uuid", shown_metadata_uuid(block))
    yield _line("label", printable(block.label))


DONT_MATCH = "DON'T MATCH"


def printable(text: str) -> str:
    """``text`` with control characters and undecodable bytes as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _device_lines(block: Any) -> Iterator[str]:
    item = block.dev_item
    verdict = "match" if item.fsid == metadata_uuid(block) else DONT_MATCH
    yield _line("dev_item.uuid", item.uuid)
    yield _line("dev_item.fsid", f"{item.fsid} [{verdict}]")
    for name in _DEVICE_FIELDS:
        yield _line(f"dev_item.{name}", item[name])


def _chunk_lines(block: Any) -> Iterator[str]:
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


def _backup_lines(number: int, backup: Any) -> Iterator[str]:
    yield f"\tbackup {number}:"
    for tree in _BACKUP_TREES:
        name = {"csum_root": "csum_root:", "fs_root": "backup_fs_root:\t"}.get(tree, f"backup_{tree}:")
        level = backup[f"{tree}_level"]
        yield f"\t\t{name}\t{backup[tree]}\tgen: {backup[f'{tree}_gen']}\tlevel: {level}"
    for name in ("total_bytes", "bytes_used", "num_devices"):
        yield f"\t\tbackup_{name}:\t{backup[name]}"
    yield ""


def as_tree(raw: bytes) -> dict[str, object]:
    """Every field of a super block by its dump-super name, numbers as numbers."""
    block: Any = SUPER_BLOCK.parse(raw)
    algorithm = ALGORITHMS.get(block.csum_type)
    tree: dict[str, object] = {
        "csum_type": block.csum_type,
        "csum_name": algorithm.name if algorithm else None,
        "csum": block.csum[: algorithm.size if algorithm else CSUM_BYTES].hex(),
        "csum_ok": csum_verdict(raw, block) == "match",
        "bytenr": block.bytenr,
        "flags": block.flags,
        "flag_names": bit_names(block.flags, FLAG_NAMES),
        "magic": magic_text(block),
        "magic_ok": block.magic == MAGIC,
        "temporary": block.magic == TEMPORARY_MAGIC,
        "fsid": str(block.fsid),
        "metadata_uuid": shown_metadata_uuid(block),
        "metadata_uuid_in_use": bool(block.incompat_flags & INCOMPAT_METADATA_UUID),
        "label": printable(block.label),
    }
    tree.update({field: block[field] for _, field in _PLAIN_FIELDS})
    for name, names in (("compat_flags", {}), ("compat_ro_flags", COMPAT_RO_NAMES), ("incompat_flags", INCOMPAT_NAMES)):
        tree[name] = block[name]
        tree[name.removesuffix("s") + "_names"] = bit_names(block[name], names)
    tree["cache_generation"] = block.cache_generation
    tree["uuid_tree_generation"] = block.uuid_tree_generation
    tree["nr_global_roots"] = block.nr_global_roots
    item = block.dev_item
    tree["dev_item"] = {
        "uuid": str(item.uuid),
        "fsid": str(item.fsid),
        "fsid_ok": item.fsid == metadata_uuid(block),
        **{name: item[name] for name in (*_DEVICE_FIELDS, "start_offset")},
    }
    try:
        tree["sys_chunk_array"] = [_chunk_tree(chunk) for chunk in sys_chunks(block)]
    except ChunkError as error:
        tree["sys_chunk_array"] = []
        tree["sys_chunk_array_error"] = str(error)
    tree["backup_roots"] = [_backup_tree(backup) for backup in block.backup_roots]
    return tree


def _chunk_tree(chunk: Chunk) -> dict[str, object]:
    return {
        "logical": chunk.logical,
        "length": chunk.length_bytes,
        "owner": chunk.owner,
        "stripe_len": chunk.stripe_len,
        "type": chunk_type_text(chunk.type),
        "io_align": chunk.io_align,
        "io_width": chunk.io_width,
        "sector_size": chunk.sector_size,
        "num_stripes": len(chunk.stripes),
        "sub_stripes": chunk.sub_stripes,
        "stripes": [{"devid": s.devid, "offset": s.offset_bytes, "dev_uuid": str(s.dev_uuid)} for s in chunk.stripes],
    }


def _backup_tree(backup: Any) -> dict[str, object]:
    tree: dict[str, object] = {
        name: {"bytenr": backup[name], "generation": backup[f"{name}_gen"], "level": backup[f"{name}_level"]}
        for name in _BACKUP_TREES
    }
    tree.update({name: backup[name] for name in ("total_bytes", "bytes_used", "num_devices")})
    return tree
