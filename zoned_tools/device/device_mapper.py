"""device-mapper through ``dmsetup``: the table lines of the layouts become devices of the running kernel."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT_SECONDS = 120


def _dmsetup(arguments: Sequence[str]) -> str:
    """Run dmsetup and return what it prints.

    Raises:
        DeviceError: it is not installed, or fails; the message is its own last line.
    """
    program = shutil.which("dmsetup", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise DeviceError("dmsetup is not installed", hint="it is in the package dmsetup or device-mapper")
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, arguments are passed one by one
            [program, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"dmsetup failed: {error}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise DeviceError(f"dmsetup {arguments[0]}: {lines[0]}")
    return done.stdout


def create(name: str, table: str, uuid: str = "") -> None:
    """Create and start the device ``name`` from a one-line table."""
    extra = ["--uuid", uuid] if uuid else []
    _dmsetup(["create", name, *extra, "--table", table])


def remove(name: str) -> None:
    """Stop a device; waits for udev as dmsetup does."""
    _dmsetup(["remove", name])


def table(name: str) -> str:
    """The live table."""
    return _dmsetup(["table", name]).strip()


def exists(name: str) -> bool:
    """Whether a device of that name is active."""
    try:
        _dmsetup(["info", "-c", "--noheadings", "-o", "name", name])
    except DeviceError:
        return False
    return True


def message(name: str, text: str) -> None:
    """Send a message to sector 0 of a device."""
    _dmsetup(["message", name, "0", *text.split()])
