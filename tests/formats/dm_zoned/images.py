"""Images of the dm-zoned vectors, and fresh drives in memory, for the tests of this folder."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from zoned_tools.device.base import Device, Geometry, ZoneOperation
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.zones import Model, ZoneTable, ZoneType, make_table
from zoned_tools.formats.contract import CheckOptions, Journey, Target
from zoned_tools.formats.dm_zoned import LAYOUT
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, check
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.layout import UNMAPPED
from zoned_tools.formats.dm_zoned.open import SetView, open_blocks, read_map

VECTORS = Path(__file__).parents[2] / "vectors" / "dm-zoned"
NAMES = ("hm64x1", "hm64x4", "hm300x1", "hm6x256", "dual", "triple", "ha32x4", "v1", "v1runt")
BLOCK = 4096
MIB = 1 << 20


def facts(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return document


class Images:
    """Unpacks each archive once, and opens copy-on-write views of the images."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[Path, Device] = {}

    def paths(self, name: str, state: str) -> list[Path]:
        folder = self._folder / name
        if not folder.exists():
            with tarfile.open(VECTORS / f"{name}.tar.xz") as archive:
                archive.extractall(folder, filter="data")
        return [folder / file for file in facts(name)["images"][state]["files"]]

    def target(self, name: str, state: str = "clean") -> Target:
        """A writable view; writes stay in memory and end with it."""
        devices = []
        for path in self.paths(name, state):
            if path not in self._open:
                self._open[path] = open_image(str(path))
            devices.append(Overlay(self._open[path]))
        return Target("dm-zoned", tuple(devices))

    def close(self) -> None:
        for device in self._open.values():
            device.close()


class MemoryStore:
    """Bytes of a drive in memory, in pages; nothing is durable."""

    def __init__(self) -> None:
        self._pages: dict[int, bytes] = {}

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        first, last = offset_bytes // BLOCK, (offset_bytes + len(buffer) - 1) // BLOCK
        zero = bytes(BLOCK)
        content = b"".join(self._pages.get(page, zero) for page in range(first, last + 1))
        skip = offset_bytes - first * BLOCK
        buffer[:] = content[skip : skip + len(buffer)]

    def pwrite(self, offset_bytes: int, data: Any) -> None:
        view = memoryview(data)
        first, last = offset_bytes // BLOCK, (offset_bytes + len(view) - 1) // BLOCK
        content = bytearray((last - first + 1) * BLOCK)
        self.read_into(first * BLOCK, memoryview(content))
        skip = offset_bytes - first * BLOCK
        content[skip : skip + len(view)] = view
        for page in range(first, last + 1):
            self._pages[page] = bytes(content[(page - first) * BLOCK : (page - first + 1) * BLOCK])

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        end = offset_bytes + length_bytes
        for page in [p for p in self._pages if offset_bytes <= p * BLOCK and (p + 1) * BLOCK <= end]:
            del self._pages[page]

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Any:
        yield offset_bytes, length_bytes

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        pass

    def close(self) -> None:
        pass


def drive(
    zones: int,
    conventional: int,
    zone_bytes: int = MIB,
    *,
    runt_bytes: int = 0,
    model: Model = Model.HOST_MANAGED,
    table: ZoneTable | None = None,
) -> EmulatedDrive:
    """An empty zoned drive in memory; ``runt_bytes`` is the length of one more zone."""
    size = zones * zone_bytes + runt_bytes
    kind = ZoneType.SEQ_PREFERRED if model is Model.HOST_AWARE else ZoneType.SEQ_REQUIRED
    if table is None:
        table = make_table(size // 512, zone_bytes // 512, nr_conventional=conventional, sequential_type=kind)
    geometry = Geometry(model, size, zone_bytes, len(table))
    return EmulatedDrive("drive", geometry, table, MemoryStore(), writable=True)


def regular(size_bytes: int) -> EmulatedDrive:
    """An empty regular device in memory."""
    return EmulatedDrive("regular", Geometry(Model.REGULAR, size_bytes), no_zones(), MemoryStore(), writable=True)


def patch(device: Device, offset_bytes: int, data: bytes) -> None:
    """Overwrite bytes in conventional zones; a written sequential zone is reset and rewritten."""
    first = offset_bytes // BLOCK * BLOCK
    end = -(-(offset_bytes + len(data)) // BLOCK) * BLOCK
    content = bytearray(device.read(first, end - first))
    content[offset_bytes - first : offset_bytes - first + len(data)] = data
    geometry = device.geometry
    if geometry.is_zoned:
        zone = geometry.zone_of(first)
        row = device.zones(zone, 1)[0]
        if row["type"] != ZoneType.CONVENTIONAL:
            start = zone * geometry.zone_bytes
            written = int(row["wp_sector"]) * 512 - start
            whole = bytearray(device.read(start, written))
            whole[first - start : end - start] = content
            device.manage(ZoneOperation.RESET, zone)
            device.write(start, bytes(whole))
            return
    device.write(first, bytes(content))


def pattern(block: int, seed: int) -> bytes:
    """What the vectors' writers put into block ``block``."""
    return (block.to_bytes(8, "little") + seed.to_bytes(8, "little")) * 256


def run_zone_operation(device: Device, operation: list[Any]) -> None:
    """One element of a corruption's ``zone_ops``."""
    zone_bytes = device.geometry.zone_bytes
    match operation:
        case ["reset", zone]:
            device.manage(ZoneOperation.RESET, zone)
        case ["finish", zone]:
            device.manage(ZoneOperation.FINISH, zone)
        case ["append", zone, count, seed]:
            block = int(device.zones(zone, 1)["wp_sector"][0]) * 512 // BLOCK
            device.write(block * BLOCK, b"".join(pattern(block + i, seed) for i in range(count)))
        case ["copyblocks", source, destination, offsets]:
            for offset in offsets:
                data = device.read(source * zone_bytes + offset * BLOCK, BLOCK)
                device.write(destination * zone_bytes + offset * BLOCK, data)
        case _:
            raise AssertionError(operation)


def corruptions() -> list[tuple[str, dict[str, Any]]]:
    """``(base image, variant)`` of all published corruptions."""
    found = []
    for file in ("corruptions-hm64x1.json", "corruptions-dual.json"):
        document = json.loads((VECTORS / file).read_text())
        found += [(document["base"], variant) for variant in document["variants"]]
    return found


def corrupted(images: Images, base: str, variant: dict[str, Any]) -> Target:
    """The clean image of ``base`` with a variant's damage."""
    target = images.target(base)
    for change in variant["patches"]:
        index, offset, data = change if len(change) == 3 else (0, *change)
        patch(target.devices[index], offset, bytes.fromhex(data))
    for operation in variant.get("zone_ops", []):
        run_zone_operation(target.device, operation)
    return target


def check_target(target: Target, **settings: str) -> DmZonedEvidence:
    """Check with settings of the check, as a user spells them."""
    return check(target, CheckOptions(settings=LAYOUT.parse_settings(settings, Journey.CHECK)))


def logical_content(target: Target, number: int | None = None) -> bytes:
    """The whole logical device, by the rules of the kernel target's read path.

    Slow and simple on purpose: an oracle that shares only the reading of the tables.
    """
    state = read_state(open_blocks(target), number)
    assert state.layout is not None
    assert state.chosen is not None
    geometry, zone_blocks = state.geometry, state.geometry.zone_blocks
    table = read_map(state.blocks, state.layout, state.chosen)[: state.layout.nr_chunks]
    whole = []
    for data, buffer in table.tolist():
        chunk = bytearray(zone_blocks * BLOCK)
        for zone, is_data in ((buffer, False), (data, True)):  # the data zone wins
            if data == UNMAPPED or zone == UNMAPPED or zone >= geometry.nr_zones:
                continue
            words = SetView(state.blocks, state.layout, state.chosen).rows(np.array([zone]))[0]
            valid = np.unpackbits(words.view(np.uint8), bitorder="little")[:zone_blocks]
            wp = int(geometry.wp_blocks[zone])
            if is_data and wp >= 0:
                valid[wp:] = 0
            content = state.blocks.read(zone * zone_blocks, zone_blocks) if valid.any() else b""
            for block in np.flatnonzero(valid).tolist():
                chunk[block * BLOCK : (block + 1) * BLOCK] = content[block * BLOCK : (block + 1) * BLOCK]
        whole.append(bytes(chunk))
    return b"".join(whole)


def logical_sha256(target: Target) -> str:
    return hashlib.sha256(logical_content(target)).hexdigest()
