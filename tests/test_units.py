"""Sizes round trip between people and bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned_tools.errors import UsageError
from zoned_tools.units import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("0x1000", 4096),
        ("256M", 256 << 20),
        ("256MiB", 256 << 20),
        ("256MB", 256_000_000),
        ("1.5K", 1536),
        ("14T", 14 << 40),
        ("2 GiB", 2 << 30),
    ],
)
def test_sizes(text: Any, size: Any) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1.2.3", "5Q", "1e9", "0.3", "1iB", "M"])
def test_nonsense(text: Any) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@given(st.integers(0, (1 << 63) - 1))
def test_what_is_printed_is_near_what_it_was(size: Any) -> None:
    assert abs(parse_size_loosely(format_size(size)) - size) <= size * 0.06 + 1


def parse_size_loosely(text: str) -> float:
    number, unit = text.split()
    return float(number) * 1024.0 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit)
