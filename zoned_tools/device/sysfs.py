"""What sysfs says about block devices: queue attributes, names, holders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSFS = Path("/sys")


def read_attribute(path: Path) -> str:
    """A sysfs attribute without its newline, empty when it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError:
        return ""


class Queue:
    """Attributes of ``queue/``, each read once, when first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, str] = {}

    def text(self, key: str, default: str = "") -> str:
        """An attribute, ``default`` when it is missing."""
        if key not in self._known:
            self._known[key] = read_attribute(self._directory / key)
        return self._known[key] or default

    def number(self, key: str) -> int:
        """A numeric attribute, 0 when it is missing."""
        text = self.text(key)
        return int(text) if text.isdigit() else 0


@dataclass(frozen=True, slots=True)
class BlockSysfs:
    """One block device under ``/sys/block`` (for a partition: under its parent)."""

    directory: Path

    @classmethod
    def of_device_number(cls, rdev: int) -> BlockSysfs:
        link = SYSFS / "dev" / "block" / f"{os.major(rdev)}:{os.minor(rdev)}"
        return cls(link.resolve())

    @classmethod
    def all_disks(cls) -> Iterator[BlockSysfs]:
        """Every whole disk of the machine, in name order."""
        root = SYSFS / "block"
        if root.is_dir():
            for entry in sorted(root.iterdir(), key=lambda p: p.name):
                yield cls(entry.resolve())

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def is_partition(self) -> bool:
        return (self.directory / "partition").exists()

    @property
    def whole_disk(self) -> Path:
        return self.directory.parent if self.is_partition else self.directory

    @property
    def queue(self) -> Queue:
        """Partitions share their parent's queue."""
        return Queue(self.whole_disk / "queue")

    @property
    def vendor_text(self) -> str:
        """``"vendor model revision"`` as libzbd builds it, ``"Unknown"`` when sysfs has none of them."""
        device = self.whole_disk / "device"
        vendor, model = (read_attribute(device / key).strip() for key in ("vendor", "model"))
        revision = read_attribute(device / "rev").strip()
        if not vendor and not model:
            return "Unknown"
        words = [word + " " for word in (vendor, model) if word]
        return "".join(words) + revision

    @property
    def is_drive_managed(self) -> bool:
        """True when a SCSI or ATA drive says that it hides its zones.

        The field ZONED of VPD page B1h (SBC-4; ``sd_read_block_characteristics`` in ``drivers/scsi/sd.c``) is 2 then.
        """
        try:
            page = (self.whole_disk / "device" / "vpd_pgb1").read_bytes()
        except OSError:
            return False
        return len(page) > 8 and page[8] >> 4 & 3 == 2

    @property
    def holders(self) -> list[str]:
        """Kernel names of the devices stacked on this one."""
        try:
            return sorted(os.listdir(self.directory / "holders"))
        except OSError:
            return []

    @property
    def mapper_name(self) -> str:
        """Device-mapper name, empty for other devices."""
        return read_attribute(self.directory / "dm" / "name")
