"""The ``dmsetup`` lines of the out-of-tree target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.contract import Settings, TableLine, Target
from zoned_tools.formats.shared.table_words import table_word
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.open import load, require_usable

if TYPE_CHECKING:
    from zoned_tools.formats.zdm.superblock import SuperBlock

TARGET_NAME = "zdm"


def line_of(
    identity: SuperBlock,
    device: str,
    *,
    create: bool = False,
    force: bool = False,
    meta: str = "",
    mirror: bool = False,
) -> str:
    """The table line of create, or of restore.

    Raises:
        UsageError: it cannot carry a name.
    """
    words = ["0", str(identity.zdm_blocks), TARGET_NAME, table_word(device), str(identity.data_start)]
    if meta:
        words.append(f"meta={table_word(meta)}")
    if mirror:
        words.append("mirror-md")  # the reference's restore says mirror_md, which its kernel does not know
    words.append("create" if create else "load")
    if force and create:
        words.append("force")
    words.append("discard" if identity.discard & layout.DISCARD_TRIM else "nodiscard")
    words.append("raid5-trim" if identity.discard & layout.DISCARD_RAID else "no-raid5-trim")
    if create:
        words.append("bio-queue" if identity.io_queue else "no-bio-queue")
    words.append("zac" if identity.zac_zbc & layout.ZAC_ZBC_ZAC else "nozac")
    words.append("zbc" if identity.zac_zbc & layout.ZAC_ZBC_ZBC else "nozbc")
    words.append(f"reserve={identity.reserved}")
    return " ".join(words)


def messages_of(identity: SuperBlock) -> list[str]:
    """The run-time parameters as messages, in the original's order."""
    prio, wm = identity.gc_prio, identity.gc_wm
    values = {
        "queue-depth": identity.io_queue,
        "gc-prio-def": prio[0],
        "gc-prio-low": prio[1],
        "gc-prio-high": prio[2],
        "gc-prio-crit": prio[3],
        "gc-wm-crit": wm[0],
        "gc-wm-high": wm[1],
        "gc-wm-low": wm[2],
        "gc-status": identity.gc_status,
        "cache-ageout-ms": identity.cache_ageout_ms,
        "cache-size": identity.cache_size,
        "cache-to-pagecache": identity.cache_to_pagecache,
        "cache-reada": identity.cache_reada,
        "journal-age": identity.journal_age,
    }
    return [f"{key}={value}" for key, value in values.items()]


def mapping_name(identity: SuperBlock, device: str) -> str:
    """Name of the device-mapper device: after the label, else after the device."""
    return f"zdm_{identity.label or device.rstrip('/').rsplit('/', 1)[-1]}"


def table_line(target: Target, settings: Settings) -> TableLine:
    """The restore line; with ``create`` among the settings the create line.

    Raises:
        MetadataError: there is no ZDM, or repair is needed first.
        GeometryError: the reference would corrupt this layout.
        UsageError: a line cannot carry the name of the device.
    """
    state = load(target)
    require_usable(state)
    return TableLine(
        line_of(
            state.identity,
            target.device.path,
            create=settings.on("create"),
            force=settings.on("force"),
            meta=settings.text("meta"),
            mirror=settings.on("mirror"),
        )
    )
