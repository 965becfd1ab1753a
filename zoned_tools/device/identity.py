"""Who a device is and who uses it: serial, model, holders, mounts."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoned_tools.device import sysfs
from zoned_tools.device.sysfs import BlockSysfs, read_attribute
from zoned_tools.errors import BusyError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNTINFO = Path("/proc/self/mountinfo")
_SWAPS = Path("/proc/swaps")

_SERIAL_PROPERTIES = ("ID_SERIAL_SHORT", "ID_SERIAL", "ID_SCSI_SERIAL", "SCSI_IDENT_SERIAL")


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """Serial number and model as udev knows them; empty strings when it does not."""

    serial: str = ""
    model: str = ""


def identify(path: str) -> DeviceIdentity:
    """Look a block device up in the udev database; empty for images and where udev is absent."""
    try:
        status = os.stat(path)
    except OSError:
        return DeviceIdentity()
    if not stat.S_ISBLK(status.st_mode):
        return DeviceIdentity()
    try:
        import pyudev

        device = pyudev.Devices.from_device_number(pyudev.Context(), "block", status.st_rdev)
        properties = device.properties
        serial = next((properties[key] for key in _SERIAL_PROPERTIES if properties.get(key)), "")
        return DeviceIdentity(serial=serial, model=properties.get("ID_MODEL", ""))
    except (ImportError, OSError, ValueError, LookupError):  # no libudev, or a device it does not know
        return DeviceIdentity()


def _unescape(field: str) -> str:
    """Undo the octal escapes of mountinfo (blank, tab, newline, backslash)."""
    return field.encode("latin-1", "replace").decode("unicode_escape") if "\\" in field else field


def mount_points(rdev: int) -> Iterator[str]:
    """Where a block device is mounted."""
    number = f"{os.major(rdev)}:{os.minor(rdev)}"
    try:
        lines = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(" ")
        source = fields[fields.index("-") + 2] if "-" in fields else ""
        if fields[2] == number or _is_device(source, rdev):
            yield _unescape(fields[4])


def _is_device(source: str, rdev: int) -> bool:
    """Whether a mount source names a device number (btrfs mounts show an anonymous number)."""
    if not source.startswith("/dev/"):
        return False
    try:
        status = os.stat(source)
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and status.st_rdev == rdev


def _is_swap(rdev: int) -> bool:
    try:
        lines = _SWAPS.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    except OSError:
        return False
    return any(_is_device(line.split()[0], rdev) for line in lines if line)


def describe_use(path: str) -> str:
    """Who uses a block device, as the rest of a sentence; empty when nobody is known."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISBLK(status.st_mode):
        return ""
    where = next(mount_points(status.st_rdev), None)
    if where is not None:
        return f"is mounted on {where}"
    if _is_swap(status.st_rdev):
        return "is in use as swap"
    holders = BlockSysfs.of_device_number(status.st_rdev).holders
    if holders:
        return f"is in use, held by {', '.join(map(_named, holders))}"
    return ""


def why_not_zoned(path: str) -> str:
    """What a drive is that shows no zones, to be put behind that; empty where nothing is known."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    if not stat.S_ISBLK(status.st_mode) or not BlockSysfs.of_device_number(status.st_rdev).is_drive_managed:
        return ""
    return "a drive-managed SMR drive hides its zones and is used like any other disk"


def not_zoned(path: str) -> DeviceError:
    """The refusal of a device without zones."""
    return DeviceError("not a zoned device", device=path, errno=errno.ENOTTY, hint=why_not_zoned(path))


def _named(holder: str) -> str:
    """``dm-3 (label)``: the kernel's name of a holder, and device-mapper's."""
    mapper = BlockSysfs((sysfs.SYSFS / "block" / holder).resolve()).mapper_name
    return f"{holder} ({mapper})" if mapper else holder


def refuse_if_used(path: str) -> None:
    """Raise :class:`BusyError` when a block device is mounted, swapped on or held."""
    use = describe_use(path)
    if use:
        raise BusyError(use, device=path)


def loop_devices(file: os.stat_result) -> Iterator[str]:
    """Kernel names of the loop devices that show a regular file, by whatever name they were given it."""
    for backing in sorted((sysfs.SYSFS / "block").glob("loop*/loop/backing_file")):
        try:
            shown = os.stat(backing.read_bytes().rstrip(b"\n"))
        except (OSError, ValueError):  # not attached any more, deleted, or out of sight
            continue
        if os.path.samestat(shown, file):
            yield backing.parent.parent.name


def describe_loop(file: os.stat_result) -> str:
    """Which loop device shows a regular file, as the rest of a sentence; empty when none does."""
    for name in loop_devices(file):
        number = read_attribute(sysfs.SYSFS / "block" / name / "dev")
        major, _, minor = number.partition(":")
        where = None
        if major.isdigit() and minor.isdigit():
            where = next(mount_points(os.makedev(int(major), int(minor))), None)
        return f"is attached to /dev/{name}" + (f", which is mounted on {where}" if where else "")
    return ""


def refuse_if_looped(fd: int, path: str) -> None:
    """Raise :class:`BusyError` when a loop device shows an open file."""
    use = describe_loop(os.fstat(fd))
    if use:
        raise BusyError(use, device=path, hint="losetup -d detaches it", errno=errno.EBUSY)
