"""Documents of the commands over any layout; ``zoned.check`` is streamed by :mod:`zoned_tools.report.check`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final, Literal, TypedDict, cast

from zoned_tools.engine.raw_copies import ZoneSource, zone_table_of
from zoned_tools.report.documents import is_a_file, layout_adds_keys
from zoned_tools.report.stream import array, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zoned_tools.engine.export import ExportResult, LostRange
    from zoned_tools.engine.logical import MappedRun
    from zoned_tools.engine.orphans import WrittenOrphan
    from zoned_tools.engine.replay import ReplayOptions, ReplayResult
    from zoned_tools.formats.contract import Imported, Mapper, Rule, TableLine, Target, Verdict
    from zoned_tools.formats.shared.findings import Finding, Severity
    from zoned_tools.formats.shared.rules import Consent
    from zoned_tools.report.documents.envelope import ErrorRow

CHECK: Final = "zoned.check/1"


class FindingRow(TypedDict):
    """One finding of ``zoned.check/1``; ``where`` has the rule's own columns."""

    id: str
    severity: Severity
    where: dict[str, object]
    message: str
    repair: str


def _finding_row(finding: Finding) -> FindingRow:
    return {
        "id": finding.id,
        "severity": finding.severity,
        "where": dict(finding.where),
        "message": finding.message,
        "repair": finding.repair,
    }


class ActionRow(TypedDict):
    """One action of a repair; it ``waits`` until its ``consent`` is given with ``--allow``."""

    id: str
    consent: Consent
    waits: bool
    where: dict[str, object]
    message: str


class RangeRow(TypedDict):
    """A range of the logical device that a repair changes."""

    logical_block: int
    blocks: int
    what: str


class _RehearsalRow(TypedDict):
    verdict: Verdict
    errors: int
    codes: list[str]
    rounds: int


class RehearsalRow(_RehearsalRow, total=False):
    """What a plan came to on a copy-on-write view; how lookups differ where the layout has a mapper."""

    blocks_changed: int
    blocks_readable: int
    blocks_lost: int
    ranges: list[RangeRow]


class _CheckedRow(TypedDict):
    devices: list[str]
    zone_table: ZoneSource | None
    layout: str | None
    verdict: Verdict
    findings: list[FindingRow]


class SetDifferenceRow(TypedDict):
    """A run of logical blocks and the zone that has them by each metadata set, null where they read as zeroes."""

    chunk: int
    first_block: int
    blocks: int
    zones: list[int | None]


class CheckedRow(_CheckedRow, total=False):
    """One target of ``zoned.check/1``.

    ``error`` instead of ``facts`` where it could not be checked; the others of a repair: ``actions``, ``plan`` until
    it is carried out, what its ``rehearsal`` came to, the ``undo`` file, the findings that were ``repaired``.
    ``diff_sets`` when that was asked for.
    """

    error: str
    facts: dict[str, object]
    actions: list[ActionRow]
    plan: list[str]
    rehearsal: RehearsalRow
    undo: str | None
    repaired: list[FindingRow]
    diff_sets: list[SetDifferenceRow]


CHECK_LINE: Final = "zoned.check.line/1"


@is_a_file
class CheckLine(CheckedRow):
    """``zoned.check.line/1``: a line of ``zoned check --jsonl``; ``device`` is the first of ``devices``.

    ``exit_status`` is that of this target alone; ``errors`` say why it could not be checked.
    """

    schema: Literal["zoned.check.line/1"]
    device: str
    exit_status: int
    errors: list[ErrorRow]


class CheckDocument(TypedDict):
    """``zoned.check/1``: targets in the order given."""

    schema: Literal["zoned.check/1"]
    changed: bool
    devices: list[CheckedRow]


class RuleRow(TypedDict):
    """One rule of ``zoned.explain/1``; ``allow``: what a consent agrees to; ``consent`` is null without a repair."""

    id: str
    severity: Severity
    meaning: str
    causes: str
    kernel: str
    repair: str
    allow: str
    consent: Consent | None


class ExplainDocument(TypedDict):
    """``zoned.explain/1``."""

    schema: Literal["zoned.explain/1"]
    codes: list[RuleRow]


def explain_document(rules: Mapping[str, Rule]) -> ExplainDocument:
    """Everything that is known about rules, by id."""
    rows: list[RuleRow] = [
        {
            "id": name,
            "severity": rule.severity,
            "meaning": rule.meaning,
            "causes": rule.causes,
            "kernel": rule.kernel,
            "repair": rule.repair,
            "allow": rule.allow,
            "consent": rule.consent,
        }
        for name, rule in rules.items()
    ]
    return {"schema": "zoned.explain/1", "codes": rows}


class _TargetFacts(TypedDict):
    devices: list[str]
    zone_table: ZoneSource | None


class TargetFacts(_TargetFacts):
    """What every document about one target begins with; ``zone_table``: where its zones come from, null without."""

    layout: str


def _facts(target: Target) -> TargetFacts:
    return {"devices": list(target.paths), "zone_table": zone_table_of(target), "layout": target.layout}


@layout_adds_keys
class InspectDocument(TargetFacts):
    """``zoned.inspect/1``: the layout's own tree beside the facts."""

    schema: Literal["zoned.inspect/1"]


def inspect_document(target: Target, tree: Mapping[str, object]) -> dict[str, object]:
    """:class:`InspectDocument` with what the layout adds."""
    facts: InspectDocument = {"schema": "zoned.inspect/1", **_facts(target)}
    return {**facts, **tree}


@is_a_file
@layout_adds_keys
class DumpFile(TypedDict):
    """``zoned.dump/1``, what ``zoned restore`` reads."""

    schema: Literal["zoned.dump/1"]
    layout: str
    devices: list[str]
    zone_table: ZoneSource | None


def dump_document(target: Target, content: Mapping[str, object]) -> dict[str, object]:
    """:class:`DumpFile` with what the layout adds."""
    facts: DumpFile = {
        "schema": "zoned.dump/1",
        "layout": target.layout,
        "devices": list(target.paths),
        "zone_table": zone_table_of(target),
    }
    return {**facts, **content}


class TableDocument(TargetFacts):
    """``zoned.table/1``."""

    schema: Literal["zoned.table/1"]
    table: str
    warning: str


def table_document(target: Target, line: TableLine) -> TableDocument:
    """A table line and what to tell with it."""
    return {"schema": "zoned.table/1", **_facts(target), "table": line.line, "warning": line.warning}


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
        **_facts(target),
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
        **_facts(target),
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
        **_facts(target),
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
        **_facts(target),
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
    return {**facts, "extents": array(encode(map_row(run)) for run in runs)}


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
        **_facts(target),
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
        "findings": [] if evidence is None else [_finding_row(finding) for finding in evidence.findings],
        "seconds": round(result.seconds, 3),
    }
