"""Undo files: what a plan is about to overwrite, saved and synced before its first write.

Ranges in conventional zones and on regular devices are saved as they are. Of a sequential
zone that the plan touches everything below the write pointer is saved, because going back
means to reset it and write it again. The file's format is in
:mod:`zoned_tools.device.undo_format`; which files there are is known to
:mod:`zoned_tools.device.undo_files`.

An undo file never says where to write: devices come from the caller and have to be those
that it was saved from. Everything in it is validated before the first step.
"""

from __future__ import annotations

import errno
import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.base import ClosesOnExit, ZoneOperation
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.plan import Fill, Flush, ManageZones, Step, Write, ZoneFlags
from zoned_tools.device.undo_check import check_structure, check_sums, read_zone_tables, refuse_other_devices
from zoned_tools.device.undo_format import (
    BAD_ARCHIVE,
    HEADER_NAME,
    MAX_FIRST_WRITTEN_BYTES,
    PIECES,
    SCHEMA,
    TOUCHED,
    WRITTEN,
    Content,
    Records,
    open_archive,
    pieces_of_first_version,
    read_header,
    read_table,
)
from zoned_tools.device.undo_save import save_undo, sequential_zones
from zoned_tools.device.zones import ZoneCondition, ZoneTable
from zoned_tools.errors import DeviceError, MetadataError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Device

__all__ = ["UndoFile", "save_undo"]

_ROWS = 1 << 16
"""Records that are Python objects at a time."""


class UndoFile(ClosesOnExit):
    """An undo file opened for playing back.

    Attributes:
        title: of the plan that it undoes.
        identity: what was on the devices before (layout and uuid).
        identity_after: what the plan put there, where it changed that.
        created: when it was saved, ISO 8601 in UTC; empty in files of the first version.
        paths: the devices as they were named; to be shown, never to be written to.

    Raises:
        DeviceError: it cannot be read.
        MetadataError: it is not an undo file, or a damaged one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with ExitStack() as stack:
            try:
                file = stack.enter_context(open(path, "rb"))
            except OSError as error:
                raise DeviceError.from_os_error(error, path, "cannot open") from None
            try:
                self._header = read_header(file)
                self._archive = stack.enter_context(open_archive(file))
                self._read_tables()
            except OSError as error:  # a damaged place in the file is what cannot be sought
                if error.errno != errno.EINVAL:
                    raise DeviceError.from_os_error(error, path, "cannot read") from None
                raise MetadataError("not an undo file, or a damaged one", device=path) from error
            except BAD_ARCHIVE as error:
                raise MetadataError("not an undo file, or a damaged one", device=path) from error
            self._stack = stack.pop_all()
        self.title, self.created = self._header.title, self._header.created
        self.identity, self.identity_after = self._header.identity, self._header.identity_after
        self.paths = [device.path for device in self._header.devices]
        self._tables: dict[int, ZoneTable] | None = None

    def _read_tables(self) -> None:
        """Everything but the content; members of other names are not there."""
        archive, first = self._archive, self._header.schema != SCHEMA
        names = archive.namelist()
        self._written = read_table(archive, "written", WRITTEN, MAX_FIRST_WRITTEN_BYTES if first else 0)
        if first:
            self._pieces, self._members = pieces_of_first_version(archive)
            self._touched = np.array(list(self._header.touched), TOUCHED)
        else:
            self._pieces = read_table(archive, "pieces", PIECES)
            self._touched = read_table(archive, "touched", TOUCHED)
            self._members = [f"data/{n}" for n in range(sum(name.startswith("data/") for name in names))]
        tables = {"written", HEADER_NAME} | (set() if first else {"pieces", "touched"})
        zones = {f"zones/{n}" for n in range(len(self._header.devices))} & set(names)
        empty = {name for name in names if first and name.startswith("data/")}
        if sorted(tables | zones | set(self._members) | empty) != sorted(names):
            raise ValueError("other members")

    def views(self, devices: Sequence[Device]) -> list[Device]:
        """The devices, opened whole, as the plan saw them: of some it changed a partition only.

        Raises:
            RefusedError: other devices.
        """
        saved = self._header.devices
        if len(devices) != len(saved):
            raise RefusedError(f"the undo file is for {len(saved)} devices", device=self.path)
        return [self._view(*pair) for pair in zip(devices, ((s.start_bytes, s.size_bytes) for s in saved), strict=True)]

    def _view(self, device: Device, place: tuple[int, int]) -> Device:
        start, size = place
        if not start:
            return device
        try:
            return PartitionView(device, start, start + size)
        except DeviceError as error:
            raise RefusedError(
                f"not the device that {self.path} was saved from: {error.message}", device=device.path
            ) from None

    def check(self, devices: Sequence[Device], *, force: bool = False, identity: str = "") -> None:
        """Validate the whole file against these devices; nothing is played back without it.

        Args:
            identity: what is on the devices now (layout and uuid), as far as it is known.
            force: accept another identity, a drive of another size or model as far as every
                place is on it, and content that somebody else wrote since.

        Raises:
            MetadataError: the file is damaged, whatever ``force`` says.
            RefusedError: other devices, or something else wrote where the plan wrote.
        """
        if len(devices) != len(self._header.devices):
            raise RefusedError(f"the undo file is for {len(self._header.devices)} devices", device=self.path)
        tables = read_zone_tables(self.path, self._archive, devices)
        if not force:
            refuse_other_devices(self.path, self._header, devices, tables)
            self._refuse_other_identity(devices, identity)
        check_structure(
            self.path,
            self._archive,
            self._header,
            self._pieces,
            self._members,
            self._touched,
            self._written,
            devices,
            tables,
        )
        check_sums(self.path, self._archive)
        if not force:
            self._refuse_newer_content(devices)
        self._tables = tables

    def _refuse_other_identity(self, devices: Sequence[Device], identity: str) -> None:
        known = {self.identity, self.identity_after} - {""}
        if identity and known and identity not in known:
            raise RefusedError(
                f"it holds {identity}, {self.path} was saved from {self.identity or self.identity_after}",
                device=devices[0].path,
                hint="--force plays it back all the same",
            )

    def _refuse_newer_content(self, devices: Sequence[Device]) -> None:
        """Every place holds what was saved, or what the plan wrote (it may have been cut short)."""
        places = ["device", "offset_bytes", "length_bytes"]
        written = self._written[np.lexsort([self._written[name] for name in reversed(places)])]
        old = _OldContent(Content(self.path, self._archive, self._pieces, self._members))
        for (number, offset, length), digests in _places(written):
            device = devices[number]
            if next(sequential_zones(device, offset, length), None) is not None:
                continue
            now = device.read(offset, length)
            if now != old.read(number, offset, length) and hashlib.sha256(now).digest() not in digests:
                raise RefusedError(
                    f"byte {offset} was changed after the undo file was saved",
                    device=device.path,
                    hint="--force overwrites it",
                )

    def steps(self, devices: Sequence[Device]) -> Iterator[Step]:
        """The changes that bring the devices back, in order; data are read as they are needed.

        What :meth:`check` has not accepted is checked first.
        """
        if self._tables is None:
            self.check(devices, force=True)
        assert self._tables is not None
        tables = self._tables
        zones = [(int(row["device"]), int(row["zone"])) for row in np.sort(self._touched)]
        for number, zone in zones:
            if devices[number].zones(zone, 1)["condition"][0] != ZoneCondition.EMPTY:
                yield ManageZones(number, ZoneOperation.RESET, zone)
        for number in range(len(devices)):
            yield Flush(number)
        finished = {
            (number, zone) for number, zone in zones if devices[number].emulated and _was_finished(tables[number][zone])
        }
        yield from self._restore(devices, finished)
        for number, zone in zones:
            if (number, zone) in finished:
                yield ManageZones(number, ZoneOperation.FINISH, zone)
            else:
                yield from _condition_steps(number, zone, tables[number])
            row = tables[number][zone]
            if row["non_seq"] or row["reset"]:
                yield ZoneFlags(number, zone, non_seq=bool(row["non_seq"]), reset=bool(row["reset"]))
        for number in range(len(devices)):
            yield Flush(number)

    def _restore(self, devices: Sequence[Device], finished: set[tuple[int, int]]) -> Iterator[Step]:
        """The writes. Of a finished zone the zeroes at its end are left out: they were perhaps never written."""
        content = Content(self.path, self._archive, self._pieces, self._members)
        written: dict[tuple[int, int], int] = {}
        while (piece := content.next_piece()) is not None:
            number, offset, data = piece
            geometry = devices[number].geometry
            zone = (number, geometry.zone_of(offset) if geometry.is_zoned else -1)
            if zone not in finished:
                yield Write(number, offset, data)
                continue
            unit = geometry.write_granularity_bytes
            used = -(-len(data.rstrip(b"\0")) // unit) * unit
            if used:
                at = written.get(zone, zone[1] * geometry.zone_bytes)
                if offset > at:
                    yield Fill(number, at, offset - at, 0)
                yield Write(number, offset, data[:used])
                written[zone] = offset + used

    def close(self) -> None:
        self._stack.close()


def _places(written: Records) -> Iterator[tuple[tuple[int, int, int], set[bytes]]]:
    """``((device, offset, length), digests)`` of each place in sorted records, a bounded number of them at a time."""
    place, digests = (-1, 0, 0), set[bytes]()
    for start in range(0, len(written), _ROWS):
        for number, length, offset, digest in written[start : start + _ROWS].tolist():
            if (number, offset, length) != place:
                if digests:
                    yield place, digests
                place, digests = (number, offset, length), set()
            digests.add(digest)
    if digests:
        yield place, digests


class _OldContent:
    """The saved ranges, read front to back: places are asked for in ascending order.

    A piece ends at a multiple of its size, so no block that is asked for lies across two.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._piece: tuple[int, int, bytes] = (-1, 0, b"")

    def read(self, number: int, offset_bytes: int, length_bytes: int) -> bytes:
        """The bytes that were saved there; empty when none were."""
        device, start, data = self._piece
        while (device, start + len(data)) <= (number, offset_bytes):
            following = self._content.next_piece()
            if following is None:
                return b""
            device, start, data = self._piece = following
        skip = offset_bytes - start
        return data[skip : skip + length_bytes] if device == number and skip >= 0 else b""


def _was_finished(row: np.void) -> bool:
    """Whether a full zone's write pointer is where a finish leaves it: then the end of it was perhaps never written."""
    at_end = row["wp_sector"] == row["start_sector"] + row["length_sectors"]
    return bool(row["condition"] == ZoneCondition.FULL and at_end)


def _condition_steps(number: int, zone: int, table: ZoneTable) -> Iterator[Step]:
    """Zone management that a rewritten zone still needs to be in its old condition."""
    row = table[zone]
    wanted = ZoneCondition(int(row["condition"]))
    if wanted is ZoneCondition.EXPLICIT_OPEN:
        yield ManageZones(number, ZoneOperation.OPEN, zone)
    elif wanted is ZoneCondition.CLOSED and row["wp_sector"] > row["start_sector"]:
        yield ManageZones(number, ZoneOperation.CLOSE, zone)
