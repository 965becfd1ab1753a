"""What a decoder answers for a stream that it must not accept."""

from __future__ import annotations

from typing import TypeAlias


class Rejected(ValueError):  # noqa: N818 - a stream is rejected, the program has not erred
    """A stream that must not be accepted; the message says why. Bulk decoders return it in place of content."""


Outcome: TypeAlias = bytes | Rejected
"""Content of one stream, or why there is none."""
