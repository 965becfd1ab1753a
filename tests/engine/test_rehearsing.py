"""What a rehearsal refuses: more errors than before, but for those that one finding stood for."""

from __future__ import annotations

import pytest

from zoned_tools.engine.rehearsing import FOREIGN, refuse_worse
from zoned_tools.errors import RefusedError
from zoned_tools.formats.contract import Evidence, Target
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.shared.findings import Findings


class _Nothing:
    """A drive whose content nobody looks at."""

    path = "disk.img"


def _evidence(*codes: str) -> Evidence:
    target = Target("dm-zoned", (_Nothing(),))  # type: ignore[arg-type]
    return Evidence(target, Findings(RULES.finding(code, "a sentence") for code in codes))


def test_more_errors_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"leaves 2 errors instead of 1 \(bits-after-wp\)"):
        refuse_worse(_evidence("sb-lost"), _evidence("sb-lost", "bits-after-wp"), "repair", hint="")


def test_what_a_wrong_zone_table_stood_for_is_not_new() -> None:
    """With consent to the table the single rules apply, and some of what they find waits for another answer."""
    refuse_worse(_evidence(FOREIGN), _evidence("bits-after-wp", "bits-after-wp", "bits-after-wp"), "repair", hint="")
    after = _evidence("map-dzone-range", "map-dzone-range", "bits-after-wp")
    with pytest.raises(RefusedError, match="map-dzone-range"):
        refuse_worse(_evidence(FOREIGN), after, "repair", hint="")
