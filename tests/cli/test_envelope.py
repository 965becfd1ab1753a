"""Every command that takes ``--json`` prints one document, whatever happens, and one line for what went wrong.

The table: each command on a drive of its layout, a device that is not there, a drive of another layout, without any
argument, and with a setting that no layout has.
"""

from __future__ import annotations

import errno
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.archives import copy_sparse, expand_extents, poke, unpack
from tests.programs import Program, Result
from zoned_tools.cli.run import run
from zoned_tools.cli.zoned import command
from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.mapper.write import DmZonedMapper
from zoned_tools.formats.shared.logical import MapExtent
from zoned_tools.report import schemas

VECTORS = Path(__file__).parents[1] / "vectors"

CLEAN, OPERATIONAL, USAGE = 0, 8, 16


def _walk(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in group.list_commands(None):
        found = group.get_command(None, name)
        if hasattr(found, "list_commands"):
            yield from _walk(found, (*before, name))
        else:
            yield (*before, name), found


COMMANDS = {words: found for words, found in _walk(command()) if any("--json" in p.opts for p in found.params)}

WITHOUT_ARGUMENTS: dict[tuple[str, ...], int] = {("explain",): CLEAN, ("list",): CLEAN}
"""Commands that need none, and their status then."""

OK: dict[tuple[str, ...], str] = {
    ("report",): "dm",
    ("zone", "reset"): "new --all",
    ("zone", "open"): "new --zone 9",
    ("zone", "close"): "new --zone 9",
    ("zone", "finish"): "new --zone 9",
    ("image", "create"): "other --zones 8 --zone-size 1MiB",
    ("image", "info"): "dm",
    ("image", "repair"): "dm",
    ("image", "adopt"): "raw",
    ("list",): "",
    ("probe",): "dm",
    ("inspect",): "dm",
    ("check",): "dm",
    ("undo",): "--list",
    ("table",): "dm",
    ("map",): "dm",
    ("export",): "dm -o out.raw",
    ("import",): "content fresh",
    ("replay",): "dm --trace trace",
    ("restore",): "dm --input dump --dry-run",
    ("scan",): "dm",
    ("explain",): "",
    ("zonefs", "ls"): "zonefs",
    ("zonefs", "stat"): "zonefs",
    ("zonefs", "put"): "zonefs /seq/0 content --pad",
    ("zonefs", "truncate"): "zonefs /seq/0 0",
    ("zonefs", "check"): "zonefs",
    ("zonefs", "inspect"): "zonefs",
    ("dm-zoned", "free"): "dm",
    ("dm-zoned", "attach"): "cache dm --dry-run",
    ("zdm", "status"): "zdm",
    ("zdm", "zones"): "zdm",
    ("zdm", "report"): "zdm",
    ("btrfs", "supers"): "btrfs",
    ("btrfs", "zones"): "btrfs",
    ("btrfs", "ls"): "/ btrfs",
    ("btrfs", "extents"): "- btrfs --inode 256",
    ("btrfs", "files"): "btrfs --zone 3",
    ("inplace-compress", "format"): "plain",
    ("inplace-compress", "import"): "content plain --force",
    ("inplace-compress", "estimate"): "content",
    ("inplace-compress", "check"): "compressed",
    ("inplace-compress", "repair"): "compressed",
    ("inplace-compress", "stat"): "compressed",
}
"""A command line that comes to a result, of the files of :func:`drives`."""

ELSEWHERE = {
    ("serve",): "tests/engine/test_nbd_command.py: it goes on until it is stopped",
    ("btrfs", "rollback"): "tests/formats/btrfs/test_rollback.py",
    ("dm-zoned", "detach"): "tests/formats/dm_zoned/test_attach.py",
}

_MORE: dict[tuple[str, ...], str] = {("export",): "-o out.raw", ("replay",): "--trace trace"}
_FIRST: dict[tuple[str, ...], str] = {("btrfs", "ls"): "/", ("btrfs", "extents"): "/"}
_STRANGE: dict[tuple[str, ...], str] = {
    ("image", "create"): "/dev/null/other --zones 8 --zone-size 1MiB",
    ("explain",): "nonsense",
    ("undo",): "none",
    ("export",): "none -o out.raw",
    ("import",): "none none",
    ("replay",): "none --trace trace",
    ("restore",): "none --input dump",
    ("zonefs", "put"): "none /seq/0 content",
    ("zonefs", "truncate"): "none /seq/0 0",
    ("dm-zoned", "attach"): "none dm",
    ("dm-zoned", "detach"): "none dm",
    ("inplace-compress", "import"): "content none",
    ("btrfs", "rollback"): "none --to-generation 7",
    ("btrfs", "ls"): "/ none",
    ("btrfs", "extents"): "/ none",
    ("zone", "reset"): "none --all",
    ("zone", "open"): "none --zone 1",
    ("zone", "close"): "none --zone 1",
    ("zone", "finish"): "none --zone 1",
}
"""Command lines on a device that is not there, where ``none`` alone is not enough."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive of each layout, by name."""
    folder = tmp_path_factory.mktemp("drives")
    for name, archive in (
        ("dm", "dm-zoned/hm64x1"),
        ("zonefs", "zonefs/p1-default"),
        ("btrfs", "btrfs-zoned/p02-inuse0"),
    ):
        source = next(unpack(VECTORS / f"{archive}.tar.xz", folder / f"{name}-all").rglob("disk.img"))
        for end in ("", ".zones"):
            copy_sparse(f"{source}{end}", folder / f"{name}{end}")
    expand_extents(VECTORS / "zdm" / "pop-small", folder / "zdm")
    return folder


@pytest.fixture
def drives(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zoned: Program) -> Iterator[Path]:
    for file in filter(Path.is_file, made.iterdir()):
        if file.name.startswith(("zdm", "btrfs")):
            (tmp_path / file.name).hardlink_to(file)  # large, and only read here
        else:
            copy_sparse(file, tmp_path / file.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZONED_UNDO_DIR", str(tmp_path / "undo"))
    copy_sparse("dm", "raw")
    zoned("image", "create", "new", "--zones", "16", "--zone-size", "1MiB", "--conventional", "6")
    for end in ("", ".zones"):
        copy_sparse(f"new{end}", f"fresh{end}")
    Path("plain").write_bytes(bytes(1 << 20))
    Path("compressed").write_bytes(bytes(1 << 20))
    Path("cache").write_bytes(bytes(20 << 20))
    Path("content").write_bytes(b"content" * 100)
    Path("trace").write_text("fio version 2 iolog\n/d add\n/d open\n/d write 0 4096\n/d close\n")
    zoned("inplace-compress", "format", "compressed")
    zoned("dump", "dm", "-o", "dump")
    yield tmp_path
    shutil.rmtree(tmp_path)


def _hold(words: tuple[str, ...], result: Result, status: int) -> Any:
    """One document, of the command's schema, that says what the shell and standard error say."""
    assert result.status == status, (words, result)
    document = json.loads(result.out)
    schema = document["schema"]
    errors = list(Draft202012Validator(json.loads(schemas.schema_text(schema))).iter_errors(document))
    assert errors == [], (words, schema)
    assert document["exit_status"] == status
    if status:
        (error,) = document["errors"]
        (line,) = [one for one in result.err.splitlines() if not one.startswith(("note: ", "zoned: warning: "))]
        assert error["message"] in line
        assert line.startswith("zoned: ")
        assert (error["device"] or "") in line
        assert (error["hint"] or "") in line
    return document


NOT_OF_A_LAYOUT = {
    ("zdm", "report"): "zones of any drive",
    ("inplace-compress", "format"): "its blocks do not suit first",
    ("inplace-compress", "estimate"): "whatever it holds is content",
}


def test_every_command_is_in_the_table() -> None:
    assert COMMANDS.keys() == OK.keys() | ELSEWHERE.keys()


@pytest.mark.usefixtures("drives")
@pytest.mark.parametrize("words", OK, ids=" ".join)
def test_ok(words: tuple[str, ...], zoned: Program) -> None:
    if words == ("import",):
        assert run("dmzadm", ["--format", "fresh"]) == 0
    document = _hold(words, zoned(*words, *OK[words].split(), "--json"), CLEAN)
    assert len(document) > 3


@pytest.mark.usefixtures("drives")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_device_that_is_not_there(words: tuple[str, ...], zoned: Program) -> None:
    if words == ("list",):
        return
    status = USAGE if words == ("explain",) else OPERATIONAL
    document = _hold(words, zoned(*words, *_STRANGE.get(words, "none").split(), "--json"), status)
    assert document["errors"][0]["id"] == ("usage" if status == USAGE else "device")


@pytest.mark.usefixtures("drives")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_argument(words: tuple[str, ...], zoned: Program) -> None:
    document = _hold(words, zoned(*words, "--json"), WITHOUT_ARGUMENTS.get(words, USAGE))
    if document["errors"]:
        assert document["errors"][0]["id"] == "usage"


@pytest.mark.usefixtures("drives")
@pytest.mark.parametrize("words", [w for w in COMMANDS if COMMANDS[w].taken_settings.journeys], ids=" ".join)
@pytest.mark.parametrize("drive", ["dm", "zonefs", "btrfs", "compressed"])
def test_wrong_setting(words: tuple[str, ...], drive: str, zoned: Program) -> None:
    more = _MORE.get(words, "").split()
    result = zoned(*words, *_FIRST.get(words, "").split(), drive, *more, "--set", "nonsense=1", "--json")
    assert result.status in (OPERATIONAL, USAGE)
    _hold(words, result, result.status)


@pytest.mark.usefixtures("drives")
@pytest.mark.parametrize(
    "words", [w for w in COMMANDS if w[0] in ("zonefs", "zdm", "btrfs", "inplace-compress", "dm-zoned")], ids=" ".join
)
def test_wrong_layout(words: tuple[str, ...], zoned: Program) -> None:
    """It says what it holds, or that it is not what the command is for."""
    other = "zonefs" if words[0] == "dm-zoned" else "dm"
    if words in NOT_OF_A_LAYOUT:
        pytest.skip(NOT_OF_A_LAYOUT[words])
    line = _STRANGE.get(words, "none").replace("none", other).replace(f"{other} dm", f"cache {other}")
    result = zoned(*words, *line.split(), "--json")
    assert result.status in (OPERATIONAL, USAGE), result
    document = _hold(words, result, result.status)
    assert {"dm": "dm-zoned", "zonefs": "zonefs"}[other] in document["errors"][0]["message"], document


def test_a_command_line_without_a_command(zoned: Program) -> None:
    document = _hold((), zoned("nonsense", "--json"), USAGE)
    assert document["schema"] == "zoned.error/1"


def test_a_word_behind_two_dashes_is_no_option(zoned: Program, tmp_path: Path) -> None:
    result = zoned("probe", "--", "--json")
    assert (result.status, result.out) == (OPERATIONAL, "")


@pytest.mark.usefixtures("drives")
def test_results_and_errors_of_several_devices(zoned: Program) -> None:
    for name, rows in (("probe", "devices"), ("report", "drives")):
        document = _hold((name,), zoned(name, "dm", "none", "zonefs", "--json"), OPERATIONAL)
        assert [row["device"] for row in document[rows]] == ["dm", "zonefs"]
        assert document["errors"][0]["device"] == "none"


@pytest.mark.usefixtures("drives")
def test_an_error_in_the_middle_of_a_list(zoned: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found until then is there, and what went wrong behind it."""
    whole = zoned("map", "dm", "--json").json["extents"]
    lookup = DmZonedMapper.lookup

    def failing(mapper: DmZonedMapper, block: int, count: int) -> Iterator[MapExtent]:
        yield from itertools.islice(lookup(mapper, block, count), 3)
        raise DeviceError("a map block cannot be read", device="dm", errno=errno.EIO)

    monkeypatch.setattr(DmZonedMapper, "lookup", failing)
    document = _hold(("map",), zoned("map", "dm", "--json"), OPERATIONAL)
    assert document["extents"] == whole[:3]
    assert document["errors"][0]["errno"] == errno.EIO
    text = zoned("map", "dm")
    assert (text.status, len(text.out.splitlines())) == (OPERATIONAL, 4)


@pytest.mark.usefixtures("drives")
def test_a_line_for_each_target(zoned: Program) -> None:
    """The rows of the document, each with its device and an ending of its own, in the order given."""
    poke("dm", 0, bytes(4))
    result = zoned("check", "dm", "none", "zonefs", "--jsonl")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [(line["device"], line["exit_status"]) for line in lines] == [("dm", 4), ("none", 8), ("zonefs", 0)]
    assert result.status == 12
    schema = Draft202012Validator(json.loads(schemas.schema_text("zoned.check.line/1")))
    assert [error.message for line in lines for error in schema.iter_errors(line)] == []
    rows = zoned("check", "dm", "none", "zonefs", "--json").json["devices"]
    for line, row in zip(lines, rows, strict=True):
        assert row.items() <= line.items()
    assert [error["message"] for error in lines[1]["errors"]] == ["cannot open: No such file or directory"]
    assert zoned("check", "dm", "--json", "--jsonl").status == USAGE
