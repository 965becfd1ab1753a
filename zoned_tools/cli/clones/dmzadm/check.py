"""``dmzadm --check`` and ``--repair``: the engine's journeys, told in the original's words."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from zoned_tools.cli.changes import print_undo
from zoned_tools.cli.clones.dmzadm.arguments import parse_number
from zoned_tools.cli.clones.dmzadm.members import opened_members
from zoned_tools.cli.documents import print_json
from zoned_tools.cli.settings import parse_settings
from zoned_tools.engine.checking import CheckRequest, Outcome, gather
from zoned_tools.engine.repairing import RepairRequest, refuse_unknown, repair_target
from zoned_tools.formats import dm_zoned
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, NoValidSuperBlockError
from zoned_tools.report import dmzadm as text
from zoned_tools.report.check import check_document
from zoned_tools.report.stream import write_lines

if TYPE_CHECKING:
    from zoned_tools.cli.clones.dmzadm.arguments import Arguments
    from zoned_tools.formats.contract import Evidence, NothingToCheckError

LEGACY_EXIT = "ZONED_TOOLS_LEGACY_EXIT"
"""Environment variable: ``1`` makes ``--check`` exit 0 with errors found, as the original does."""


def check_devices(arguments: Arguments) -> int:
    """``--check``: exit status 1 when there are errors."""
    with opened_members(arguments) as target:
        evidence, stop = gather(target, CheckRequest().options(dm_zoned.LAYOUT))
        stop = stop or _lost(evidence)
        if arguments.json:
            print_json(check_document([Outcome(target.paths, target.layout, evidence)], changed=False))
        else:
            _tell(evidence, stop, verbose=arguments.verbose, every_zone=arguments.very_verbose)
        if stop is not None:
            raise stop
        return int(evidence.has_errors and os.environ.get(LEGACY_EXIT) != "1")


def _lost(evidence: Evidence) -> NothingToCheckError | None:
    """No super block is left: the original ends there, and what ``zoned`` found out instead is not for its text."""
    assert isinstance(evidence, DmZonedEvidence)
    return NoValidSuperBlockError(evidence) if evidence.state.rebuilt is not None else None


def _tell(
    evidence: Evidence, stop: NothingToCheckError | None, *, verbose: bool = False, every_zone: bool = False
) -> None:
    """Print what was found."""
    assert isinstance(evidence, DmZonedEvidence)
    if stop is not None:
        write_lines(text.unusable_lines(evidence.findings))
        return
    write_lines(text.header_lines(evidence.target, evidence.geometry))
    if every_zone:
        write_lines(text.zone_lines(evidence.target))
    write_lines(text.check_lines(evidence, verbose=verbose))


def repair_devices(arguments: Arguments) -> int:
    """``--repair``: plan from the findings, rehearse, apply, check again."""
    settings = parse_settings(arguments.every("set"))
    number = parse_number(arguments.last("use-set"), "the set is 0 or 1", (0, 1))
    if number is not None:
        settings["use-set"] = str(number)
    request = CheckRequest(settings=settings)
    repair = RepairRequest(frozenset(arguments.every("allow")), arguments.dry_run, arguments.undo, arguments.no_undo)
    refuse_unknown(dm_zoned.LAYOUT, request, repair)
    teller = _RepairTeller(arguments)
    with opened_members(arguments, writable=True) as target:
        outcome = repair_target(
            target, request, repair, checked=teller.checked, announce=teller.announce, saved=print_undo
        )
    evidence = outcome.evidence
    assert evidence is not None
    if arguments.json:
        print_json(check_document([outcome], changed=outcome.changed))
    else:
        write_lines(text.repair_lines(outcome, dry_run=arguments.dry_run))
    return int(evidence.has_errors)


class _RepairTeller:
    """Shows a repair as it goes on."""

    def __init__(self, arguments: Arguments) -> None:
        self._json = arguments.json
        self._dry_run = arguments.dry_run

    def checked(self, evidence: Evidence, stop: NothingToCheckError | None) -> None:
        """What was found; where no super block is valid that is the end."""
        stop = stop or _lost(evidence)
        if not self._json:
            _tell(evidence, stop)
        if stop is not None:
            raise stop

    def announce(self, outcome: Outcome) -> None:
        """The plan, before the first write."""
        assert outcome.plan is not None
        if not self._dry_run:
            write_lines((f"note: {note}" for note in text.notes(outcome.plan)), sys.stderr)
        elif not self._json:
            write_lines(text.plan_lines(outcome.plan, outcome.devices))
