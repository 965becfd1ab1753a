"""What libblkid sees on a device or image, for commands that must not overwrite content unasked."""

from __future__ import annotations

import ctypes
import os

from zoned_tools.errors import DeviceError

_NOTHING_FOUND = 1


def existing_content(path: str) -> str:
    """What is there, as the rest of ``PATH appears to contain ...``; empty when nothing is.

    Looks for super blocks and partition tables, as wipefs and blkid do.

    Raises:
        DeviceError: libblkid is missing or fails, or finds several things (an ambivalent result).
    """
    library, name = _library(path), os.path.basename(path)
    failed = DeviceError(f"{name}: probe failed, cannot detect existing filesystem")
    handle = library.blkid_new_probe_from_filename(os.fsencode(path))
    if not handle:
        raise failed
    probe = ctypes.c_void_p(handle)
    try:
        if library.blkid_probe_enable_superblocks(probe, 1) < 0 or library.blkid_probe_enable_partitions(probe, 1) < 0:
            raise failed
        result = library.blkid_do_safeprobe(probe)
        if result == _NOTHING_FOUND:
            return ""
        if result != 0:
            raise failed
        for key, what in (("TYPE", "an existing filesystem"), ("PTTYPE", "a partition table")):
            value = _lookup(library, probe, key)
            if value:
                return f"{what} ({value})"
        return "something according to blkid"
    finally:
        library.blkid_free_probe(probe)


def _library(path: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libblkid.so.1")
    except OSError:
        raise DeviceError(
            f"{os.path.basename(path)}: probe failed, cannot detect existing filesystem", hint="libblkid is missing"
        ) from None
    library.blkid_new_probe_from_filename.restype = ctypes.c_void_p
    return library


def _lookup(library: ctypes.CDLL, probe: ctypes.c_void_p, key: str) -> str:
    value = ctypes.c_char_p()
    found = library.blkid_probe_lookup_value(probe, key.encode(), ctypes.byref(value), None) == 0
    return (value.value or b"").decode("utf-8", "replace") if found else ""
