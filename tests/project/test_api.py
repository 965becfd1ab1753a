"""The public Python API: its names, its laziness, and the programs of docs/api.md."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zoned_tools
from tests.archives import unpack

if TYPE_CHECKING:
    from tests.programs import Program

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
MIB = 1 << 20


@pytest.fixture
def drive(tmp_path: Path, zoned: Program, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = zoned("image", "create", "drive.img", "--zones", 64, "--zone-size", "4MiB", "--conventional", 8)
    assert made.status == 0
    return tmp_path / "drive.img"


@pytest.fixture
def archive(drive: Path) -> bytes:
    """A target whose logical device begins with a zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("hello.txt", "hello")
    zoned_tools.format(drive, layout="dm-zoned", label="archive")
    with zoned_tools.open_target(drive, writable=True) as target, target.open(writable=True) as device:
        assert device.write(content.getvalue()) == len(content.getvalue())
    return content.getvalue()


def test_importing_loads_nothing() -> None:
    code = "import sys, zoned_tools; print(*sorted(m for m in sys.modules if m.startswith(('zoned_tools', 'numpy'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["zoned_tools"]


@pytest.mark.parametrize("name", [n for n in zoned_tools.__all__ if not n.startswith("_")])
def test_every_name_is_there_and_documented(name: str) -> None:
    thing = getattr(zoned_tools, name)
    assert thing.__doc__
    assert name in PAGE.read_text(encoding="utf-8") or name.endswith("Error")
    assert name in dir(zoned_tools)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError):
        zoned_tools.nonsense  # noqa: B018 - the look-up is the test


def test_zones_of_a_drive(drive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exec(PROGRAMS[0], {})
    assert capfd.readouterr().out == "64 zones, 0 bytes written\n"


@pytest.mark.parametrize("name", ["p1-default", "p4-cap-limits", "p5-readonly-offline"])
def test_zones_that_are_full_read_only_or_offline(
    name: str, tmp_path: Path, zoned: Program, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    unpack(PAGE.parents[1] / "tests" / "vectors" / "zonefs" / f"{name}.tar.xz", tmp_path)
    image = next(path for path in tmp_path.rglob("*.img") if Path(f"{path}.zones").exists())
    monkeypatch.chdir(image.parent)
    image.rename("drive.img")
    Path(f"{image}.zones").rename("drive.img.zones")
    (drive,) = zoned("report", "--json", "drive.img").json["drives"]
    zones = [zone for zone in drive["zones"] if zone["type"] != "conventional"]
    written = 0
    for zone in zones:
        if zone["condition"] == "full":
            written += zone["capacity_bytes"]
        elif zone["condition"] in ("empty", "implicit-open", "explicit-open", "closed"):
            written += zone["wp_bytes"] - zone["start_bytes"]
    exec(PROGRAMS[0], {})
    assert capfd.readouterr().out.endswith(f" zones, {written} bytes written\n")
    summary = zoned("report", "--json", "--summary", "drive.img").json["drives"][0]["summary"]
    assert summary["written_sequential_bytes"] == written


def test_format_and_fill(drive: Path, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "content.raw").write_bytes(content)
    exec(PROGRAMS[1], {})
    with zoned_tools.open_target(drive) as target:
        with target.open() as device:
            buffered = io.BufferedReader(device)
            assert buffered.read(len(content)) == content
            buffered.seek(-10, io.SEEK_END)
            assert buffered.read() == bytes(10)
        extents = list(target.map())
        assert sum(e.blocks for e in extents if e.physical_block is not None) == len(content) // 4096
        result = target.export(tmp_path / "out.raw")
        assert (tmp_path / "out.raw").read_bytes()[: len(content)] == content
        assert result.data_bytes == len(content)


@pytest.mark.usefixtures("archive")
def test_check_a_shelf(drive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exec(PROGRAMS[2], {})
    assert capfd.readouterr().out.startswith("drive.img dm-zoned clean\n")
    with drive.open("r+b") as file:
        file.write(b"\xff" * 4096)
    exec(PROGRAMS[2], {})
    assert "error dm-zoned.sb-bad-magic" in capfd.readouterr().out


@pytest.mark.usefixtures("archive")
def test_repair_when_the_rehearsal_is_clean(drive: Path, tmp_path: Path) -> None:
    with drive.open("r+b") as file:
        file.write(b"\xff" * 4096)
    exec(PROGRAMS[3], {})
    assert (tmp_path / "before.undo").exists()
    with zoned_tools.open_target(drive) as target:
        assert not target.check().has_errors


def test_checksum_of_the_device(archive: bytes, drive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exec(PROGRAMS[4], {})
    with zoned_tools.open_target(drive) as target, target.open() as device:
        content = archive.ljust(device.size_bytes, b"\0")
    assert capfd.readouterr().out == f"{hashlib.sha256(content).hexdigest()}\n"


@pytest.mark.usefixtures("archive")
def test_a_zip_file_reads_through_the_device(drive: Path, archive: bytes) -> None:
    with zoned_tools.open_target(drive) as target, target.open() as device:
        assert zipfile.ZipFile(io.BytesIO(device.read(len(archive)))).read("hello.txt") == b"hello"


@pytest.mark.usefixtures("archive")
def test_a_read_only_device_refuses(drive: Path) -> None:
    with zoned_tools.open_target(drive) as target, target.open() as device:
        assert not device.writable()
        with pytest.raises(io.UnsupportedOperation):
            device.write(b"x")
        with pytest.raises(ValueError, match="negative"):
            device.seek(-1)


def test_format_refuses_content(drive: Path) -> None:
    zoned_tools.format(drive, layout="zonefs", label="one")
    with pytest.raises(zoned_tools.ContentError):
        zoned_tools.format(drive, layout="dm-zoned")
    zoned_tools.format(drive, layout="dm-zoned", force=True)
    identity = zoned_tools.probe(drive)
    assert identity is not None
    assert identity.layout == "dm-zoned"


def test_unknown_settings_are_refused(drive: Path) -> None:
    with pytest.raises(zoned_tools.UsageError, match="has no setting 'colour'"):
        zoned_tools.format(drive, layout="zonefs", colour="red")
    zoned_tools.format(drive, layout="zonefs")
    with zoned_tools.open_target(drive) as target:
        with pytest.raises(zoned_tools.UsageError, match="has no setting 'colour'"):
            target.check(colour="red")
        with pytest.raises(zoned_tools.UsageError, match="has no finding 'nonsense'"):
            target.plan_repair(target.check(), allow=["nonsense"])
