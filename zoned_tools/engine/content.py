"""What is on a device before something new is written over it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from zoned_tools.device.partition import partition_starts
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.engine.opening import probe_device
from zoned_tools.errors import ContentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.base import Device

_BLKID_TIMEOUT_SECONDS = 60
_BLKID_AMBIVALENT = 8


def refuse_content(
    device: Device, start_sector: int | None = None, *, hint: str = "use the --force option to overwrite"
) -> None:
    """Refuse a device that holds a layout of ours, or something that blkid knows.

    blkid is asked where it is installed; without it partition tables are still found.

    Args:
        start_sector: something new is to begin there, behind a partition table that stays: refused is what begins
            there, too, and what has the whole device.

    Raises:
        ContentError: there is something.
    """
    starts = [None] if start_sector is None else list(dict.fromkeys((0, start_sector)))
    for start in starts:
        probed = probe_device(device, start)
        if probed.identity is not None:
            raise _content(device, f"filesystem ({probed.identity.layout})", hint)
        facts = blkid_facts(device.path, (start or 0) * SECTOR_BYTES)
        if "TYPE" in facts:
            raise _content(device, f"filesystem ({facts['TYPE']})", hint)
        if "AMBIVALENT" in facts:
            raise ContentError("appears to contain something according to blkid", device=device.path, hint=hint)
    if start_sector:
        return
    if "PTTYPE" in facts:
        raise _content(device, f"partition table ({facts['PTTYPE']})", hint)
    if partition_starts(device):
        raise _content(device, "partition table", hint)


def _content(device: Device, what: str, hint: str) -> ContentError:
    kind, _, name = what.partition(" (")
    text = f"an existing {kind}" if kind == "filesystem" else f"a {kind}"
    return ContentError(f"appears to contain {text}{f' ({name}' if name else ''}", device=device.path, hint=hint)


def blkid_facts(path: str, offset_bytes: int = 0) -> Mapping[str, str]:
    """blkid's low-level probe at an offset: its ``KEY=value`` pairs, ``AMBIVALENT`` when it found several things."""
    program = shutil.which("blkid", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        return {}
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, and the path is one argument
            [program, "-p", "-O", str(offset_bytes), "-o", "export", "--", path],
            capture_output=True,
            timeout=_BLKID_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if done.returncode == _BLKID_AMBIVALENT:
        return {"AMBIVALENT": "1"}
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
