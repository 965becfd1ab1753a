"""``zdmadm`` and ``zoned zdm`` as a user calls them; drives are served from memory."""

from __future__ import annotations

import json
import shlex
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import BLOCK, FOLDER, drive_of, facts
from zoned_tools.cli.clones.zdmadm.arguments import TABLE, atoi, parse_arguments, strtol
from zoned_tools.cli.run import run
from zoned_tools.device import opening
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.zones import Model
from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.formats.zdm.superblock import SuperBlock

if TYPE_CHECKING:
    from zoned_tools.device.base import Device

START = ("--start", "524288")
UUID = "553467f2-17d0-466e-ac96-b2df94f66449"


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


class Lent(EmulatedDrive):
    """A drive that lives on when it is closed."""

    def close(self) -> None:
        pass


class Shelf:
    """Drives by path, in the place of files."""

    def __init__(self) -> None:
        self.drives: dict[str, EmulatedDrive] = {}

    def open(self, path: str, *, writable: bool = False, **_: object) -> Device:
        if path not in self.drives:
            raise DeviceError("cannot open: No such file or directory", device=path)
        drive = self.drives[path]
        return Lent(path, drive.geometry, drive.machine.table, drive._store, writable=writable)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    monkeypatch.setattr(opening, "open_device", shelf.open)
    for name in ("pop-clean", "pop-journal", "fmt-16z", "fmt-whole", "fmt-64z-1mib"):
        shelf.drives[f"/v/{name}"] = zx1.open_vector(FOLDER, name)
    shelf.drives["/v/empty"] = zx1.empty_drive(FOLDER, "fmt-16z")
    return shelf


@pytest.fixture
def program(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    assert shelf.drives

    def call(name: str, *arguments: str) -> Result:
        capsys.readouterr()
        status = run(name, list(arguments))
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call


Program = Callable[..., Result]


def test_create_is_the_reference_format_with_its_table_line(program: Program, shelf: Shelf) -> None:
    result = program("zdmadm", "-c", "-F", *START, "--uuid", UUID, "/v/empty")
    assert result.status == 0
    assert "\nDevice /v/empty is configured for ZDM:\ncrc     - f0dfb8b\n" in result.out
    line = facts("fmt-16z")["table"][0].replace("DEVICE", "/v/empty")
    assert f"dmsetup create zdm_empty --table '{line}'" in result.out
    assert shelf.drives["/v/empty"].read(524288 * 512, BLOCK) == shelf.drives["/v/fmt-16z"].read(524288 * 512, BLOCK)
    assert program("zdmadm", "-k", *START, "/v/empty").status == 0


def test_create_with_options(program: Program, shelf: Shelf) -> None:
    words = ["-cFl", "seagate-a", "-R", "20", "-t", "0", "--start", "2048", "--json", "/v/x"]
    shelf.drives["/v/x"] = zx1.empty_drive(FOLDER, "fmt-64z-1mib")
    result = program("zdmadm", *words)
    document = json.loads(result.out)
    expected = facts("fmt-64z-1mib")
    assert document["schema"] == "zoned.zdmadm/1"
    assert document["changed"]
    assert document["table"] == expected["table"][0].replace("DEVICE", "/v/x")
    assert document["name"] == "zdm_seagate-a"
    assert document["messages"] == []
    found = document["identity"]
    assert (found["label"], found["over_provision_zones"], found["discard"]) == ("seagate-a", 17, 0)


def test_dry_run_writes_nothing(program: Program, shelf: Shelf) -> None:
    result = program("zdmadm", "-c", "-F", "--dry-run", "-q", "7", *START, "/v/empty")
    assert result.status == 0
    assert "fill 536870912 bytes" in result.err
    assert "bio-queue" in result.out
    assert result.out.count("dmsetup message zdm_empty 0 ") == 14
    store = shelf.drives["/v/empty"]._store
    assert isinstance(store, zx1.ExtentStore)
    assert store.changed == {}


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("-c", *START, "/v/fmt-16z"), 1, "there is a ZDM already"),
        (("-c", "-F", "/v/empty"), 1, "whole drive"),
        (("-c", *START, "-l", "a/b", "/v/empty"), 1, "cannot name a mapping"),
        (("-c", *START, "-l", "a", "/v/empty", "/v/x"), 1, "--label is for one device"),
        (("-c", *START, "-R", "200", "/v/empty"), 1, "logical device would have"),
        (("-p", "/v/empty"), 255, "no ZDM found"),
        (("-r", "/v/empty"), 255, "no ZDM found"),
        (("-s", "--gc", "off", "/v/empty"), 255, "no ZDM found"),
        (("-u", "/v/empty"), 255, "no ZDM found"),
        (("-k", "/v/empty"), 255, "no ZDM found"),
        (("-w", "-F", "/v/empty"), 1, "no ZDM found"),
        (("-w", *START, "/v/fmt-16z"), 1, "use -F"),
        (("-r", "--start", "0", "/v/fmt-whole"), 1, "whole drive"),
        (("-p", "/v/none"), 1, "cannot open"),
        (("-p", "sda"), 1, "Invalid argument"),
        (("-Z", "/v/empty"), 1, "not recognized"),
        (("-c", *START, "-M", "/v/empty"), 1, "--meta"),
        (("-c", "--start", "12x", "/v/empty"), 1, "sector number"),
        (("-c", *START, "--uuid", "no", "/v/empty"), 1, "uuid"),
        ((), 1, "no device"),
    ],
)
def test_failures_have_the_original_statuses(
    program: Program, words: tuple[str, ...], status: int, message: str
) -> None:
    result = program("zdmadm", *words)
    assert (result.status, result.err.count("\n")) == (status, 1)
    assert message in result.err
    assert result.err.startswith("zdmadm: ")


def test_metadata_in_sequential_zones_is_status_4(program: Program, shelf: Shelf) -> None:
    shelf.drives["/v/seq"] = drive_of(64, 3)
    assert program("zdmadm", "-c", *START, "/v/seq").status == 4


def test_a_device_that_is_not_zoned_needs_force(program: Program, shelf: Shelf) -> None:
    zoned = zx1.empty_drive(FOLDER, "fmt-16z")
    plain = replace(zoned.geometry, model=Model.REGULAR, zone_bytes=0, nr_zones=0)
    shelf.drives["/v/plain"] = EmulatedDrive("/v/plain", plain, no_zones(), zoned.store, writable=True)
    assert "Not zoned" in program("zdmadm", "-c", *START, "/v/plain").err
    assert program("zdmadm", "-c", "-F", *START, "/v/plain").status == 0
    assert program("zoned", "check", *START, "/v/plain").status == 0


def test_help(program: Program) -> None:
    short, long = program("zdmadm", "-h"), program("zdmadm", "--help")
    assert (short.status, long.status) == (1, 0)
    assert short.out == long.out
    assert all(name in short.out for option in TABLE.options for name in option.names)


def test_probe_prints_every_line(program: Program) -> None:
    result = program("zdmadm", "--start=2048", "/v/fmt-64z-1mib")
    lines = result.out.splitlines()
    unaligned = "Using non-aligned space start of partition for metadata."
    assert lines[:3] == ["zdmadm 0.125", unaligned, "Device /v/fmt-64z-1mib is configured for ZDM:"]
    assert lines[6:13] == [
        "version - 1.0.0",
        "label   - seagate-a",
        "start   - 2048",
        "data    - 200000 [zone 4 @ 40000]",
        "size    - 33552384",
        "zdm sz  - 20971520",
        "resv    - 20 [3: metadata + 17: over provision]",
    ]
    assert "trim    - OFF" in lines
    assert lines[-9:] == [
        "io queue depth:            0",
        "gc prio def/low/high/crit: 0xff00/0x7fff/0x0400/0x0040",
        "gc wm low/high/crit:       25%/5%/7",
        "gc state:                  1",
        "cache size:                4096",
        "cache read ahead:          64",
        "cache ageout:              9000 (ms)",
        "cache to pagecache:        0",
        "metadata journal age:      3",
    ]


def test_check(program: Program, shelf: Shelf) -> None:
    good = program("zdmadm", "--check", *START, "/v/pop-clean")
    assert good.status == 0
    assert good.out.endswith("ZDM check passed.\n")
    case = next(c for c in facts("corrupt-clean")["cases"] if c["name"] == "fwd-missing")
    shelf.drives["/v/bad"] = zx1.open_case(FOLDER, "pop-clean", case)
    bad = program("zdmadm", "--check", *START, "/v/bad")
    assert bad.status == 1
    assert "zdm.rev.nofwd" in bad.out
    assert bad.out.endswith("ZDM check failed.\n")
    document = json.loads(program("zdmadm", "-k", "--json", *START, "/v/bad").out)
    assert document["devices"][0]["findings"][0]["id"] == "zdm.rev.nofwd"
    assert document["devices"][0]["verdict"] == "errors"


def test_set_and_restore_rewrite_the_identity(program: Program, shelf: Shelf) -> None:
    before = SuperBlock.parse(shelf.drives["/v/pop-clean"].read(524288 * 512, BLOCK))
    assert program("zdmadm", "-s", *START, "-t", "0", "/v/pop-clean") == Result(0, "zdmadm 0.125\n", "")
    result = program(
        "zdmadm", "--adjust", *START, "--gc=force", "--cache-size", "77x", "--journal-age=501", "/v/pop-clean"
    )
    assert result.status == 0
    assert "Journal age out of range, ignored\n" in result.out
    assert "dmsetup message zdm_pop-clean 0 gc-status=2" in result.out
    after = SuperBlock.parse(shelf.drives["/v/pop-clean"].read(524288 * 512, BLOCK))
    assert after == replace(before, gc_status=2, cache_size=77)
    result = program("zdmadm", "--rest", *START, "--gc-wm-low", "30", "/v/pop-clean")
    assert result.status == 0
    line = "0 1572864 zdm /v/pop-clean 5 load discard no-raid5-trim nozac nozbc reserve=8"
    assert f"dmsetup create zdm_pop-clean --table '{line}'" in result.out
    messages = [text.split("0 ", 1)[1] for text in result.out.splitlines() if text.startswith("dmsetup message")]
    assert [text.split("=")[0] for text in messages] == [
        "queue-depth",
        "gc-prio-def",
        "gc-prio-low",
        "gc-prio-high",
        "gc-prio-crit",
        "gc-wm-crit",
        "gc-wm-high",
        "gc-wm-low",
        "gc-status",
        "cache-ageout-ms",
        "cache-size",
        "cache-to-pagecache",
        "cache-reada",
        "journal-age",
    ]
    assert "gc-wm-low=30" in messages
    assert program("zdmadm", "-k", *START, "/v/pop-clean").status == 0


def test_unload_and_wipe(program: Program) -> None:
    result = program("zdmadm", "-u", *START, "/v/pop-clean")
    assert result.status == 0
    assert "dmsetup remove zdm_pop-clean" in result.out
    assert program("zdmadm", "-wF", "--reset-zones", *START, "/v/pop-clean").status == 0
    assert program("zdmadm", *START, "/v/pop-clean").status == 255


def test_mirror_words(program: Program, shelf: Shelf) -> None:
    """Only what is said: the pair's identity is read from the metadata device."""
    shelf.drives["/v/md"] = zx1.open_vector(FOLDER, "fmt-16z")
    words = ("--dry-run", "-m", "/v/md", "-M", *START, "--meta-start", "524288")
    assert " 5 meta=/v/md mirror-md create force " in program("zdmadm", "-cF", *words, "/v/fmt-16z").out
    assert " 5 meta=/v/md mirror-md load " in program("zdmadm", "-r", *words, "/v/fmt-16z").out


def test_metadata_apart_are_probed_and_nothing_more(program: Program, shelf: Shelf) -> None:
    shelf.drives["/v/md"] = drive_of(6, 6)
    assert program("zdmadm", "-c", "-m", "/v/md", *START, "/v/empty").status == 0
    assert program("zdmadm", "-p", "-m", "/v/md", *START, "/v/empty").status == 0
    assert json.loads(program("zoned", "probe", "--json", "/v/md").out)["devices"][0]["layout"] == "zdm"
    for words in (("check",), ("export", "-o", "-"), ("map", "--at", "0")):
        result = program("zoned", words[0], *words[1:], "/v/md")
        assert result.status != 0, words
        assert result.err.count("\n") <= 1


def test_several_devices_make_one_document(program: Program) -> None:
    result = program("zdmadm", "-p", "--json", *START, "/v/empty", "/v/pop-clean")
    document = json.loads(result.out)
    assert (result.status, document["schema"], document["operation"]) == (255, "zoned.zdmadm/1", "probe")
    assert [entry["device"] for entry in document["devices"]] == ["/v/empty", "/v/pop-clean"]
    assert "no ZDM found" in document["devices"][0]["error"]
    assert document["devices"][1]["identity"]["label"] == ""


def test_later_verbs_override_earlier_ones() -> None:
    parsed = parse_arguments(["-c", "x", "-w", "--probe", "-vv"])
    assert not isinstance(parsed, str)
    assert (parsed.verb, parsed.paths, parsed.has("verbose")) == ("probe", ["x"], True)
    with pytest.raises(UsageError):
        parse_arguments(["--cache", "1", "x"])  # ambiguous


def test_numbers_as_c_reads_them() -> None:
    assert [atoi(t) for t in ("12", " 12x", "x", "", "-1", "0x10")] == [12, 12, 0, 0, 0xFFFFFFFF, 0]
    assert [atoi(t) for t in ("99999999999", "4294967296", "9" * 30)] == [1215752191, 0, 0xFFFFFFFF]
    assert [strtol(t) for t in ("20", "0x14", "024", "09", "x", "-5")] == [20, 20, 20, 0, 0, -5]


def test_zoned_zdm(program: Program) -> None:
    status = json.loads(program("zoned", "zdm", "status", "--json", *START, "/v/pop-journal").out)
    assert (status["used"], status["zones"], status["journal_in_use"]) == (1597 + 799 + 560, 10, 36)
    assert "Journal InUse: 36 / 4096" in program("zoned", "zdm", "status", *START, "/v/pop-journal").out
    text = program("zoned", "zdm", "zones", *START, "/v/pop-journal").out.splitlines()
    assert len(text) == 2
    assert text[0].split()[:4] == ["1", "04", "63d", str(63965)]
    zones = json.loads(program("zoned", "zdm", "zones", "--json", *START, "/v/pop-journal").out)["zones"]
    assert zones[1] == {"zone": 1, "wp_blocks": 799, "flags": 4, "free_estimate": 64752, "stream": 9}
    report = program("zoned", "zdm", "report", "/v/pop-journal").out.splitlines()
    assert len(report) == 16
    assert "cond: 1(empty) type: 3(seq-preferred)" in report[-1] or "type: 2(seq-required)" in report[-1]
    assert program("zoned", "zdm", "report", *START, "/v/pop-journal").out.splitlines() == report[1:]
    assert program("zoned", "zdm", "report", "--start", "0", "/v/pop-journal").out.splitlines() == report
    assert program("zoned", "zdm", "report", "--start", 3 * 524288 + 5, "/v/pop-journal").out.splitlines() == report[3:]
    rows = json.loads(program("zoned", "zdm", "report", "--json", *START, "/v/pop-journal").out)["zones"]
    assert (rows[0]["zone"], rows[0]["start_bytes"], len(rows)) == (1, 524288 * 512, 15)
    behind = program("zoned", "zdm", "report", "--start", 16 * 524288, "/v/pop-journal")
    assert (behind.status, behind.out) == (16, "")


def test_the_umbrella_commands_work_on_it(program: Program) -> None:
    found = json.loads(program("zoned", "probe", "--json", *START, "/v/pop-clean").out)["devices"][0]
    assert (found["layout"], found["uuid"]) == ("zdm", "d0cad6d6-ad78-455d-970e-4dd50c29b697")
    logical, physical, _ = facts("pop-clean")["samples"][0]
    extents = json.loads(program("zoned", "map", "--json", *START, "--at", str(logical), "/v/pop-clean").out)["extents"]
    assert extents[0]["physical_block"] == physical + 65536
    assert program("zoned", "inspect", *START, "/v/pop-clean").status == 0
    table = program("zoned", "table", *START, "/v/pop-clean").out
    assert table.startswith("0 1572864 zdm /v/pop-clean 5 load ")


def test_a_partition_table_names_the_start_and_the_end(program: Program, shelf: Shelf) -> None:
    """Zones 1 to 19 of 20; what lies behind is somebody else's."""
    drive = drive_of(20, 6)
    entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + struct.pack("<II", 65536, 19 * 65536 - 256)
    drive.write(0, (bytes(446) + entry + bytes(48) + b"\x55\xaa").ljust(BLOCK, b"\0"))
    shelf.drives["/v/disk"] = drive
    document = json.loads(program("zdmadm", "-c", "--json", "/v/disk").out)
    found = document["identity"]
    assert (found["sect_start"], found["sect_size"]) == (524288, (19 * 65536 - 256) * 8)
    assert json.loads(program("zoned", "probe", "--json", "/v/disk").out)["devices"][0]["layout"] == "zdm"
    assert program("zoned", "check", "/v/disk").status == 0
    assert program("zdmadm", "-p", "/v/disk").status == 0
    assert program("zoned", "zdm", "status", "/v/disk").status == 0


def test_a_key_wiped_format_with_used_tables_is_not_opened(program: Program, shelf: Shelf) -> None:
    drive = shelf.drives["/v/pop-clean"]
    drive.write(524288 * 512 + BLOCK, bytes(1500 * BLOCK))
    assert program("zoned", "check", *START, "/v/pop-clean").status == 4
    result = program("zoned", "map", *START, "--at", "0", "/v/pop-clean")
    assert result.status == 8
    assert "no complete generation of the metadata is left, but 3 data zones" in result.err


def test_printed_commands_can_be_pasted(program: Program, shelf: Shelf) -> None:
    shelf.drives["/v/a b"] = shelf.drives["/v/pop-clean"]
    restored = program("zdmadm", "--restore", *START, "/v/a b")
    assert restored.status == 0
    commands = [line for line in restored.out.splitlines() if line.startswith("dmsetup")]
    words = shlex.split(commands[0])
    assert words[:4] == ["dmsetup", "create", "zdm_a b", "--table"]
    assert words[4].startswith(r"0 1572864 zdm /v/a\ b 5 load ")
    assert all(shlex.split(command)[2] == "zdm_a b" for command in commands[1:])
    assert (
        program("zdmadm", "--unload", *START, "--dry-run", "/v/a b").out.splitlines()[-1] == "dmsetup remove 'zdm_a b'"
    )


@pytest.mark.parametrize("words", [("--create", "-F"), ("--restore", "--journal-age", "7")])
def test_a_line_that_cannot_be_is_refused_before_the_first_write(
    words: tuple[str, ...], program: Program, shelf: Shelf
) -> None:
    shelf.drives["/v/m\n"] = shelf.drives["/v/pop-clean"]
    before = shelf.drives["/v/pop-clean"].read(524288 * 512, BLOCK)
    refused = program("zdmadm", *words, *START, "/v/m\n")
    assert (refused.status, "a table line cannot carry the name" in refused.err) == (1, True)
    assert shelf.drives["/v/pop-clean"].read(524288 * 512, BLOCK) == before
