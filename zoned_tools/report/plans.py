"""Plans as text: what ``--dry-run`` shows, and the notes of an execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.contract import Severity
from zoned_tools.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from zoned_tools.device.plan import Plan
    from zoned_tools.engine.changing import Carried
    from zoned_tools.engine.checking import Outcome
    from zoned_tools.formats.contract import Evidence, RepairPlan
    from zoned_tools.formats.shared.rules import ActionGroup

FIRST_PLACES = 8
"""Actions of one kind that are shown."""


def step_lines(plan: Plan, paths: Sequence[str]) -> Iterator[str]:
    """One line a step."""
    return plan.describe(paths)


def action_lines(actions: Iterable[ActionGroup], *, everything: bool = False) -> Iterator[str]:
    """One sentence a place, the first of each kind."""
    for action in actions:
        yield from action.sentences(None if everything else FIRST_PLACES)
        if not everything and len(action) > FIRST_PLACES:
            more = len(action) - FIRST_PLACES
            ending = f", which wait for {action.option}" if action.waits else ""
            yield f"... and {more} more of this kind ({action.id}){ending}"


def plan_lines(
    plan: Plan, paths: Sequence[str], repair: RepairPlan | None = None, *, everything: bool = False
) -> Iterator[str]:
    """What ``--dry-run`` shows."""
    yield f"would {plan.title}:" if plan else f"nothing to do: {plan.title}"
    yield from (f"  note: {line}" for line in note_lines(plan, repair, everything=everything))
    yield from (f"  {line}" for line in step_lines(plan, paths))


def note_lines(plan: Plan, repair: RepairPlan | None = None, *, everything: bool = False) -> Iterator[str]:
    """What a human should know about a plan: why, what is lost, what waits."""
    yield from plan.messages
    if repair is not None:
        yield from action_lines(repair.actions, everything=everything)


def undo_lines(carried: Carried) -> Iterator[str]:
    """Where the undo file is, or why there is none."""
    if carried.undo_path:
        yield f"zoned undo {shell_word(carried.undo_path)} DEV... takes it back"
    elif carried.note:
        yield carried.note


def restored_line(after: Evidence, *, dry_run: bool) -> str:
    """What a check finds in metadata that were restored."""
    errors = after.findings.count(Severity.ERROR)
    left = "clean" if not errors else f"{errors} error{'s' if errors > 1 else ''}, zoned check lists them"
    return f"{'after this restore' if dry_run else 'restored'}: {left}"


def rehearsal_lines(outcome: Outcome) -> Iterator[str]:
    """``after this repair: clean; 0 blocks change; 3 become readable; 140 wait for --allow zdm.fwd.range``."""
    rehearsal, plan = outcome.rehearsal, outcome.plan
    if rehearsal is None or plan is None:
        return
    evidence, difference = rehearsal.evidence, rehearsal.difference
    errors = evidence.findings.count(Severity.ERROR)
    parts = ["clean" if not errors else f"{errors} error{'s' if errors > 1 else ''} left"]
    if difference is not None:
        parts.append(f"{difference.moved} blocks change")
        parts.append(f"{difference.gained} become readable")
        if difference.lost:
            parts.append(f"{difference.lost} are lost")
    waiting: dict[str, int] = {}
    for action in plan.waiting:
        waiting[action.option] = waiting.get(action.option, 0) + len(action)
    parts += [f"{count} wait for {option}" for option, count in waiting.items()]
    yield f"after this repair: {'; '.join(parts)}"
