"""A layout's rules: one table that says what a finding means, what is done about it and what that needs.

Everything that anybody is told about a code comes from its row: severity and repair of a finding, the
text of ``zoned explain``, and whether a repair waits for ``--allow``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from zoned_tools.errors import UsageError
from zoned_tools.formats.shared.columns import Rows, Words
from zoned_tools.formats.shared.findings import FindingGroup, Severity
from zoned_tools.text import nearest

if TYPE_CHECKING:
    from zoned_tools.formats.shared.columns import Column


class Consent(StrEnum):
    """What an action of a repair asks of the user."""

    CERTAIN = "certain"
    """The evidence allows one reading and nothing is lost: it is done without asking."""
    GUESSES = "guesses"
    """The evidence allows other readings."""
    LOSES = "loses"
    """Something that can be read now, or evidence for it, is gone afterwards."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A finding that a layout's check can report; ``zoned explain`` prints it.

    Attributes:
        severity: the specification's severity.
        meaning: what is wrong, one sentence.
        causes: what can have led to it.
        repair: what repair does about it, a phrase beside each finding; empty when nothing.
        kernel: what a kernel does with it.
        asks: the most that any action for this code asks.
        allow: what ``--allow CODE`` agrees to, where that is more than :attr:`repair` says.
    """

    severity: Severity
    meaning: str
    causes: str = ""
    repair: str = ""
    kernel: str = ""
    asks: Consent = Consent.CERTAIN
    allow: str = ""

    @property
    def consent(self) -> Consent | None:
        """:attr:`asks` where there is a repair; None where there is none."""
        return self.asks if self.repair else None

    @property
    def can_wait(self) -> bool:
        """True when an action for this code can wait for ``--allow``."""
        return self.asks is not Consent.CERTAIN


@dataclass(frozen=True, slots=True)
class ActionGroup:
    """What a repair does, or would do, about findings of one code.

    Attributes:
        id: the code that explains it, with the layout's name.
        consent: what the action asks.
        waits: not planned, because the user has not agreed.
        rows: a sentence for each place, which names what is lost.
        needs: what else than ``--allow`` of the code agrees to it (a setting), for what a code does not cover.
    """

    id: str
    consent: Consent
    waits: bool
    rows: Rows
    needs: str = ""

    def __len__(self) -> int:
        return self.rows.length

    @property
    def option(self) -> str:
        """What agrees to it on a command line."""
        return self.needs or f"--allow {self.id}"

    def sentences(self, most: int | None = None) -> Iterator[str]:
        """One sentence a place; those that wait say what they wait for."""
        ending = f"; it waits for {self.option}" if self.waits else ""
        return (sentence + ending for sentence in self.rows.sentences(most))


class Rules(Mapping[str, Rule]):
    """The table of one layout: code to rule, in the order of the specification.

    Raises:
        ValueError: a rule asks for consent to a repair that it does not describe.
    """

    def __init__(self, layout: str, table: Mapping[str, Rule]) -> None:
        self.layout = layout
        self._table = dict(table)
        for code, rule in self._table.items():
            if rule.can_wait and not rule.repair:
                raise ValueError(f"{layout}.{code}: asks for consent to nothing")

    def __getitem__(self, code: str) -> Rule:
        return self._table[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    # -- findings

    def finding(
        self,
        code: str,
        message: str = "",
        /,
        *,
        repairable: bool = True,
        severity: Severity | None = None,
        **where: object,
    ) -> FindingGroup:
        """One finding; without a message the rule's meaning, without its full stop.

        Args:
            repairable: False when this one is left alone although the rule has a repair.
            severity: where it differs from the rule's.
        """
        rule = self._table[code]
        rows = Rows.single(message or rule.meaning.removesuffix("."), where)
        repair = rule.repair if repairable else ""
        return FindingGroup(f"{self.layout}.{code}", severity or rule.severity, repair, rows)

    def findings(
        self,
        code: str,
        sentence: str,
        /,
        *,
        words: Mapping[str, Column | Words] | None = None,
        repairable: bool = True,
        **places: Column,
    ) -> FindingGroup:
        """Findings of one code as columns: one for each element of ``places``.

        Args:
            sentence: template over the names of the columns.
            words: columns for the sentence alone.
        """
        rule = self._table[code]
        rows = Rows.of(sentence, places, words)
        return FindingGroup(f"{self.layout}.{code}", rule.severity, rule.repair if repairable else "", rows)

    # -- actions

    def action(
        self,
        code: str,
        sentence: str,
        /,
        *,
        consent: Consent = Consent.CERTAIN,
        agreed: bool = False,
        needs: str = "",
        **where: object,
    ) -> ActionGroup:
        """One action of a repair for ``code``; one that asks and is not ``agreed`` to waits.

        Args:
            needs: what agrees where no code does (``--use-set N``).
        """
        return self._action(code, Rows.single(sentence, where), consent, agreed=agreed, needs=needs)

    def actions(
        self,
        code: str,
        sentence: str,
        /,
        *,
        consent: Consent = Consent.CERTAIN,
        agreed: bool = False,
        needs: str = "",
        words: Mapping[str, Column | Words] | None = None,
        **places: Column,
    ) -> ActionGroup:
        """Actions of one kind as columns, as :meth:`findings`; ``needs`` names what agrees where no code does."""
        return self._action(code, Rows.of(sentence, places, words), consent, agreed=agreed, needs=needs)

    def _action(self, code: str, rows: Rows, consent: Consent, *, agreed: bool, needs: str = "") -> ActionGroup:
        rule = self._table[code]
        asks = consent is not Consent.CERTAIN
        if asks and not rule.can_wait:
            raise ValueError(f"{self.layout}.{code}: an action asks for consent, its rule does not")
        return ActionGroup(f"{self.layout}.{code}", consent, asks and not agreed, rows, needs)

    # -- consent

    def agreed(self, wanted: frozenset[str]) -> frozenset[str]:
        """The codes that a user's ``--allow`` words name, without the layout's name.

        Raises:
            UsageError: a code that the layout does not have.
        """
        codes = frozenset(word.removeprefix(f"{self.layout}.") for word in wanted)
        unknown = sorted(codes.difference(self._table))
        if unknown:
            hint = nearest(unknown[0], self._table) or f"zoned explain {self.layout} lists them"
            raise UsageError(f"{self.layout} has no finding '{unknown[0]}'", hint=hint)
        return codes
