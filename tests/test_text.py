"""Text for terminals and shells."""

from __future__ import annotations

import os
import subprocess

import pytest

from zoned_tools.text import shell_word, visible


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("drive.img", "drive.img"),
        ("a b", "'a b'"),
        ("it's", "'it'\"'\"'s'"),
        ("", "''"),
        ("a\nb'\\", "$'a\\x0ab\\'\\\\'"),
    ],
)
def test_words_for_a_shell(text: str, word: str) -> None:
    assert shell_word(text) == word


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m9", "\udcff\x07f", '$x `y` "z" !', "ä\u2028 \\", "'\t'", "-n"])
def test_a_shell_reads_the_same_word(text: str) -> None:
    word = shell_word(text)
    assert word.isprintable()
    script = f"printf '%s\\0' {word}"
    assert subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout == os.fsencode(text) + b"\0"


def test_visible_text_is_one_printable_line() -> None:
    assert visible("plain ä") == "plain ä"
    assert visible("a\n\x1b\udcff") == "a\\n\\x1b\\udcff"
