"""Sizes as people write and read them."""

from __future__ import annotations

import re

from zoned_tools.errors import UsageError

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_FACTORS = {letter: power for power, letter in enumerate("KMGTPE", start=1)}
_SIZE = re.compile(r"(?P<number>0x[0-9a-f]+|\d+(?:\.\d+)?)\s*(?P<unit>[kmgtpe]?)(?P<kind>i?b?)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """A number of bytes: ``4096``, ``0x1000``, ``256M`` or ``256MiB`` (1024-based), ``256MB`` (1000-based).

    Raises:
        UsageError: not a size, negative, or not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match["kind"].lower() == "i") or (not match["unit"] and match["kind"].lower() == "ib"):
        raise UsageError(f"'{text}' is not a size", hint="write for example 4096, 256MiB or 14T")
    base = 1000 if match["unit"] and match["kind"].lower() == "b" else 1024
    factor = 1
    for _ in range(_FACTORS[match["unit"].upper()] if match["unit"] else 0):
        factor *= base
    number = match["number"]
    if "." not in number:
        return int(number, 0) * factor if number[:2].lower() == "0x" else int(number) * factor
    whole, _, fraction = number.partition(".")
    scaled = int(whole + fraction) * factor
    divisor: int = 10 ** len(fraction)
    value, rest = divmod(scaled, divisor)
    if rest:
        raise UsageError(f"'{text}' is not a whole number of bytes")
    return value


def format_size(size_bytes: int) -> str:
    """``256 MiB``, ``13.6 TiB``: the largest 1024-based unit, with a decimal when it is needed."""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{f'{value:.1f}'.removesuffix('.0')} {_UNITS[unit]}"
