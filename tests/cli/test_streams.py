"""Standard streams: a reader that goes away, closed ones, full ones."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import xml.dom.minidom
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program

PROGRAM = "import sys; from zoned_tools.cli import entry; name = sys.argv.pop(1); sys.exit(getattr(entry, name)())"


def shell(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a bash script in which ``zoned``, ``dmzadm``... are our programs."""
    python = f"{shlex.quote(sys.executable)} -c {shlex.quote(PROGRAM)}"
    functions = "".join(f'{name}() {{ {python} {name} "$@"; }}\n' for name in ("zoned", "dmzadm", "zdmadm", "mkzonefs"))
    return subprocess.run(
        ["bash", "-c", functions + script], cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def drive(tmp_path: Path, zoned: Program) -> Path:
    image = tmp_path / "drive.img"
    made = zoned("image", "create", image, "--zones", 64, "--zone-size", "4MiB", "--conventional", 8)
    assert made.status == 0
    return image


@pytest.mark.parametrize(
    ("command", "layout"),
    [("mkzonefs -v drive.img", "zonefs"), ("dmzadm --format drive.img --verbose", "dm-zoned")],
    ids=["mkzonefs", "dmzadm"],
)
@pytest.mark.parametrize("reader", ["true", "head -1", "head -c 1"])
def test_work_is_finished_when_the_reader_goes(
    drive: Path, zoned: Program, command: str, layout: str, reader: str
) -> None:
    done = shell(f"{command} | {reader}; exit ${{PIPESTATUS[0]}}", drive.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert zoned("probe", drive, "--json").json["devices"][0]["layout"] == layout
    assert zoned("check", drive).status == 0


def test_status_is_the_checks_when_the_reader_goes(drive: Path, zoned: Program) -> None:
    assert shell("dmzadm --format drive.img >/dev/null", drive.parent).returncode == 0
    with drive.open("r+b") as file:
        file.write(b"\xff" * 4096)
    for command, status in (("zoned check drive.img", 4), ("dmzadm --check drive.img", 1)):
        done = shell(f"{command} | true; exit ${{PIPESTATUS[0]}}", drive.parent)
        assert (done.returncode, done.stderr) == (status, "")
    assert zoned("check", drive).status == 4


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["zoned report drive.img", "zoned check drive.img", "mkzonefs -f drive.img"])
def test_closed_streams_are_no_fault_and_never_a_device(drive: Path, zoned: Program, command: str, closed: str) -> None:
    assert shell("mkzonefs drive.img >/dev/null", drive.parent).returncode == 0
    done = shell(f"{command} {closed}", drive.parent)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert zoned("check", drive).status == 0
    assert zoned("zonefs", "ls", drive).status == 0


def test_an_export_that_nobody_reads_is_not_complete(drive: Path) -> None:
    script = """
    dmzadm --format drive.img >/dev/null
    printf 'fio version 2 iolog\\nd add\\nd open\\nd write 0 8388608\\nd close\\n' > trace
    zoned replay drive.img --trace trace >/dev/null
    zoned export drive.img -o - | head -c 1 >/dev/null
    exit ${PIPESTATUS[0]}
    """
    done = shell(script, drive.parent)
    assert done.returncode == 8
    assert done.stderr == "zoned: standard output was closed before everything was written\n"


def test_a_full_standard_output_is_a_fault(drive: Path) -> None:
    done = shell("zoned report drive.img >/dev/full", drive.parent)
    assert done.returncode == 8
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


EVIL = "a\x1b[31m\x07b"


def test_labels_reach_no_output_raw(drive: Path, tmp_path: Path) -> None:
    script = f"""
    mkzonefs -L $'{EVIL.encode("unicode_escape").decode()}\\xff\\n' drive.img >/dev/null
    zoned probe drive.img; zoned inspect drive.img; zoned check drive.img; zoned metrics drive.img
    zoned diagram drive.img; zoned diagram drive.img -o map.svg; zoned probe --export drive.img; mkzonefs drive.img
    """
    done = shell(script, drive.parent)
    for text in (done.stdout, done.stderr, (tmp_path / "map.svg").read_text(encoding="utf-8")):
        assert not {c for c in text if not c.isprintable()} - {"\n", "\t"}
    assert "a\\x1b[31m" in done.stdout


def test_a_file_name_that_is_no_text(drive: Path, tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"a\x1b\xff.img")
    drive.rename(name)
    (tmp_path / "drive.img.zones").rename(f"{name}.zones")
    script = (
        "zoned diagram a*.img; zoned diagram a*.img -o map.svg; zoned report --summary a*.img; zoned metrics a*.img"
    )
    done = shell(script, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a\\x1b\\udcff.img" in done.stdout
    xml.dom.minidom.parse(str(tmp_path / "map.svg"))
