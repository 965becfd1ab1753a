"""The ``dmsetup`` table line of a target."""

from __future__ import annotations

from collections.abc import Mapping

from zoned_tools.device.partition import start_of_view
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.errors import UsageError
from zoned_tools.findings import CheckReport
from zoned_tools.formats.dm_zoned.check import NoValidSuperblockError
from zoned_tools.formats.dm_zoned.layout import LAYOUT_NAME
from zoned_tools.formats.dm_zoned.metadata import open_blocks
from zoned_tools.formats.dm_zoned.superblocks import read_state
from zoned_tools.formats.registry import Target, require_known

ACTIVATION_WARNING = ""
LEGACY = "legacy"
PARAMETERS = ("rlow", "idle_rlow")
"""Percentages of free random zones below which the original driver starts to reclaim."""


def table_line(target: Target, options: Mapping[str, str]) -> str:
    """``0 <length> zoned <device>...``.

    The mainline target replaces the length by its own and takes no parameters. With
    ``legacy`` the line is for the original driver: one device, its full length, and ``rlow=``
    and ``idle_rlow=`` as given.

    Raises:
        NoValidSuperblockError: the target's size is not known.
        UsageError: an option is unknown, or the legacy driver cannot run this target.
    """
    words = _parameters(options)
    legacy = _is_on(options.get(LEGACY, ""))
    if words and not legacy:
        raise UsageError("rlow and idle_rlow are for the legacy table line only", hint="--legacy")
    state = read_state(open_blocks(target))
    if state.chosen is None or state.layout is None:
        raise NoValidSuperblockError(CheckReport(LAYOUT_NAME, target.paths), found_any=state.found_magic)
    start = start_of_view(target.device)
    if start:
        raise UsageError(
            f"the target starts at sector {start // SECTOR_BYTES}, a table line only names whole devices",
            device=target.device.path,
        )
    sectors = state.layout.nr_chunks * state.geometry.zone_sectors
    if legacy:
        if len(target.devices) > 1:
            raise UsageError("the legacy driver runs single devices only", device=target.device.path)
        sectors = state.geometry.members[0].size_bytes // SECTOR_BYTES
    return " ".join(["0", str(sectors), "zoned", *target.paths, *words])


def _is_on(text: str) -> bool:
    return text.lower() not in ("", "0", "no", "false")


def _parameters(options: Mapping[str, str]) -> list[str]:
    words = []
    require_known(options, (LEGACY, *PARAMETERS))
    for key in PARAMETERS:
        value = options.get(key)
        if value is None:
            continue
        if not (value.isascii() and value.isdigit() and int(value) <= 100):
            raise UsageError(f"{key}={value} is not a percentage")
        words.append(f"{key}={int(value)}")
    return words
