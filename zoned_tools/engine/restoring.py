"""Metadata written back from a document: tried out first, and refused where it belongs to another target."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.device.overlay import Overlay, apply_to_overlays
from zoned_tools.engine.changing import identity_of
from zoned_tools.engine.checking import gather
from zoned_tools.engine.rehearsing import refuse_worse
from zoned_tools.errors import RefusedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import CheckOptions, need

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.contract import Evidence, Target


_FORCE = "--force restores it all the same"


def plan_restore(target: Target, document: Mapping[str, object], *, force: bool = False) -> tuple[Plan, Evidence]:
    """The plan that writes a document's metadata to a target, and what a check finds after it.

    Args:
        document: as :func:`zoned_tools.engine.documents.read_document` returns it.
        force: also over a target with another identity, and what leaves more errors than there are.

    Raises:
        RefusedError: the document is of another target than the one that is there, or makes things worse.
        ZonedError: it does not fit the devices.
    """
    plan = need(registry.of(target).restore, target, "restore")(target, document)
    overlays = [Overlay(device) for device in target.devices]
    apply_to_overlays(overlays, plan.steps)
    tried = replace(target, devices=tuple(overlays))
    if not force:
        _refuse_other(target, tried)
    after, _ = gather(tried, CheckOptions())
    if not force:
        before, _ = gather(target, CheckOptions())
        refuse_worse(before, after, "restore", hint=_FORCE, unless_new="more of the same")
    return plan, after


def _refuse_other(target: Target, tried: Target) -> None:
    there, new = identity_of(target.devices), identity_of(tried.devices)
    if there and there != new:
        raise RefusedError(
            f"the document is of {new or 'a target that nothing recognises'}, the devices carry {there}",
            device=target.device.path,
            hint=_FORCE,
        )
