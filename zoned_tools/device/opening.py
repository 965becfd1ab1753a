"""One function that opens whatever a user named: a block device, an image file, a zloop directory."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from zoned_tools.device.image import open_image
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Device


def open_device(path: str, *, writable: bool = False, content: bool = True) -> Device:
    """Open ``path`` exclusively for writing, or for reading.

    ``content=False`` asks for the zone table only, which a truncated image still has.

    Raises:
        DeviceError: missing, unreadable, not a device or image, or its zone table is damaged.
        BusyError: wanted for writing, and mounted, held or locked.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    except ValueError:
        raise DeviceError("no such device or image", device=path) from None
    if stat.S_ISBLK(mode):
        from zoned_tools.device.block import BlockDevice  # sysfs and ioctls are for real devices only
        from zoned_tools.device.identity import refuse_if_used

        if writable:
            refuse_if_used(path)
        return BlockDevice(path, writable=writable)
    if stat.S_ISDIR(mode):
        from zoned_tools.device.zloop import is_zloop, open_zloop

        if is_zloop(path):
            return open_zloop(path, writable=writable)
    return open_image(path, writable=writable, content=content)


@contextmanager
def open_devices(paths: Sequence[str], *, writable: bool = False) -> Iterator[tuple[Device, ...]]:
    """Open several devices and close them all at the end."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(open_device(path, writable=writable)) for path in paths)
