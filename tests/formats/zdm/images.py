"""What the tests of this format share."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.formats.zdm import zx1
from zoned_tools.device.base import Geometry as DriveGeometry
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.zones import Model, make_table
from zoned_tools.errors import ZonedError
from zoned_tools.formats.contract import CheckOptions, Consents, Evidence, RepairPlan, Settings, Severity, Target
from zoned_tools.formats.zdm.check import check
from zoned_tools.formats.zdm.mapper.open import open_mapper
from zoned_tools.formats.zdm.mapper.read import ZdmReader
from zoned_tools.formats.zdm.mapper.write import ZdmMapper
from zoned_tools.formats.zdm.open import load
from zoned_tools.formats.zdm.repair_plan import plan_repair

if TYPE_CHECKING:
    from zoned_tools.device.base import Device

FOLDER = Path(__file__).parents[2] / "vectors" / "zdm"
IMAGES = sorted(path.name.removesuffix(".zx.xz") for path in FOLDER.glob("*.zx.xz"))
POPULATED = [name for name in IMAGES if not name.startswith("fmt-")]
OLD = [name for name in IMAGES if name.startswith("old-")]
BLOCK = 4096
START = 524288


@cache
def facts(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Corruption cases, each with a name that is unique over both files."""
    return [
        (f"{name}:{case['name']}", case)
        for name in ("corrupt-clean", "corrupt-journal")
        for case in facts(name)["cases"]
    ]


def target(device: Device, start_sector: int = START) -> Target:
    return Target("zdm", (device,), start_sector * 512)


def counts(evidence: Evidence, *, notes: bool = True) -> dict[str, int]:
    """Occurrences of each code; zero-filled by Counter."""
    found: Counter[str] = Counter()
    for finding in evidence.findings:
        if notes or finding.severity is not Severity.INFO:
            found[finding.code] += int(str(finding.where["count"]))
    return dict(found)


def check_counts(device: Device, start_sector: int = START, *, notes: bool = True) -> dict[str, int]:
    return counts(check(target(device, start_sector), CheckOptions()), notes=notes)


def errors(device: Device, start_sector: int = START) -> list[str]:
    evidence = check(target(device, start_sector), CheckOptions())
    return [f"{f.code}: {f.message}" for f in evidence.findings if f.severity is Severity.ERROR]


def planned(device: Device, start_sector: int = START, allow: frozenset[str] = frozenset()) -> RepairPlan:
    """Check, and plan the repair with the consent ``allow``."""
    return plan_repair(check(target(device, start_sector), CheckOptions()), Consents(allow))


def reader(device: Device, start_sector: int = START) -> ZdmReader:
    return open_mapper(target(device, start_sector), writable=False, settings=Settings())


def writer(device: Device, start_sector: int = START) -> ZdmMapper:
    mapper = open_mapper(target(device, start_sector), writable=True, settings=Settings())
    assert isinstance(mapper, ZdmMapper)
    return mapper


def digests(device: Device, start_sector: int = START) -> tuple[int, str, str]:
    """Mapped blocks, SHA-256 of content, SHA-256 of the map, also of what no mapper opens.

    References outside the drive count as empty content, as in the vectors.
    """
    state = load(target(device, start_sector))
    content, places, number = hashlib.sha256(), hashlib.sha256(), 0
    for logical, blocks, physical, _ in ZdmReader(state).map.runs(0, state.logical_blocks):
        if physical < 0:
            continue
        number += blocks
        for index in range(blocks):
            places.update(struct.pack("<QQ", logical + index, physical + index))
            try:
                data = state.volume.read(physical + index)
            except ZonedError:
                data = b""
            content.update(struct.pack("<Q", logical + index) + data)
    return number, content.hexdigest(), places.hexdigest()


def nonzero_digest(mapper: ZdmReader) -> tuple[int, str]:
    """Count and SHA-256 of the logical blocks that are not zero."""
    digest, number = hashlib.sha256(), 0
    for extent in mapper.lookup(0, mapper.size_blocks):
        if extent.physical_block is None:
            continue
        data = mapper.read(extent.logical_block, extent.blocks)
        for index in range(extent.blocks):
            block = data[index * BLOCK : (index + 1) * BLOCK]
            if any(block):
                number += 1
                digest.update(struct.pack("<Q", extent.logical_block + index) + block)
    return number, digest.hexdigest()


def written_block(logical: int, sequence: int) -> bytes:
    """What the vectors' workloads write."""
    block = bytearray([sequence & 0xFF]) * BLOCK
    text = b"zdm lblk=%010d seq=%08d\n\0" % (logical, sequence)
    block[: len(text)] = text
    return bytes(block)


def case_drive(file: str, name: str) -> zx1.VectorDrive:
    """A corruption case by the name of its file and its own."""
    case = next(c for c in facts(file)["cases"] if c["name"] == name)
    return zx1.open_case(FOLDER, case["base"], case)


def tight_drive() -> zx1.VectorDrive:
    """pop-clean with nearly full zones, so that streams run out of zones."""
    drive = zx1.open_vector(FOLDER, "pop-clean")
    table = drive.zones()
    for zone in range(5, 13):
        table["wp_sector"][zone] = table["start_sector"][zone] + (65536 - 60) * 8
        table["condition"][zone] = 4
    return zx1.VectorDrive("tight", drive.geometry, table, drive.store, writable=True)


def drive_of(
    zones: int, conventional: int, zone_bytes: int = 1 << 28, model: Model = Model.HOST_MANAGED
) -> EmulatedDrive:
    """An empty drive."""
    size = zones * zone_bytes
    table = make_table(size // 512, zone_bytes // 512, nr_conventional=conventional)
    geometry = DriveGeometry(model, size, zone_bytes, zones, 4096, 4096, 4096)
    return EmulatedDrive("drive", geometry, table, zx1.ExtentStore(zx1.Extents(b"ZX1 %d 0\n" % size)), writable=True)
