"""Findings of this layout from their codes."""

from __future__ import annotations

from collections.abc import Mapping

from zoned_tools.findings import Finding
from zoned_tools.formats.btrfs.codes import CODES


def finding(code: str, message: str, where: Mapping[str, object], *, repairable: bool = True) -> Finding:
    """A finding with the severity of its code; its repair is left out when this one cannot be repaired."""
    entry = CODES[code]
    return Finding(f"btrfs.{code}", entry.severity, message, dict(where), entry.repair if repairable else "")
