"""Whatever is given, the answer is one line and the documented exit status."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoned_tools.cli.run import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.programs import Program, Result

ARCHIVE = Path(__file__).parents[1] / "vectors" / "dm-zoned" / "hm64x1.tar.xz"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A populated dm-zoned image and its zone table."""
    folder = tmp_path_factory.mktemp("good")
    with tarfile.open(ARCHIVE) as archive:
        for name in ("disk.img", "disk.img.zones"):
            archive.extract(name, folder, filter="data")
    return folder / "disk.img"


def _copy(good: Path, folder: Path) -> Path:
    for name in ("disk.img", "disk.img.zones"):
        shutil.copy(good.parent / name, folder / name)
    return folder / "disk.img"


def _missing(_good: Path, folder: Path) -> Path:
    return folder / "nothing.img"


def _zero_length(_good: Path, folder: Path) -> Path:
    path = folder / "empty.img"
    path.touch()
    return path


def _directory(_good: Path, folder: Path) -> Path:
    return folder


def _fifo(_good: Path, folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def _truncated(good: Path, folder: Path) -> Path:
    path = _copy(good, folder)
    os.truncate(path, 1 << 20)
    return path


def _truncated_in_metadata(good: Path, folder: Path) -> Path:
    path = _copy(good, folder)
    os.truncate(path, 4096)
    return path


def _truncated_sidecar(good: Path, folder: Path) -> Path:
    path = _copy(good, folder)
    os.truncate(f"{path}.zones", 1000)
    return path


def _empty_sidecar(good: Path, folder: Path) -> Path:
    path = _copy(good, folder)
    os.truncate(f"{path}.zones", 0)
    return path


def _foreign_sidecar(good: Path, folder: Path) -> Path:
    path = _copy(good, folder)
    zones = Path(__file__).parents[1] / "vectors/zone-report/scsi-debug-aware/disk.img.zones"
    shutil.copy(zones, f"{path}.zones")
    os.truncate(path, (64 << 20) + 4096)
    return path


def _sidecar_is_a_directory(good: Path, folder: Path) -> Path:
    path = _copy(good, folder)
    os.unlink(f"{path}.zones")
    os.mkdir(f"{path}.zones")
    return path


def _not_zoned(_good: Path, folder: Path) -> Path:
    path = folder / "plain.img"
    path.write_bytes(bytes(8 << 20))
    return path


def _odd_size(_good: Path, folder: Path) -> Path:
    path = folder / "odd.img"
    path.write_bytes(b"x" * 12345)
    return path


def _character_device(_good: Path, _folder: Path) -> Path:
    return Path("/dev/null")


def _name_too_long(_good: Path, folder: Path) -> Path:
    return folder / ("x" * 300)


Input: TypeAlias = "Callable[[Path, Path], Path]"
"""Makes a path out of a good image and a folder to put things in."""

INPUTS: list[Input] = [
    _missing, _zero_length, _directory, _fifo, _truncated, _truncated_in_metadata, _truncated_sidecar, _empty_sidecar,
    _foreign_sidecar, _sidecar_is_a_directory, _not_zoned, _odd_size, _character_device, _name_too_long,
]  # fmt: skip


ENDS_EARLY = (_truncated, _truncated_in_metadata)
"""Can be read: what is missing is a finding."""


def _complaints(result: Result) -> list[str]:
    """Lines on standard error that say why a command failed, not what it assumed of an image."""
    return [line for line in result.err.splitlines() if ": warning: " not in line]


@pytest.mark.parametrize("make", INPUTS, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("operation", ["--format", "--check", "--repair", "--relabel", "--start", "--stop"])
def test_dmzadm_on_bad_input(make: Input, operation: str, good: Path, tmp_path: Path, program: Program) -> None:
    path = make(good, tmp_path)
    result = program("dmzadm", operation, path)
    assert result.status == 1
    if make not in ENDS_EARLY or operation != "--check":
        assert len(_complaints(result)) == 1, result.err
    assert all(line.startswith("dmzadm: ") for line in result.err.splitlines())
    assert "Traceback" not in result.out + result.err


@pytest.mark.parametrize("make", INPUTS, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("command", [("report",), ("check",), ("probe",), ("inspect",), ("zone", "reset", "--all")])
def test_zoned_on_bad_input(
    make: Input, command: tuple[str, ...], good: Path, tmp_path: Path, program: Program
) -> None:
    path = make(good, tmp_path)
    result = program("zoned", *command, path)
    assert "Traceback" not in result.out + result.err
    if command[0] == "probe" and result.status == 0:
        return  # a regular file without a layout is an answer
    if command[0] == "report" and "truncated" in make.__name__ and "sidecar" not in make.__name__:
        assert result.status == 0, "the zone table is whole"
        return
    if make in ENDS_EARLY and command[0] != "zone":
        assert result.status in (0, 4, 8), (result.out, result.err)
        return
    assert result.status == 8, (result.out, result.err)
    assert len(_complaints(result)) == 1, result.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop privileges")
def test_unreadable(good: Path, tmp_path: Path) -> None:
    path = _copy(good, tmp_path)
    path.chmod(0)
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os._exit(run("dmzadm", ["--check", str(path)]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


METADATA_BYTES = 2 << 20


@settings(max_examples=120)
@given(
    patches=st.lists(
        st.tuples(st.integers(0, METADATA_BYTES - 1), st.binary(min_size=1, max_size=64)), min_size=1, max_size=6
    )
)
def test_random_damage_gives_findings_or_a_clear_error(
    patches: list[tuple[int, bytes]], good: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = _copy(good, folder)
    with open(path, "r+b") as image:
        for offset, data in patches:
            image.seek(offset)
            image.write(data)
    status = run("dmzadm", ["--check", str(path)])
    assert status in (0, 1, 255)
    assert run("zoned", ["check", "--json", str(path)]) in (0, 4, 8)
    shutil.rmtree(folder)


@settings(max_examples=60)
@given(
    patches=st.lists(st.tuples(st.integers(0, 4287), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_random_damage_of_the_zone_table(
    patches: list[tuple[int, int]], good: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = _copy(good, folder)
    with open(f"{path}.zones", "r+b") as zones:
        for offset, value in patches:
            zones.seek(offset)
            zones.write(bytes([value]))
    assert run("dmzadm", ["--check", str(path)]) in (0, 1, 255)
    assert run("zoned", ["report", str(path)]) in (0, 8)
    shutil.rmtree(folder)
