"""The ``dmsetup`` table line of a target."""

from __future__ import annotations

from zoned_tools.device.partition import start_of_view
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Settings, TableLine, Target
from zoned_tools.formats.dm_zoned.alone import open_target
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.settings import IDLE_RLOW, LEGACY, RLOW
from zoned_tools.formats.shared.table_words import table_word


def table_line(target: Target, settings: Settings) -> TableLine:
    """``0 <length> zoned <device>...``.

    The mainline target replaces the length by its own and takes no parameters. With
    ``legacy`` the line is for the original driver: one device, its full length, and ``rlow=``
    and ``idle_rlow=`` as given.

    Raises:
        NoValidSuperBlockError: the target's size is not known.
        UsageError: the settings do not go together, the legacy driver cannot run this target, or a line cannot carry
            the name of a device.
    """
    words = [f"{name}={settings[name]}" for name in (RLOW, IDLE_RLOW) if name in settings]
    legacy = settings.on(LEGACY)
    if words and not legacy:
        raise UsageError("rlow and idle_rlow are for the legacy table line only", hint="--legacy")
    state = read_state(open_target(target))
    if state.chosen is None or state.layout is None:
        raise NoValidSuperBlockError(DmZonedEvidence(target=target, state=state))
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
    return TableLine(" ".join(["0", str(sectors), "zoned", *map(table_word, target.paths), *words]))
