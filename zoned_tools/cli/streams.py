"""Standard streams that never steer the work.

A reader that goes away (``| head -1``) changes neither what is done nor the exit status: from then on output goes
nowhere. Streams that were closed from the start (``>&-``) are opened on /dev/null, or the first device that is opened
would become standard output and be written to.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from zoned_tools.text import visible_lines

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STANDARD = (0, 1, 2)


class Outlet(io.RawIOBase):
    """A descriptor to write to, as long as somebody reads there."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.is_gone = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: ReadableBuffer, /) -> int:
        if not self.is_gone:
            try:
                return os.write(self._fd, data)
            except BrokenPipeError:
                self.is_gone = True
            except OSError:
                self.is_gone = True  # told once; what is still buffered goes nowhere
                raise
        return memoryview(data).nbytes


class VisibleText(io.TextIOWrapper):
    """Text for people: what labels and names from disks would do to a terminal is shown as escapes."""

    def write(self, text: str, /) -> int:
        return super().write(visible_lines(text))

    def write_escapes(self, text: str) -> int:
        """Write text whose control characters are meant: colours, a progress bar."""
        return super().write(text)


class Unfiltered:
    """A stream as :class:`VisibleText` whose control characters are meant; for rich."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        stream = self._stream
        return stream.write_escapes(text) if isinstance(stream, VisibleText) else stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return self._stream.encoding


def secure_standard_streams() -> None:
    """Open what is closed, and put outlets behind standard output and standard error."""
    for fd in _STANDARD:
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = _text(1, line_buffering=os.isatty(1))
    sys.stderr = _text(2, line_buffering=True)


def _text(fd: int, *, line_buffering: bool) -> VisibleText:
    return VisibleText(
        io.BufferedWriter(Outlet(fd), 1 << 16), _encoding(fd), "backslashreplace", line_buffering=line_buffering
    )


def _encoding(fd: int) -> str:
    stream = sys.stdout if fd == 1 else sys.stderr
    return getattr(stream, "encoding", None) or "utf-8"
