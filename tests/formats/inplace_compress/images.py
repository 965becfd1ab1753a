"""The published images and contents, and devices in memory, for the inplace-compress tests."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoned_tools.device.base import Device
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import apply_plan
from zoned_tools.formats.contract import CheckOptions, Consents, Journey, RepairPlan, Settings, Target
from zoned_tools.formats.inplace_compress import LAYOUT
from zoned_tools.formats.inplace_compress.check import InplaceEvidence, check
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.extents import scan
from zoned_tools.formats.inplace_compress.format import plan_volume
from zoned_tools.formats.inplace_compress.mapper.open import InplaceMapper, open_mapper
from zoned_tools.formats.inplace_compress.open import open_volume
from zoned_tools.formats.inplace_compress.payload import spans
from zoned_tools.formats.inplace_compress.repair_plan import plan_repair
from zoned_tools.formats.inplace_compress.table import table_line

VECTORS = Path(__file__).parents[2] / "vectors" / "inplace-compress"
EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_text())
CORRUPT: dict[str, Any] = json.loads((VECTORS / "corrupt.json").read_text())
CODECS: dict[str, Any] = json.loads((VECTORS / "codecs.json").read_text())

_WORD_LIST = (
    "zone sector write pointer block mapper extent head tail payload bitmap flush device sequential conventional reset "
    "finish open close log ring super"
)
_WORDS = _WORD_LIST.split()


def image_bytes(name: str) -> bytes:
    return lzma.decompress((VECTORS / "images" / f"{name}.img.xz").read_bytes())


def corrupt_bytes(name: str) -> bytes:
    case = CORRUPT[name]
    raw = bytearray(image_bytes(case["base"]))
    for offset, patch in case["patches"]:
        raw[offset : offset + len(patch) // 2] = bytes.fromhex(patch)
    return bytes(raw[: case.get("truncate_to", len(raw))])


def in_memory(folder: Path, content: bytes | int) -> Device:
    """A regular device whose changes stay in memory: ``content``, or that many zero bytes."""
    path = folder / "base.img"
    with path.open("wb") as file:
        file.truncate(content) if isinstance(content, int) else file.write(content)
    return Overlay(open_image(str(path)))


def patch(device: Device, offset_bytes: int, content: bytes) -> None:
    """Change bytes inside one sector."""
    start = offset_bytes // 512 * 512
    sector = bytearray(device.read(start, 512))
    sector[offset_bytes - start : offset_bytes - start + len(content)] = content
    device.write(start, bytes(sector))


def target_of(device: Device) -> Target:
    return Target("inplace-compress", (device,))


def new_volume(folder: Path, size_bytes: int, compressor: Compressor, **choices: int) -> Device:
    device = in_memory(folder, size_bytes)
    apply_plan([device], plan_volume(device, compressor=compressor, **choices).steps)
    return device


def settings_of(journey: Journey, values: Mapping[str, str] | None = None) -> Settings:
    return LAYOUT.parse_settings(values or {}, journey)


def check_device(device: Device, settings: Mapping[str, str] | None = None, *, deep: bool = False) -> InplaceEvidence:
    return check(target_of(device), CheckOptions(deep, settings_of(Journey.CHECK, settings)))


def plan_for(evidence: InplaceEvidence, settings: Mapping[str, str] | None = None, *allow: str) -> RepairPlan:
    return plan_repair(evidence, Consents(frozenset(allow), settings_of(Journey.REPAIR, settings)))


def line_of(device: Device, settings: Mapping[str, str] | None = None) -> str:
    return table_line(target_of(device), settings_of(Journey.TABLE, settings)).line


def mapper_of(device: Device, *, writable: bool = False, **settings: str) -> InplaceMapper:
    return open_mapper(target_of(device), writable=writable, settings=settings_of(Journey.LOGICAL, settings))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def everything(device: Device, **settings: str) -> bytes:
    mapper = mapper_of(device, writable=False, **settings)
    return mapper.read(0, mapper.size_blocks)


def extents_of(device: Device) -> list[list[object]]:
    """As in expected.json without the CRC: block, blocks, payload sectors, raw or comp, stream length."""
    volume = open_volume(device)
    rows: list[list[object]] = []
    for extents in scan(volume.entry_chunks()):
        for span in spans(volume, extents.select(extents.payload > 0)):
            for index in range(len(span.extents)):
                row = [int(a[index]) for a in (span.extents.head, span.extents.blocks, span.extents.payload)]
                raw = row[2] == 8 * row[1]
                rows.append([*row, *(("raw", None) if raw else ("comp", int(span.stream_bytes[index])))])
    return sorted(rows)


def stream(seed: str, length: int) -> bytes:
    count = -(-length // 32)
    return b"".join(hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in range(count))[:length]


def text(seed: str, length: int) -> bytes:
    random = stream("t" + seed, length // 2 + 64)
    words: list[str] = []
    done = number = 0
    while done < length:
        words.append(_WORDS[random[number % len(random)] % len(_WORDS)])
        done += len(words[-1]) + 1
        number += 1
    return (" ".join(words) + " ").encode()[:length]


def content(spec: str, length: int) -> bytes:
    """What a content specification of the vectors means; ``length`` is a multiple of 4096 (or any, for one block)."""
    kind, *rest = spec.split(":")
    blocks = range(length // 4096)
    if kind == "zero":
        return bytes(length)
    if kind == "fill":
        return bytes([int(rest[0], 0)]) * length
    if kind == "rand":
        return stream("r" + rest[0], length)
    if kind == "text":
        return text(rest[0], length)
    if kind == "mix":
        return b"".join(stream(f"m{rest[0]}.{i}", int(rest[1])).ljust(4096, b"\0") for i in blocks)
    if kind == "rt":
        seed, random, words = rest[0], int(rest[1]), int(rest[2])
        pieces = (stream(f"m{seed}.{i}", random) + text(f"{seed}.{i}", words) for i in blocks)
        return b"".join(piece.ljust(4096, b"\0") for piece in pieces)
    if kind == "head":
        return stream("h" + rest[0], int(rest[1])).ljust(length, b"\0")
    assert kind == "count"
    return b"".join((int(rest[0]) + i & 0xFFFFFFFF).to_bytes(4, "little") for i in range(length // 4))


def codec_input(case: dict[str, Any]) -> bytes:
    given = case["input"]
    return bytes.fromhex(given["hex"]) if "hex" in given else content(given["gen"], given["bytes"])
