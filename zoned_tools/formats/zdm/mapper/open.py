"""Opening the logical device: what can be read, what may be written."""

from __future__ import annotations

import uuid as uuids
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.errors import MetadataError, RefusedError
from zoned_tools.formats.zdm.foreign import find_foreign
from zoned_tools.formats.zdm.layout import Dialect
from zoned_tools.formats.zdm.losses import has_unread
from zoned_tools.formats.zdm.mapper.read import ZdmReader
from zoned_tools.formats.zdm.mapper.write import ZdmMapper
from zoned_tools.formats.zdm.open import load, require_usable
from zoned_tools.formats.zdm.volume import metadata_zone_refusal

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Settings, Target
    from zoned_tools.formats.zdm.open import State


def open_mapper(target: Target, *, writable: bool, settings: Settings) -> ZdmReader:
    """Open the logical device. ``sb-uuid`` among the settings counts for a first start.

    Raises:
        MetadataError: nothing usable is there, or repair is needed first.
        GeometryError: the reference would corrupt this layout.
        RefusedError: the zone table is another drive's; or writing was asked for, and the dialect is not the current
            one or a metadata zone is dead.
    """
    if writable:
        return ZdmMapper(*state_to_write(target, settings))
    state = load(target)
    require_usable(state)
    _refuse_foreign_zones(state)
    return ZdmReader(state)


def state_to_write(target: Target, settings: Settings) -> tuple[State, uuids.UUID]:
    """The metadata of a ZDM that may be written, and the UUID of its key blocks.

    Raises:
        as :func:`open_mapper`.
    """
    state = load(target)
    require_usable(state)
    _refuse_foreign_zones(state)
    if has_unread(state):
        raise MetadataError(
            "metadata cannot be read: only reading is possible", device=state.path, hint="repair it first"
        )
    state = replace(state, volume=state.volume.strictly(), tables=state.tables.strictly())
    if state.dialect is not Dialect.D3:
        raise RefusedError(
            f"metadata of releases {state.dialect} are only read",
            device=state.path,
            hint="copy the content to a new ZDM",
        )
    if state.geometry_faults:
        raise MetadataError(
            f"the identity does not fit: {state.geometry_faults[0]}", device=state.path, hint="it can only be read"
        )
    unwritable = metadata_zone_refusal(state.volume, state.geometry)
    if unwritable:
        raise RefusedError(unwritable, device=state.path, hint="it can only be read")
    if state.current is not None:
        return state, state.current.key.super.uuid
    wanted = settings.text("sb-uuid")
    return state, uuids.UUID(wanted) if wanted else uuids.uuid4()


def _refuse_foreign_zones(state: State) -> None:
    """With another drive's write pointers nearly everything would read as zeroes."""
    found = find_foreign(state)
    if found is not None:
        raise RefusedError(found.sentence, device=state.path, hint="--zones content derives it from the content")
