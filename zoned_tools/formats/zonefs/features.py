"""``mkzonefs -o``: the list of features and its numbers.

Reads lists as the original does (empty elements are ignored, several lists add up, blanks and a
plus sign may precede a number) and refuses what the original cuts or wraps silently: missing
and negative numbers, numbers over 32 bits, ids that no kernel accepts, bits outside 07777.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from zoned_tools.errors import UsageError
from zoned_tools.formats.zonefs.constants import DEFAULT_PERM, INVALID_ID, PERM_MASK, Feature

_DECIMAL = re.compile(r"[ \t\n\v\f\r]*([+-]?)([0-9]*)")
_OCTAL = re.compile(r"[ \t\n\v\f\r]*([+-]?)([0-7]*)")
_MAX_DIGITS = 64
"""A longer number fits in no field; not even converted."""
_LARGEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Features of a volume to be made (:class:`Feature` bits); fields without their bit keep the defaults."""

    features: int = 0
    uid: int = 0
    gid: int = 0
    perm: int = DEFAULT_PERM


@dataclass(frozen=True, slots=True)
class _Number:
    """A feature that takes a number: field, base, largest value, what to call a bad one."""

    field: str
    bit: Feature
    base: int
    largest: int
    complaint: str


_NUMBERS = {
    "uid=": _Number("uid", Feature.UID, 10, INVALID_ID - 1, "Invalid UID"),
    "gid=": _Number("gid", Feature.GID, 10, INVALID_ID - 1, "Invalid GID"),
    "perm=": _Number("perm", Feature.PERM, 8, PERM_MASK, "Invalid file permissions"),
}
_AGGREGATE = "aggr_cnv"
_INVALID = "Invalid feature string"


def parse_features(text: str, base: FeatureSet | None = None) -> FeatureSet:
    """Add a ``-o`` list to the features of the lists before it.

    Raises:
        UsageError: with the original's message for a bad list or number.
    """
    result = base or FeatureSet()
    at = 0
    while at < len(text):
        if text.startswith(_AGGREGATE, at):
            result = replace(result, features=result.features | Feature.AGGR_CNV)
            at += len(_AGGREGATE)
        else:
            prefix = next((p for p in _NUMBERS if text.startswith(p, at)), None)
            if prefix is not None:
                result, at = _take_number(text, at + len(prefix), result, _NUMBERS[prefix])
        if at < len(text):
            if text[at] != ",":
                raise UsageError(_INVALID)
            at += 1
    return result


def _take_number(text: str, at: int, result: FeatureSet, number: _Number) -> tuple[FeatureSet, int]:
    match = (_OCTAL if number.base == 8 else _DECIMAL).match(text, at)
    assert match is not None  # both patterns match the empty string
    sign, digits = match.groups()
    digits = digits.lstrip("0") or digits[:1]
    # The original's order: a number beyond 64 bits, then what follows ("uid=abc" is a bad list).
    if len(digits) > _MAX_DIGITS or int(digits or "0", number.base) > _LARGEST + (sign == "-"):
        raise UsageError(number.complaint)
    end = match.end() if digits else at
    if end < len(text) and text[end] != ",":
        raise UsageError(_INVALID)
    if not digits or sign == "-" or int(digits, number.base) > number.largest:
        raise UsageError(number.complaint)
    features = result.features | number.bit
    match number.field:
        case "uid":
            result = replace(result, features=features, uid=int(digits, number.base))
        case "gid":
            result = replace(result, features=features, gid=int(digits, number.base))
        case _:
            result = replace(result, features=features, perm=int(digits, number.base))
    return result, end
