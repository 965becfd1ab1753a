"""What commands over any layout print: ``zoned probe``, ``inspect``, ``map``, ``replay``, ``export``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from zoned_tools.engine.views import place_words
from zoned_tools.formats.contract import Warns
from zoned_tools.report.check import finding_lines, verdict_line
from zoned_tools.report.tree import tree_lines
from zoned_tools.text import visible
from zoned_tools.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from zoned_tools.device.base import Device
    from zoned_tools.engine.export import ExportResult
    from zoned_tools.engine.logical import MappedRun
    from zoned_tools.engine.replay import ReplayResult
    from zoned_tools.engine.scanning import ScanResult
    from zoned_tools.formats.contract import Mapper, Target
    from zoned_tools.report.documents.drives import ProbeRow
    from zoned_tools.report.documents.logical import FilledZones, ImportDocument

# -- probe


def probe_sentence(row: ProbeRow, other: str = "") -> str:
    """What is on a device; ``other``: what it holds where that is no layout."""
    drive = f"{row['model']}{', emulated' if row['emulated'] else ''}"
    if row["layout"] is None:
        return f"{row['device']}: {drive}: no known layout{f', but {other}' if other else ''}"
    parts = [f"{row['device']}: {drive}: {row['layout']}"]
    named = (("version", row["version"]), ("label", row["label"]), ("uuid", row["uuid"]))
    parts += [f"{key} {value}" for key, value in named if value]
    if row["start_sector"]:
        parts.append(f"at sector {row['start_sector']}")
    return " ".join(parts)


def probe_export_lines(rows: Iterable[ProbeRow]) -> Iterator[str]:
    """``KEY=value`` as ``blkid -o export`` prints them, an empty line between devices."""
    for number, row in enumerate(rows):
        if number:
            yield ""
        yield from _export_lines(row)


def _export_lines(row: ProbeRow) -> Iterator[str]:
    values = {
        "DEVNAME": row["device"],
        "ZONED": row["model"],
        "TYPE": row["layout"],
        "VERSION": row["version"],
        "UUID": row["uuid"],
        "LABEL": row["label"],
    }
    yield from (f"{name}={shlex.quote(visible(value))}" for name, value in values.items() if value)
    if row["start_sector"]:
        yield f"START_SECTOR={row['start_sector']}"


# -- inspect


def inspect_lines(target: Target, tree: Mapping[str, object]) -> Iterator[str]:
    """The layout's own tree below the devices' names."""
    yield f"{', '.join(target.paths)}: {target.layout}"
    yield from tree_lines(tree, indent=1)


# -- what a mapper found odd


def warning_lines(target: Target, mapper: Mapper) -> Iterator[str]:
    """What is to be said before the logical device is read."""
    for text in mapper.warnings if isinstance(mapper, Warns) else ():
        yield f"{target.device.path}: {text}"


# -- map

_MAP_ROW = "%12s %10s %14s  %-20s %s"


def map_lines(runs: Iterable[MappedRun]) -> Iterator[str]:
    """Where logical blocks live, as a table; nothing where there are none."""
    header = _MAP_ROW % ("block", "blocks", "physical block", "device", "why")
    for run in runs:
        if header:
            yield header
            header = ""
        place = "-" if run.physical_bytes is None else str(run.physical_bytes // 4096)
        extent = run.extent
        yield _MAP_ROW % (extent.logical_block, extent.blocks, place, run.device or "-", extent.why)


def owner_lines(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Whose a zone is, word by word; null is left out."""
    for row in rows:
        words = (f"{name.replace('_', ' ')} {value}" for name, value in row.items() if value is not None)
        yield ", ".join(words)


# -- replay, export


def replay_lines(target: Target, result: ReplayResult) -> Iterator[str]:
    """What a trace did to the devices, and what the last check found."""
    requests = ", ".join(f"{count} {name}" for name, count in result.requests.items() if count) or "no requests"
    device = result.device
    yield f"{', '.join(target.paths)}: {requests}"
    yield (
        f"  devices: {device.writes} writes ({device.write_bytes} bytes), {device.discards} discards, "
        f"{device.zone_commands} zone commands, {device.flushes} flushes"
    )
    for kind, count in result.free_zones.items():
        yield f"  free {kind} zones: {count}"
    if result.crashed:
        yield f"  power cut after {device.changes} changes, in {result.last_place or 'opening the target'}"
    if result.evidence is not None:
        findings = result.evidence.findings
        yield f"  checked {result.checks} times, last in {result.last_place or 'an empty trace'}"
        yield from finding_lines(findings)
        yield verdict_line(target.paths, target.layout, result.evidence.verdict, findings)


def scan_lines(device: Device, result: ScanResult) -> Iterator[str]:
    """What a scan found, layout by layout."""
    for name, found in result.layouts.items():
        gives = found["gives"]
        assert isinstance(gives, list)
        yield from (f"{device.path}: {name}: {sentence}" for sentence in gives)
    nothing = "" if result.layouts else "no metadata found in "
    unreadable = f", {result.unreadable_bytes} of them unreadable" if result.unreadable_bytes else ""
    yield f"{device.path}: {nothing}{result.scanned_bytes} written bytes{unreadable}"


def lost_lines(target: Target, result: ExportResult) -> Iterator[str]:
    """What an export could not read."""
    for lost in result.lost:
        where = f"{lost.length_bytes} bytes at byte {lost.offset_bytes}"
        place = place_words(lost.place)
        yield f"{target.device.path}: lost {where}{place}: {lost.reason}"
    for guess in result.guessed:
        where = f"{guess.length_bytes} bytes at byte {guess.offset_bytes}"
        yield f"{target.device.path}: a guess, {where}: {guess.reason}"


def import_line(document: ImportDocument) -> str:
    """``disk.img: 5.1 MiB of 55 MiB imported to 4 sequential zones (5.6 MiB written)``.

    Of a rehearsal: ``... would be imported to 4 sequential zones (5.6 MiB written; 29 sequential, 4 random are free)``.
    """
    done = "imported" if document["changed"] else "would be imported"
    free = "" if document["changed"] else f"; {_zones(document['free_zones'])} are free"
    return (
        f"{', '.join(document['devices'])}: {format_size(document['data_bytes'])} of "
        f"{format_size(document['size_bytes'])} {done} to {_zones(document['zones'])} zones "
        f"({format_size(document['written_bytes'])} written{free})"
    )


def _zones(zones: FilledZones) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in zones.items() if count) or "no"
