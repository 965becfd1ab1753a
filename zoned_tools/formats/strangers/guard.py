"""Calls into somebody else's code: what goes wrong there becomes one error that names the package."""

from __future__ import annotations

import os
import warnings
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import zoned_tools
from zoned_tools.errors import LayoutError, LayoutWarning, ZonedError
from zoned_tools.formats.strangers.values import WrongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
V = TypeVar("V")

_OURS = os.path.dirname(zoned_tools.__file__) + os.sep
_MOST_CHARACTERS = 300


def text_of(error: BaseException) -> str:
    """An exception in a few words of one line: ``RuntimeError: boom``."""
    text = " ".join(str(error).split())[:_MOST_CHARACTERS]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place_of(error: BaseException) -> str:
    """Where in somebody else's code an exception came up (``rooms.py line 7``); empty where it did not."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_OURS):
            place = f"{os.path.basename(file)} line {trace.tb_lineno}"
        trace = trace.tb_next
    return place


class Guard:
    """Guards the calls into one layout of a package.

    ``device`` is what its errors name.
    """

    def __init__(self, layout: str, package: str, device: str = "") -> None:
        self.layout = layout
        self.package = package
        self.device = device

    def on(self, device: str) -> Guard:
        """The same for calls that are about a device."""
        return Guard(self.layout, self.package, device)

    def call(self, room: str, function: Callable[[], T], verify: Callable[[T], V]) -> V:
        """What a call gives, after ``verify`` has let it through.

        Raises:
            LayoutError: the call raised something that is no :class:`ZonedError`, or gave what it may not.
            ZonedError: what the call raised.
        """
        try:
            return verify(function())
        except WrongError as error:
            raise self._error(f"{room} gave {error}") from error
        except ZonedError:
            raise
        except (Exception, SystemExit) as error:
            raise self._error(f"{room} failed: {text_of(error)}", _place_of(error)) from error

    def each(self, room: str, function: Callable[[], Iterable[T]], verify: Callable[[T], V]) -> Iterator[V]:
        """The same for what comes piece by piece."""
        pieces = self.call(room, lambda: iter(function()), lambda found: found)
        while piece := self.call(room, lambda: tuple(islice(pieces, 1)), lambda found: tuple(map(verify, found))):
            yield piece[0]

    def ask(self, room: str, function: Callable[[], T], verify: Callable[[T], V], otherwise: V) -> V:
        """An answer that others can do without: ``otherwise``, and a warning, when it cannot be had."""
        try:
            return self.call(room, function, verify)
        except LayoutError as error:
            warnings.warn(f"{error.message}; that counts as a no", LayoutWarning, stacklevel=3)
        except ZonedError as error:
            warnings.warn(f"{self} {room} failed: {error}; that counts as a no", LayoutWarning, stacklevel=3)
        return otherwise

    def _error(self, what: str, place: str = "") -> LayoutError:
        hint = f"a bug of that package, {place}" if place else "a bug of that package"
        return LayoutError(f"{self} {what}", device=self.device, hint=hint)

    def __str__(self) -> str:
        return f"the layout {self.layout} of the package {self.package}:"
