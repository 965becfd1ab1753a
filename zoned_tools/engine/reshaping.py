"""The journey of changes that keep the content: plan, rehearsal, undo, execution, verification.

What moves payload or puts a target on other devices is rehearsed on copy-on-write views and checked there; the maps of
the logical device before and after are compared, not its content. A plan that leaves an error, or after which a block
is stored that was not, or the other way round, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.device.overlay import Overlay, apply_to_overlays
from zoned_tools.engine.changing import Carried, carry_out, identity_of
from zoned_tools.engine.checking import gather
from zoned_tools.engine.rehearsing import compare, look_up
from zoned_tools.errors import RefusedError
from zoned_tools.formats.contract import CheckOptions, Settings, Severity, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.contract import Evidence

_HINT = "nothing was written; zoned dump --binary makes a report of the metadata"


@dataclass(frozen=True, slots=True)
class Reshaping:
    """A change that is planned.

    Attributes:
        plan: the steps, on ``devices``.
        before: the target as it is.
        after: what it is on the devices that are given, when the plan is done.
    """

    plan: Plan
    devices: tuple[Device, ...]
    before: Target
    after: Callable[[Sequence[Device]], Target]


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a plan comes to: what a check finds then, and what the devices carry (layout and uuid)."""

    evidence: Evidence
    identity: str


def rehearse(change: Reshaping) -> Rehearsed:
    """Carry the plan out on copy-on-write views.

    Raises:
        RefusedError: it leaves an error, or changes what can be read.
        ZonedError: a step fails, or the result cannot be checked.
    """
    overlays = [Overlay(device) for device in change.devices]
    apply_to_overlays(overlays, change.plan.steps)
    after = change.after(overlays)
    evidence, _ = gather(after, CheckOptions())
    _refuse_errors(evidence, change.plan.title)
    old, new = look_up(change.before, Settings()), look_up(after, Settings())
    if old is not None and new is not None:
        difference = compare(old, new)
        if difference.lost or difference.gained:
            raise RefusedError(
                f"rehearsed, it loses {difference.lost} blocks and shows {difference.gained} others",
                device=change.before.device.path,
                hint=_HINT,
            )
    return Rehearsed(evidence, identity_of(overlays))


def _refuse_errors(evidence: Evidence, doing: str) -> None:
    if evidence.has_errors:
        found = next(iter(g for g in evidence.findings.groups if g.severity is Severity.ERROR))
        first = next(iter(found))
        raise RefusedError(
            f"{doing}: the rehearsal leaves {first.id}: {first.message}",
            device=evidence.target.device.path,
            hint=_HINT,
        )


def carry_through(
    change: Reshaping,
    rehearsed: Rehearsed,
    *,
    undo: str | None = None,
    no_undo: bool = False,
    undo_if_it_fits: bool = False,
    saved: Callable[[Carried], None] = lambda _: None,
) -> Carried:
    """Save what is overwritten, write, read back and check again.

    Args:
        undo_if_it_fits: go on without a file that would be too large: what is overwritten is what nobody can read.
        saved: told where the undo file is, before the first write.

    Raises:
        DeviceError: a write failed, or does not read back.
        RefusedError: the undo file would be too large, or a check finds an error afterwards.
    """
    carried = carry_out(
        change.plan,
        change.devices,
        undo=undo,
        no_undo=no_undo,
        undo_if_it_fits=undo_if_it_fits,
        identity_after=rehearsed.identity,
        saved=saved,
    )
    if carried:
        evidence, _ = gather(change.after(change.devices), CheckOptions())
        if evidence.has_errors:
            raise RefusedError(f"{change.plan.title}: done, and check finds errors", device=evidence.target.device.path)
    return carried
