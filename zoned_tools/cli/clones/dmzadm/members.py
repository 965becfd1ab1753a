"""The devices that ``dmzadm`` is called with, as one target."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoned_tools.device.identity import refuse_if_used, why_not_zoned
from zoned_tools.device.opening import open_devices
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.cli.clones.dmzadm.arguments import Arguments
    from zoned_tools.device.base import Device

LAYOUT = "dm-zoned"


@contextmanager
def opened_members(arguments: Arguments, *, writable: bool = False) -> Iterator[Target]:
    """The target on the named devices, in their order and whatever is on them; closed at the end.

    Raises:
        UsageError: they cannot be members of one target.
        BusyError: one is mounted or held; like the original, also where nothing is written.
    """
    for path in arguments.paths:
        refuse_if_used(path)
    with open_devices(
        arguments.paths, writable=writable and not arguments.dry_run, mapfiles=arguments.every("mapfile")
    ) as devices:
        check_members(devices)
        yield Target(LAYOUT, devices)


def check_members(devices: Sequence[Device]) -> None:
    """One zoned device, or a regular one followed by zoned ones.

    Raises:
        UsageError: anything else; the texts are the original's.
    """
    first = devices[0]
    if len(devices) == 1 and not first.geometry.is_zoned:
        raise UsageError("Not a zoned block device", device=first.path, hint=why_not_zoned(first.path))
    if len(devices) > 1 and first.geometry.is_zoned:
        raise UsageError("Not a regular block device", device=first.path)
    for device in devices[1:]:
        if not device.geometry.is_zoned:
            raise UsageError("Not a zoned block device", device=device.path, hint=why_not_zoned(device.path))
