"""device-mapper through ``dmsetup``: the table lines of the layouts become devices of the running kernel."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.device import sysfs
from zoned_tools.device.sysfs import BlockSysfs
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


def status(name: str) -> str:
    """The live status line."""
    return _dmsetup(["status", name]).strip()


@dataclass(frozen=True, slots=True)
class Mapping:
    """A device-mapper device on top of others.

    Attributes:
        name: as below ``/dev/mapper``.
        kind: of its first target (``zoned``, ``linear``); empty where dmsetup does not tell.
        status: the whole line of that target; empty where dmsetup does not tell.
    """

    name: str
    kind: str
    status: str


def mappings_on(path: str) -> list[Mapping]:
    """What device-mapper runs on top of a block device; nothing for images."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return []
    if not stat.S_ISBLK(found.st_mode):
        return []
    holders = BlockSysfs.of_device_number(found.st_rdev).holders
    disks = (BlockSysfs((sysfs.SYSFS / "block" / holder).resolve()) for holder in holders)
    return [_mapping(name) for name in (disk.mapper_name for disk in disks) if name]


def _mapping(name: str) -> Mapping:
    try:
        line = status(name).partition("\n")[0]
    except DeviceError:  # not root, or no dmsetup
        return Mapping(name, "", "")
    words = line.split()
    return Mapping(name, words[2] if len(words) > 2 else "", line)


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
