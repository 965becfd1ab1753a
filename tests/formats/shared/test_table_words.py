"""Words of a device-mapper table line, split here as ``dm_split_args`` does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned_tools.errors import UsageError
from zoned_tools.formats.shared.table_words import table_word

KERNEL_BLANKS = b"\t\n\v\f\r \xa0"


def split(line: bytes) -> list[bytes]:
    words: list[bytes] = []
    at = 0
    while at < len(line):
        if line[at] in KERNEL_BLANKS:
            at += 1
            continue
        word = bytearray()
        while at < len(line) and line[at] not in KERNEL_BLANKS:
            if line[at : at + 1] == b"\\" and at + 1 < len(line):
                at += 1
            word.append(line[at])
            at += 1
        words.append(bytes(word))
    return words


@given(st.lists(st.text(st.characters(max_codepoint=0x2100) | st.sampled_from(" \\\n\xe0"), max_size=8), max_size=4))
def test_a_word_is_one_word_or_refused(texts: list[str]) -> None:
    carried = [text for text in texts if text.isprintable() and text and b"\xa0" not in text.encode()]
    for text in set(texts) - set(carried):
        with pytest.raises(UsageError):
            table_word(text)
    line = " ".join(["0 8 zoned", *map(table_word, carried)])
    assert split(line.encode()) == [b"0", b"8", b"zoned", *(text.encode() for text in carried)]
    assert line.isprintable()


@pytest.mark.parametrize("text", ["", "a\nb", "a\tb", "\x1b[31m", "\udcff", "\xa0", "\xe0", "a\x7f", "\u2028"])
def test_what_no_line_can_carry(text: str) -> None:
    with pytest.raises(UsageError, match="a table line cannot carry"):
        table_word(text)


def test_names_as_they_are() -> None:
    assert table_word("/dev/disk/by-id/ata-X_1,2") == "/dev/disk/by-id/ata-X_1,2"
    assert table_word("sp ace\\ä") == "sp\\ ace\\\\ä"
