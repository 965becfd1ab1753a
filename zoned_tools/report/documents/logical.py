"""Documents about the logical device of a target: export, import, map, replay, serve."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final, Literal, TypedDict, cast

from zoned_tools.engine.raw_copies import ZoneSource, zone_table_of
from zoned_tools.report.documents import is_a_file, layout_adds_keys
from zoned_tools.report.documents.targets import FindingRow, TargetFacts, finding_row, target_facts
from zoned_tools.report.stream import elements, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zoned_tools.engine.export import ExportResult, LostRange
    from zoned_tools.engine.logical import MappedRun
    from zoned_tools.engine.orphans import WrittenOrphan
    from zoned_tools.engine.replay import ReplayOptions, ReplayResult
    from zoned_tools.formats.contract import Imported, Mapper, Target, Verdict


class LostBytes(TypedDict):
    """A range of the logical device that could not be read."""

    offset_bytes: int
    length_bytes: int
    reason: str


class LostRow(LostBytes, total=False):
    """The same with its place, where each device is exported; the block group is null where it is not known."""

    devid: int
    zone: int | None
    block_group: int | None


class ExportDocument(TargetFacts):
    """``zoned.export/1``.

    ``generation`` is that of the metadata where each device is exported, and ``outputs`` are then the files of the
    devices; sizes are sums.
    """

    schema: Literal["zoned.export/1"]
    output: str
    outputs: list[str]
    generation: int | None
    size_bytes: int
    data_bytes: int
    lost: list[LostRow]
    guessed: list[LostRow]


def export_document(target: Target, output: str, result: ExportResult) -> ExportDocument:
    """What an export wrote, and what it could not read."""
    return {
        "schema": "zoned.export/1",
        **target_facts(target),
        "output": output,
        "outputs": result.outputs,
        "generation": result.generation,
        "size_bytes": result.size_bytes,
        "data_bytes": result.data_bytes,
        "lost": _joined(result.lost),
        "guessed": _joined(result.guessed),
    }


class OrphanRow(TypedDict):
    """A zone that no readable metadata name."""

    zone: int
    kind: str
    valid: int
    first: int
    last: int
    wp_blocks: int | None
    sha256: str
    pairs: list[int]


@is_a_file
class OrphansDocument(TargetFacts):
    """``zoned.orphans/1``: the file ``orphans.json`` beside the zones."""

    schema: Literal["zoned.orphans/1"]
    orphans: list[OrphanRow]


def orphans_document(target: Target, written: Iterable[WrittenOrphan]) -> OrphansDocument:
    """The zones that were written beside it."""
    return {
        "schema": "zoned.orphans/1",
        **target_facts(target),
        "orphans": [
            {
                "zone": row.orphan.zone,
                "kind": row.orphan.kind,
                "valid": row.orphan.valid,
                "first": row.orphan.first,
                "last": row.orphan.last,
                "wp_blocks": row.orphan.wp_blocks,
                "sha256": row.sha256,
                "pairs": row.orphan.pairs,
            }
            for row in written
        ],
    }


def _joined(ranges: Iterable[LostRange]) -> list[LostRow]:
    """Ranges of bytes, adjacent ones of one place as one with the reason of the first."""
    rows: list[LostRow] = []
    place: Mapping[str, int | None] = {}
    for lost in ranges:
        touches = bool(rows) and rows[-1]["offset_bytes"] + rows[-1]["length_bytes"] == lost.offset_bytes
        if touches and place == lost.place:
            rows[-1]["length_bytes"] += lost.length_bytes
            continue
        place = lost.place
        row: LostRow = {"offset_bytes": lost.offset_bytes, "length_bytes": lost.length_bytes, "reason": lost.reason}
        row.update(cast("LostRow", place))
        rows.append(row)
    return rows


class FilledZones(TypedDict):
    """Zones that content went to, by the kernel's kinds."""

    sequential: int
    random: int
    cache: int


class ImportDocument(TargetFacts):
    """``zoned.import/1``: ``size_bytes`` of the content, ``written_bytes`` with metadata, ``free_zones`` before.

    ``changed`` is false for a rehearsal, whose figures are what the same import would write.
    """

    schema: Literal["zoned.import/1"]
    source: str
    changed: bool
    size_bytes: int
    data_bytes: int
    written_bytes: int
    chunks: int
    zones: FilledZones
    free_zones: FilledZones


def _by_kind(zones: Mapping[str, int]) -> FilledZones:
    return {
        "sequential": zones.get("sequential", 0),
        "random": zones.get("random", 0),
        "cache": zones.get("cache", 0),
    }


def import_document(
    target: Target, source: str, size_bytes: int, done: Imported, free: Mapping[str, int], *, changed: bool
) -> ImportDocument:
    """What an import wrote, or would write; ``free``: zones that content might go to."""
    return {
        "schema": "zoned.import/1",
        **target_facts(target),
        "source": source,
        "changed": changed,
        "size_bytes": size_bytes,
        "data_bytes": done.data_bytes,
        "written_bytes": done.written_bytes,
        "chunks": done.chunks,
        "zones": _by_kind(done.zones),
        "free_zones": _by_kind(free),
    }


class ServedRow(TypedDict):
    """One export of a server."""

    name: str
    size_bytes: int


class ServeDocument(TargetFacts):
    """``zoned.serve/1``: one line when clients can connect; the first of ``exports`` is the default."""

    schema: Literal["zoned.serve/1"]
    uri: str
    size_bytes: int
    read_only: bool
    exports: list[ServedRow]


def serve_document(target: Target, exports: Sequence[tuple[str, Mapper]], uri: str) -> ServeDocument:
    """Where clients find the server."""
    mapper = exports[0][1]
    return {
        "schema": "zoned.serve/1",
        **target_facts(target),
        "uri": uri,
        "size_bytes": mapper.size_blocks * 4096,
        "read_only": not mapper.writable,
        "exports": [{"name": name, "size_bytes": one.size_blocks * 4096} for name, one in exports],
    }


class MapColumns(TypedDict):
    """One extent of ``zoned.map/1``; the physical place is null where nothing is stored."""

    logical_block: int
    blocks: int
    device: str | None
    physical_block: int | None
    physical_bytes: int | None
    why: str


class MapRow(MapColumns, total=False):
    """The same with which copy it is, of layouts that have several; null for an address in no place.

    ``state`` is ``ok``, ``above-wp``, ``dead`` or ``missing``; ``device`` is null where it was not given.
    """

    copy: int | None
    devid: int | None
    zone: int | None
    state: str | None


def map_row(run: MappedRun) -> MapRow:
    """Blocks and where they live."""
    at = run.physical_bytes
    row: MapRow = {
        "logical_block": run.extent.logical_block,
        "blocks": run.extent.blocks,
        "device": run.device,
        "physical_block": None if at is None else at // 4096,
        "physical_bytes": at,
        "why": run.extent.why,
    }
    row.update(cast("MapRow", run.place))
    return row


class MapDocument(TypedDict):
    """``zoned.map/1``, written piece by piece; ``zones`` is there with ``--zone``."""

    schema: Literal["zoned.map/1"]
    zone_table: ZoneSource | None
    extents: list[MapRow]


@layout_adds_keys
class OwnerRow(TypedDict):
    """A zone of one device, with what the layout tells of zones; its logical range, null where it has none."""

    device: str
    zone: int
    owner: str
    logical_bytes: int | None
    length_bytes: int | None


class ZoneOwnersDocument(MapDocument):
    """The same for a zone."""

    zones: list[OwnerRow]


MAP: Final = "zoned.map/1"


def map_document(target: Target, runs: Iterable[MappedRun]) -> dict[str, object]:
    """The fields of a ``zoned.map/1`` document; a fragmented drive has millions of extents, which are JSON text."""
    facts = {"schema": MAP, "zone_table": zone_table_of(target)}
    return {**facts, "extents": elements(encode(map_row(run)) for run in runs)}


def zone_owners_document(target: Target, rows: Sequence[Mapping[str, object]]) -> ZoneOwnersDocument:
    """Whose a zone is."""
    found = [cast("OwnerRow", row) for row in rows]
    return {"schema": MAP, "zone_table": zone_table_of(target), "extents": [], "zones": found}


class ReplayDocument(TargetFacts):
    """``zoned.replay/1``; ``device`` counts what reached the devices, ``verdict`` is the last check's."""

    schema: Literal["zoned.replay/1"]
    dry_run: bool
    crashed: bool
    last_request: str
    requests: dict[str, int]
    bytes: dict[str, int]
    device: dict[str, int]
    reclaim_steps: int
    free_zones: dict[str, int]
    checks: int
    verdict: Verdict | None
    findings: list[FindingRow]
    seconds: float


def replay_document(target: Target, options: ReplayOptions, result: ReplayResult) -> ReplayDocument:
    """What a trace did."""
    evidence = result.evidence
    return {
        "schema": "zoned.replay/1",
        **target_facts(target),
        "dry_run": options.dry_run,
        "crashed": result.crashed,
        "last_request": result.last_place,
        "requests": result.requests,
        "bytes": result.bytes,
        "device": asdict(result.device) | {"changes": result.device.changes},
        "reclaim_steps": result.reclaim_steps,
        "free_zones": result.free_zones,
        "checks": result.checks,
        "verdict": None if evidence is None else evidence.verdict,
        "findings": [] if evidence is None else [finding_row(finding) for finding in evidence.findings],
        "seconds": round(result.seconds, 3),
    }
