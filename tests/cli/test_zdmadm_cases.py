"""Command lines of the original zdmadm 0.125: lines, commands, exit status, and what was written."""

from __future__ import annotations

import shlex
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import BLOCK, facts
from zoned_tools.cli.changes import execute
from zoned_tools.cli.clones.zdmadm import session
from zoned_tools.cli.run import run
from zoned_tools.device import opening
from zoned_tools.device.base import Geometry
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.zones import Model, make_table
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from zoned_tools.device.base import Buffer, Device

CLI = facts("zdmadm-cli")
CREATED = ("create", "create-unaligned", "create-existing-force", "create-meta", "create-meta-mirror", "create-two")
"""Cases that write tables, half a GiB a device. Others with the same writes are dry runs: the line of the identity's
checksum proves all of it."""
CASES = {case["name"]: case for case in CLI["cases"] if "expect" in case}
FILLS = {"ff": b"\xff" * BLOCK, "bffe": b"\xfe\xbf" * (BLOCK // 2), "mark": b"\xa5" * BLOCK}


class FillStore(zx1.ExtentStore):
    """Keeps long writes of one block's content as runs: tables have half a GiB."""

    def __init__(self, extents: zx1.Extents) -> None:
        super().__init__(extents)
        self.fills: list[tuple[int, int, bytes]] = []

    def pwrite(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data)
        first, count, content = offset_bytes // BLOCK, len(view) // BLOCK, bytes(view[:BLOCK])
        if count < 64 or view[BLOCK:] != view[:-BLOCK]:
            super().pwrite(offset_bytes, data)
            return
        self.fills.append((first, count, content))
        self.changed = {b: c for b, c in self.changed.items() if not first <= b < first + count}

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        super().read_into(offset_bytes, buffer)
        first, end = offset_bytes // BLOCK, -(-(offset_bytes + len(buffer)) // BLOCK)
        for start, count, content in self.fills:
            low, high = max(start, first), min(start + count, end)
            if low < high:
                kept = {b: self.changed[b] for b in range(low, high) if b in self.changed}
                part = b"".join(kept.get(b, content) for b in range(low, high)) if kept else content * (high - low)
                at = low * BLOCK - offset_bytes
                inside = part[max(-at, 0) :][: len(buffer) - max(at, 0)]
                buffer[max(at, 0) : max(at, 0) + len(inside)] = inside

    @property
    def written(self) -> set[int]:
        return set(self.changed) | {b for start, count, _ in self.fills for b in range(start, start + count)}


class Drive(EmulatedDrive):
    """A drive of a case; it lives on when it is closed."""

    def __init__(self, path: str, facts: dict[str, Any]) -> None:
        size = facts["zones"] << 28
        extents, literal = [], b""
        before = facts.get("before", {})
        start = facts["start_sector"] // 8
        pieces = [(start + b, n, FILLS[fill]) for b, n, fill in before.get("tables", [])]
        pieces += [(start + b, 1, FILLS["mark"]) for b in before.get("marks", [])]
        if "identity" in before:
            pieces.append((start, 1, bytes.fromhex(before["identity"]).ljust(BLOCK, b"\0")))
        for block, count, content in sorted(pieces):
            if content == FILLS["ff"]:
                extents.append(b"%d %d F ff" % (block, count))
            else:
                extents.append(b"%d %d D" % (block, count))
                literal += content * count
        head = b"\n".join([b"ZX1 %d %d" % (size, len(extents)), *extents, b""])
        self.content = FillStore(zx1.Extents(head + literal))
        zoned = facts.get("zoned", True)
        table = make_table(size // 512, 1 << 19, nr_conventional=7) if zoned else no_zones()
        model = Model.HOST_MANAGED if zoned else Model.REGULAR
        geometry = Geometry(model, size, (1 << 28) * zoned, facts["zones"] * zoned, 4096, 4096, 4096)
        super().__init__(path, geometry, table, self.content, writable=True)
        self.start_block = start

    def close(self) -> None:
        pass

    def blocks(self, first: int, count: int) -> bytes:
        return self.read((self.start_block + first) * BLOCK, count * BLOCK)


def assert_written(drive: Drive, expected: dict[str, Any], *, masked: bool) -> None:
    """The drive holds what is expected, and nothing else changed."""
    touched = set()
    if "identity" in expected:
        identity = bytes.fromhex(expected["identity"]).ljust(BLOCK, b"\0")
        found = bytearray(drive.blocks(0, 1))
        if masked:
            found[:4], found[24:40] = identity[:4], identity[24:40]
        assert found == identity
        touched.add(0)
    for first, count, fill in expected.get("tables", []):
        assert drive.blocks(first, count) == FILLS[fill] * count
        touched.update(range(first, first + count))
    if "zero_blocks" in expected:
        first, count = expected["zero_blocks"]
        assert not any(drive.blocks(first, count))
        touched.update(range(first, first + count))
    assert {block - drive.start_block for block in drive.content.written} <= touched


def assert_lines(found: list[str], expected: list[Any]) -> None:
    """Line by line; commands as a shell reads them, their table without regard to blanks, and any line for None."""
    for number, line in enumerate(expected):
        if line is None:
            continue
        if line == "{usage}":
            assert len(found) > number
            return
        if isinstance(line, dict):
            assert [" ".join(word.split()) for word in shlex.split(found[number])] == line["cmd"], number
        else:
            assert found[number] == line
    assert len(found) == len(expected)


@pytest.mark.parametrize("name", CASES)
def test_command_line(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    drives = {key: Drive(f"/v/{key}", facts) for key, facts in case["devices"].items()}
    by_path = {drive.path: drive for drive in drives.values()}

    def open_device(path: str, *, writable: bool = False) -> Device:
        if path not in by_path:
            raise DeviceError("cannot open: No such file or directory", device=path)
        return by_path[path]

    def filled(text: str) -> str:
        for key, drive in drives.items():
            text = text.replace(f"{{{key}}}", drive.path).replace(f"{{{key}.name}}", key)
        return text

    monkeypatch.setattr(opening, "open_device", open_device)
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(CLI["uuid"]))
    monkeypatch.setattr(session, "execute", partial(execute, no_undo=True))
    first = case["devices"]["A"]
    place = [] if first.get("whole") else ["--start", str(first["start_sector"])]
    dry = name not in CREATED and any("tables" in writes for writes in case["expect"]["writes"].values())
    status = run("zdmadm", [*place, *(["--dry-run"] if dry else []), *(filled(word) for word in case["args"])])
    captured = capsys.readouterr()
    expected = case["expect"]
    random = ("crc  ", "uuid ") if expected.get("mask") else ()
    assert_lines(
        captured.out.splitlines(),
        [
            {"cmd": [filled(word) for word in line["cmd"]]}
            if isinstance(line, dict)
            else None
            if line.startswith(random)
            else filled(line)
            for line in expected["stdout"]
        ],
    )
    assert status == expected["exit"]
    assert status == 0 or captured.err.startswith("zdmadm: ") or name == "usage-h"
    for key, drive in drives.items():
        assert_written(drive, {} if dry else expected["writes"].get(key, {}), masked=bool(random))
