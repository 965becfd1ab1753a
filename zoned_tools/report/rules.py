"""The rules of the layouts as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.contract import Consent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from zoned_tools.formats.contract import AnyLayout, Rule

CONSENT_TEXTS = {
    Consent.CERTAIN: "done without asking: the evidence allows one reading and nothing is lost",
    Consent.GUESSES: "what the evidence does not decide waits for --allow {id}",
    Consent.LOSES: "what would lose something waits for --allow {id}",
}


def rules_of(layouts: Iterable[AnyLayout], finding: str | None) -> dict[str, Rule]:
    """Id to rule: all of them, those that ``finding`` names with or without a layout, or else begins the names of."""
    rows = {f"{layout.name}.{code}": rule for layout in layouts for code, rule in layout.rules().items()}
    if finding is None:
        return rows
    named = {name: rule for name, rule in rows.items() if finding in (name, name.split(".", 1)[1])}
    return named or {name: rule for name, rule in rows.items() if _begins(name, finding)}


def _begins(name: str, words: str) -> bool:
    return name.startswith(words) or name.split(".", 1)[1].startswith(words)


def list_lines(rules: Mapping[str, Rule]) -> Iterator[str]:
    """One line a rule."""
    for name, rule in rules.items():
        yield f"{name:<45} {rule.severity!s:<8} {rule.meaning}"


def explain_lines(rules: Mapping[str, Rule]) -> Iterator[str]:
    """Everything that is known about each rule."""
    for name, rule in rules.items():
        yield f"{name} ({rule.severity})"
        consent = CONSENT_TEXTS[rule.consent].format(id=name) if rule.consent is not None else ""
        texts = {
            "meaning": rule.meaning,
            "causes": rule.causes,
            "kernel": rule.kernel,
            "repair": rule.repair or "nothing",
            "consent": consent,
            "allow": rule.allow,
        }
        yield from (f"  {title + ':':<9}{text}" for title, text in texts.items() if text)
