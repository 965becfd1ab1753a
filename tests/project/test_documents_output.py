"""What commands print with ``--json`` has the shape that its schema says, on images of every layout.

``ZONED_DOCUMENTS=all`` takes every vector and every damaged one, instead of a few of each kind.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.archives import poke
from tests.engine.rescue_cases import CASES, build
from tests.programs import Program, Result
from tests.project import write_log_cases as made_by
from tests.project.write_logs import Step, keeping_vectors
from zoned_tools.errors import FsckStatus
from zoned_tools.report import schemas

ALL = os.environ.get("ZONED_DOCUMENTS") == "all"

ELSEWHERE = {
    "zoned.serve/1": "tests/engine/test_commands.py compares it whole, of a server that runs",
    "zoned.check.line/1": "tests/cli/test_envelope.py: lines, not a document",
    "zoned.error/1": "tests/cli/test_envelope.py: of a command line that names no command",
    "zoned.orphans/1": "test_orphans_have_their_shape: a file beside the zones",
}


@dataclass(frozen=True)
class Sample:
    """Command lines on files of one kind.

    Attributes:
        made: command lines and functions that make the files, in an empty directory.
        lines: ``(schema name without zoned., command line)``; ``{allow}`` is every consent of the layout, ``--json`` is
            put behind those that do not have it. With ``?`` before the name it may come to an error instead.
    """

    name: str
    made: tuple[Step, ...]
    lines: tuple[tuple[str, str], ...]
    layout: str = ""


# -- what is asked of every layout


def _read(disks: str, start: str = "") -> tuple[tuple[str, str], ...]:
    where = f"{disks}{start}"
    return (
        ("probe/1", f"zoned probe {disks}"),
        ("?scan/1", f"zoned scan {disks}"),
        ("check/1", f"zoned check {where}"),
        ("check/1", f"zoned check {where} --repair --dry-run"),
        ("check/1", f"zoned check {where} --repair --dry-run {{allow}}"),
        ("?inspect/1", f"zoned inspect {where}"),
        ("?table/1", f"zoned table {where}"),
        ("?map/1", f"zoned map {where} --at 0+64"),
        ("?dump/1", f"zoned dump {where}"),
    )


def _change(disks: str, start: str = "") -> tuple[tuple[str, str], ...]:
    """Ends with the files as they were."""
    where = f"{disks}{start}"
    return (
        ("check/1", f"zoned check {where} --repair --undo a.undo {{allow}}"),
        ("check/1", f"zoned check {where}"),
        ("?undo/1", f"zoned undo a.undo {disks} --dry-run"),
        ("?undo/1", f"zoned undo a.undo {disks}"),
        ("?check/1", f"zoned check {where} --repair"),
        ("undo.list/1", "zoned undo --list"),
    )


# -- images of each layout

TRACE = made_by.file_of("trace", lambda: made_by.iolog(["write 0 1048576", "trim 8192 4096", "datasync 0 0"]))


def _dm_zoned() -> Iterator[Sample]:
    for name in made_by.DM_NAMES if ALL else ("hm64x1", "dual", "v1runt"):
        for state in made_by.facts(f"dm-zoned/{name}")["images"]:
            if state not in ("clean", "crash") and not ALL:
                continue
            images = made_by._dm_images(name, state)
            disks = " ".join(images)
            replay = f"zoned replay {disks} --trace trace"
            logical = (
                ("?export/1", f"zoned export {disks} -o out.raw --quiet"),
                ("?replay/1", f"{replay} --dry-run"),
                ("?replay/1", f"{replay} --check-each"),
                ("?replay/1", f"{replay} --check-each --crash-at 20"),
            )
            lines = (*_read(disks), *_change(disks), *logical)
            yield Sample(f"{name}-{state}", (made_by.vector(f"dm-zoned/{name}", *images), TRACE), lines, "dm-zoned")
    made = (made_by.vector("dm-zoned/hm64x1", "disk.img"), partial(made_by._empty_file, "cache.img", 20 << 20))
    lines = (
        ("dm-zoned.free/1", "zoned dm-zoned free disk.img --compact --dry-run"),
        ("dm-zoned.free/1", "zoned dm-zoned free disk.img"),
        ("dm-zoned.attach/1", "zoned dm-zoned attach cache.img disk.img --dry-run"),
        ("dm-zoned.attach/1", "zoned dm-zoned attach cache.img disk.img"),
        ("dm-zoned.detach/1", "zoned dm-zoned detach cache.img disk.img"),
    )
    yield Sample("regrouped", made, lines, "dm-zoned")
    saved = (made_by.vector("dm-zoned/hm64x1", "disk.img"), "zoned dump disk.img -o saved")
    lines = (
        ("restore/1", "zoned restore disk.img --input saved --dry-run"),
        ("restore/1", "zoned restore disk.img --input saved"),
    )
    yield Sample("restored", saved, lines, "dm-zoned")
    made = (made_by.vector("dm-zoned/hm64x1", "fresh.img"), partial(made_by._empty_file, "raw", 3 << 20))
    lines = (("import/1", "zoned import raw fresh.img --dry-run"), ("import/1", "zoned import raw fresh.img"))
    yield Sample("filled", made, lines, "dm-zoned")
    raw = (made_by.vector("dm-zoned/hm64x1", "disk.img"), partial(os.unlink, "disk.img.zones"))
    adopt = (
        *_read("disk.img"),
        ("image.adopt/1", "zoned image adopt disk.img --dry-run"),
        ("image.adopt/1", "zoned image adopt disk.img"),
    )
    yield Sample("raw-copy", raw, adopt, "dm-zoned")
    for base in ("hm64x1", "dual"):
        variants = made_by.facts(f"dm-zoned/corruptions-{base}")["variants"]
        disks = " ".join(made_by._dm_images(base, "clean"))
        for variant in variants if ALL else variants[::9]:
            made = (made_by.vector(f"dm-zoned/{base}", *disks.split()), partial(made_by._dm_damage, base, variant))
            name = f"{base}-{variant.get('id') or variant['name']}"
            lines = (*_read(disks), ("check/1", f"zoned check {disks} --diff-sets"), *_change(disks))
            yield Sample(name, made, lines, "dm-zoned")


def _zdm() -> Iterator[Sample]:
    for name in made_by.ZDM_NAMES if ALL else ("pop-small", "cut-direct"):
        start = f" --start {made_by.ZDM_START.get(name, 524288)}"
        where = f"disk.img{start}"
        own = (
            ("zdm.status/1", f"zoned zdm status {where}"),
            ("zdm.zones/1", f"zoned zdm zones {where}"),
            ("zdm.report/1", "zoned zdm report disk.img"),
            ("zdmadm/1", f"zdmadm --probe {where}"),
            ("check/1", f"zdmadm --check {where}"),
            ("zdmadm/1", f"zdmadm --check {where} none.img"),
            ("zdmadm/1", f"zdmadm --probe {where} none.img"),
            ("?zdmadm/1", f"zdmadm --restore --dry-run {where}"),
            ("zdmadm/1", f"zdmadm --unload --dry-run {where}"),
            ("zdmadm/1", f"zdmadm --wipe --force --dry-run {where}"),
            ("?zdmadm/1", f"zdmadm --create --force --dry-run {where}"),
            ("?zdmadm/1", f"zdmadm --set --gc off {where}"),
        )
        lines = (*_read("disk.img", start), *_change("disk.img", start), *own)
        yield Sample(name, (made_by.vector(f"zdm/{name}"),), lines, "zdm")
    for file in ("corrupt-clean", "corrupt-journal"):
        cases = made_by.facts(f"zdm/{file}")["cases"]
        for case in cases if ALL else cases[7:8]:
            start = f" --start {made_by.ZDM_START.get(case['base'], 524288)}"
            made = (made_by.vector(f"zdm/{case['base']}"), partial(made_by._zdm_damage, case))
            lines = (*_read("disk.img", start), *_change("disk.img", start))
            yield Sample(f"{file}-{case['name']}", made, lines, "zdm")


def _zonefs() -> Iterator[Sample]:
    own = (
        ("?zonefs.ls/1", "zoned zonefs ls disk.img"),
        ("?zonefs.ls/1", "zoned zonefs ls disk.img /seq"),
        ("?zonefs.ls/1", "zoned zonefs ls disk.img /seq/0"),
        ("?zonefs.stat/1", "zoned zonefs stat disk.img /"),
        ("?zonefs.stat/1", "zoned zonefs stat disk.img /seq/0"),
        ("?zonefs.statfs/1", "zoned zonefs stat -f disk.img"),
        ("?zonefs.put/1", "zoned zonefs put --pad --dry-run disk.img /seq/0 data"),
        ("?zonefs.put/1", "zoned zonefs put --pad --undo b.undo disk.img /seq/0 data"),
        ("?zonefs.truncate/1", "zoned zonefs truncate --no-undo disk.img /seq/0 0"),
        ("?check/1", "zoned zonefs check disk.img"),
    )
    lines = (*_read("disk.img"), *_change("disk.img"), *own)
    data = made_by.file_of("data", lambda: "content")
    folder = made_by.VECTORS / "zonefs"
    names = sorted(path.name.removesuffix(".tar.xz") for path in folder.glob("p*.tar.xz"))
    for name in names if ALL else ("p2-aggr-owner-label", "p5-readonly-offline", "pc3-zone0-reset"):
        yield Sample(name, (made_by.vector(f"zonefs/{name}"), data), lines, "zonefs")
    blocks = sorted((folder / "superblocks").glob("*.bin"))
    for path in blocks if ALL else blocks[::6]:
        damage = partial(poke, "disk.img", 0, path.read_bytes())
        yield Sample(path.stem, (made_by.vector("zonefs/p1-default"), damage, data), lines, "zonefs")


def _btrfs() -> Iterator[Sample]:
    known = made_by.facts("btrfs-zoned/expected")
    states = made_by.facts("btrfs-zoned/block-groups")
    few = ("pv01-torn-last", "pv12-both-empty", "p21-emulated-regular", "g07-data-offline")
    for name in (*known, *states) if ALL else few:
        generations = known.get(name, {}).get("roots", {}).get("generations") or [7]
        back = f"zoned btrfs rollback --to-generation {generations[0]} disk.img"
        own = (
            ("?btrfs.supers/1", "zoned btrfs supers disk.img"),
            ("?btrfs.supers/1", "zoned btrfs supers --roots --full disk.img"),
            ("?btrfs.latest/1", "zoned btrfs supers --latest disk.img"),
            ("?btrfs.zones/1", "zoned btrfs zones disk.img"),
            ("?map/1", "zoned map --zone 4 disk.img"),
            ("?export/1", "zoned export disk.img -o copy.img --quiet"),
            ("?btrfs.ls/1", "zoned btrfs ls -R / disk.img"),
            ("?btrfs.extents/1", "zoned btrfs extents /d/big disk.img"),
            ("?btrfs.files/1", "zoned btrfs files --zone 4 --zone 7 disk.img"),
            ("?map/1", "zoned map --byte 0x1000000+20000 --at 1 disk.img"),
            ("?btrfs.rollback/1", f"{back} --dry-run"),
            ("?btrfs.rollback/1", f"{back} --undo b.undo"),
        )
        lines = (*_read("disk.img"), *_change("disk.img"), *own)
        yield Sample(name, (made_by.vector(f"btrfs-zoned/{name}"),), lines, "btrfs")


def _inplace_compress() -> Iterator[Sample]:
    own = (
        ("?inplace-compress.stat/1", "zoned inplace-compress stat disk.img"),
        ("?inplace-compress.estimate/1", "zoned inplace-compress estimate disk.img --compressor lzo --sample 1MiB"),
        ("?check/1", "zoned inplace-compress check disk.img --deep --processes 1"),
        ("?export/1", "zoned export disk.img -o out.raw --quiet --skip-errors -j 1"),
    )
    lines = (*_read("disk.img"), *_change("disk.img"), *own)
    for name in made_by.facts("inplace-compress/expected") if ALL else ("p1-lzo",):
        yield Sample(name, (made_by.vector(f"inplace-compress/{name}"),), lines, "inplace-compress")
    cases = made_by.facts("inplace-compress/corrupt")
    for name in cases if ALL else ("lzo-sb-zeroed", "lzo-map-head-lost", "lzo-map-nibble"):
        base = made_by.vector(f"inplace-compress/{cases[name]['base']}")
        made = (base, partial(made_by._inplace_damage, cases[name]))
        yield Sample(name, made, lines, "inplace-compress")


# -- new drives and volumes

CREATE = "zoned image create {} --zones 24 --zone-size 1MiB --conventional 6"


def _drives() -> Iterator[Sample]:
    two = (CREATE.format("a.img"), "zoned image create b.img --zones 8 --zone-size 1MiB --model zns --max-open 3")
    reports = (
        ("report/2", "zoned report a.img"),
        ("report.summary/1", "zoned report a.img --summary"),
        ("report/2", "zoned report b.img --filter full"),
        ("report/2", "zoned report a.img none.img b.img"),
        ("report.summary/1", "zoned report a.img b.img --summary"),
        ("report/2", "zoned report none.img other.img"),
        ("image/1", "zoned image info a.img"),
        ("image.repair/1", "zoned image repair a.img --dry-run"),
        ("image.repair/1", "zoned image repair b.img"),
        ("zone/1", "zoned zone finish b.img --zone 1"),
        ("zone/1", "zoned zone reset b.img --all --dry-run"),
        ("list/1", "zoned list"),
        ("list/1", "zoned list --all"),
        ("probe/1", "zoned probe a.img none.img b.img"),
        ("check/1", "zoned check a.img none.img b.img"),
        ("explain/1", "zoned explain"),
        ("explain/1", "zoned explain dm-zoned.sb-bad-magic"),
    )
    cut = partial(poke, "a.img.zones", made_by.HEADER_BYTES + made_by.DESCRIPTOR_BYTES + 32, bytes(64))
    yield Sample("drives", two, reports)
    yield Sample("cut-sidecar", (*two, cut), (("image.repair/1", "zoned image repair a.img"),))
    folder = made_by.VECTORS / "zone-report"
    tables = [f for f in sorted(folder.glob("*/*.zones")) if f.name in ("disk.img.zones", "cond-reserved.zones")]
    for table in tables:
        report = ("?report/2", f"zoned report {shlex.quote(str(table))}")
        yield Sample(f"table-{table.parent.name}-{table.stem}", (), (report,))


def _formats() -> Iterator[Sample]:
    create = CREATE.format("disk.img")
    dm = (("dmzadm.format/1", "dmzadm --format disk.img --dry-run"),
          ("dmzadm.format/1", "dmzadm --format disk.img --label new"),
          ("check/1", "dmzadm --check disk.img"), ("check/1", "dmzadm --repair disk.img"))  # fmt: skip
    yield Sample("dmzadm", (create,), dm)
    zonefs = (
        ("mkzonefs/1", "mkzonefs --json --dry-run disk.img"),
        ("mkzonefs/1", "mkzonefs --json -o aggr_cnv disk.img"),
    )
    yield Sample("mkzonefs", (create,), zonefs)
    every = "zoned inplace-compress"
    made = (partial(made_by._empty_file, "disk.img", 1 << 20), made_by.file_of("raw", lambda: "content" * 9000))
    compress = (
        ("inplace-compress.format/1", f"{every} format disk.img --dry-run"),
        ("inplace-compress.format/1", f"{every} format disk.img"),
        ("inplace-compress.import/1", f"{every} import raw disk.img --force --quiet"),
        ("inplace-compress.stat/1", f"{every} stat disk.img"),
        ("inplace-compress.estimate/1", f"{every} estimate disk.img"),
        ("inplace-compress.estimate/1", f"{every} estimate raw --sample 0"),
    )
    yield Sample("inplace-compress", made, compress)


LAYOUTS = {"dm-zoned": _dm_zoned, "zdm": _zdm, "zonefs": _zonefs, "btrfs": _btrfs, "compress": _inplace_compress}
SAMPLES = {
    f"{kind}-{sample.name}": sample
    for kind, samples in {**LAYOUTS, "drives": _drives, "format": _formats}.items()
    for sample in samples()
}


# -- the tests

MISSING_ROOMS = {("zonefs", "table/1"), ("zonefs", "map/1")}
MISSING_ROOMS |= {("btrfs", "table/1"), ("btrfs", "dump/1")}
"""What a layout does not have."""

MET: set[tuple[str, str]] = set()
"""``(layout, schema)`` of the documents that had their shape."""
KEYS: dict[str, set[str]] = defaultdict(set)
"""Schema name to the keys in its documents, at any depth."""
DONE: set[str] = set()
"""Samples that were run."""


@pytest.fixture(scope="module", autouse=True)
def kept_vectors() -> Iterator[None]:
    with keeping_vectors():
        yield


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schemas.schema_text(name)))


def _faults(name: str, document: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}"[:300] for error in _validator(name).iter_errors(document)]


def _hold_envelope(line: str, printed: Result) -> None:
    """The envelope tells what the shell is told, and a line of standard error for each error."""
    document = printed.json
    assert document["exit_status"] == printed.status, line
    said = printed.err.splitlines()
    for error in document["errors"]:
        assert any(error["message"] in one for one in said), (line, error, said)
    if printed.status & (FsckStatus.OPERATIONAL | FsckStatus.USAGE) and line.startswith("zoned "):
        assert document["errors"], line


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _keys(part)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, and where undo files go; images are too large to be kept until the end of all tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZONED_UNDO_DIR", str(tmp_path / "undo"))
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("name", SAMPLES)
def test_documents_have_their_shape(name: str, program: Program) -> None:
    sample = SAMPLES[name]
    for step in sample.made:
        if callable(step):
            step()
        else:
            assert program(*shlex.split(step)).status == 0, step
    for schema, line in sample.lines:
        words = shlex.split(line.format(allow=made_by.consents(sample.layout)))
        printed = program(*words, *([] if schema.endswith("dump/1") or "--json" in words else ["--json"]))
        if schema == "?dump/1" and printed.out == "":
            assert printed.err, line
            continue
        assert printed.out[:1] == "{", (line, printed)
        assert _faults(f"zoned.{schema.removeprefix('?')}", printed.json) == [], line
        if not schema.endswith("dump/1") or "errors" in printed.json:
            _hold_envelope(line, printed)
        if printed.json.keys() == {"schema", "exit_status", "errors"}:
            assert schema.startswith("?"), (line, printed)
            continue
        MET.add((sample.layout, schema.removeprefix("?")))
        KEYS[f"zoned.{schema.removeprefix('?')}"].update(_keys(printed.json))
    DONE.add(name)


def test_every_schema_was_met() -> None:
    """A line that may come to an error has come to a document somewhere."""
    if len(DONE) < len(SAMPLES):
        pytest.skip("not all samples were run")
    asked = {(s.layout, schema.removeprefix("?")) for s in SAMPLES.values() for schema, _ in s.lines}
    assert asked - MET == MISSING_ROOMS
    assert {f"zoned.{schema}" for _, schema in MET} | ELSEWHERE.keys() == set(schemas.schema_names())


NEEDS_A_KERNEL = {"ZdmadmDocument": {"started"}, "zoned.zdmadm/1 0": {"started"}}
"""Definition to keys that only a real drive brings."""


def test_every_key_was_met() -> None:
    """No definition names what is never printed."""
    if len(DONE) < len(SAMPLES):
        pytest.skip("not all samples were run")
    left: dict[str, set[str]] = {}
    for name, met in KEYS.items():
        schema = json.loads(schemas.schema_text(name))
        whole = {f"{name} {number}": form for number, form in enumerate(schema.get("anyOf", ()))}
        for part, definition in {**schema["$defs"], **whole}.items():
            left[part] = left.get(part, set(definition["properties"])) - met
    assert {part: keys for part, keys in left.items() if keys} == NEEDS_A_KERNEL


def test_a_line_of_a_zone_report_is_a_row_of_its_document(directory: Path, zoned: Program) -> None:
    assert zoned(*shlex.split(CREATE.format("a.img"))[1:]).status == 0
    schema = json.loads(schemas.schema_text("zoned.report/2"))
    row = Draft202012Validator({"$ref": "#/$defs/ZoneRow", "$defs": schema["$defs"]})
    lines = zoned("report", directory / "a.img", "--format", "jsonl").out.splitlines()
    assert len(lines) == 24
    for line in lines:
        zone = json.loads(line)
        assert zone.pop("device") == str(directory / "a.img")
        assert row.is_valid(zone)


def test_a_wrong_document_has_faults(zoned: Program) -> None:
    document = zoned("explain", "dm-zoned.sb-bad-magic", "--json").json
    assert _faults("zoned.explain/1", document) == []
    (row,) = document["codes"]
    bare = {key: document[key] for key in ("schema", "exit_status", "errors")}
    assert _faults("zoned.explain/1", bare) == []
    for wrong in (
        {**document, "more": 1},
        {**document, "codes": [{**row, "severity": "bad"}]},
        {**document, "codes": [{key: row[key] for key in row if key != "kernel"}]},
        {key: document[key] for key in document if key != "exit_status"},
        {**bare, "more": 1},
    ):
        assert _faults("zoned.explain/1", wrong), wrong


def test_orphans_have_their_shape(directory: Path, zoned: Program) -> None:
    build(CASES["map-both"], directory)
    result = zoned("export", "disk.img", "-q", "-o", "out.raw", "--skip-errors", "--orphans", "orphans")
    assert result.status == 4, result.err
    document = json.loads((directory / "orphans/orphans.json").read_text(encoding="utf-8"))
    assert document["orphans"]
    assert _faults("zoned.orphans/1", document) == []
