"""What needs every device of a file system is refused while one is not given (btrfs-zoned.md 12)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.archives import unpack
from tests.formats.btrfs.images import STATES, SUPER_BYTES, VECTORS, head_of, make_super, torn
from zoned_tools.device.image import open_image
from zoned_tools.formats.btrfs.survey import survey_device

if TYPE_CHECKING:
    from tests.programs import Program

TWO = ["g18-raid1-two-healthy", "g20-raid0-two-healthy"]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return own_pair("g18-raid1-two-healthy", tmp_path)


def own_pair(name: str, directory: Path) -> tuple[Path, Path]:
    unpack(VECTORS / f"{name}.tar.xz", directory)
    first, second = (directory / device for device in STATES[name]["devices"])
    for path in (first, second, Path(f"{first}.zones"), Path(f"{second}.zones")):
        path.chmod(0o644)
    return first, second


def digests(*paths: Path) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for path in paths for file in (path, Path(f"{path}.zones"))]


def append(image: Path, **changes: Any) -> None:
    """Commit the newest super block once more, with other fields."""
    with open_image(str(image), writable=True) as drive:
        survey = survey_device(drive)
        head = head_of(survey.mirrors[0])
        block = make_super(int(head["generation"]) + 1, base=survey.block(head), **changes)
        drive.write(int(head["offset_bytes"]) + SUPER_BYTES, block)


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("number", [0, 1])
def test_rollback_of_one_device_is_refused(name: str, number: int, tmp_path: Path, program: Program) -> None:
    """The kernel would take the other one, which has the highest generation."""
    devices = own_pair(name, tmp_path)
    before = digests(*devices)
    for extra in ((), ("--dry-run",), ("--json",)):
        refused = program(
            "zoned",
            "btrfs",
            "rollback",
            *extra,
            "--to-generation",
            STATES[name]["rollback_generation"],
            devices[number],
        )
        assert refused.status == 8
        assert "1 of 2 devices given" in refused.err
        assert f"not there: {2 - number}" in refused.err
    assert digests(*devices) == before


@pytest.mark.parametrize("name", TWO)
def test_both_devices_go_back_together(name: str, tmp_path: Path, program: Program) -> None:
    devices = own_pair(name, tmp_path)
    generation = STATES[name]["rollback_generation"]
    assert program("zoned", "btrfs", "rollback", "--to-generation", generation, *devices).status == 0
    for device in devices:
        ring = program("zoned", "btrfs", "supers", "--json", device).json["rings"][0]
        assert ring["kernel_choice"]["generation"] == generation


def test_check_of_one_device_says_what_it_did_not_judge(pair: tuple[Path, Path], program: Program) -> None:
    [row] = program("zoned", "check", "--deep", "--json", pair[0]).json["devices"]
    [missing] = [f for f in row["findings"] if f["id"] == "btrfs.device-missing"]
    assert (row["verdict"], missing["severity"]) == ("clean", "warning")
    mirrored = [g["logical"] for g in STATES["g18-raid1-two-healthy"]["block_groups"] if g["profile"] == "RAID1"]
    assert missing["where"] == {"given": 1, "needed": 2, "devids": [2], "block_groups": mirrored}


@pytest.mark.parametrize(
    ("changes", "code"), [({}, "roots-unreadable"), ({"log_root": 29360128}, "log-unreadable")], ids=["roots", "log"]
)
def test_repairs_that_lose_commits_need_all_devices(
    changes: dict[str, int], code: str, tmp_path: Path, program: Program
) -> None:
    first, second = own_pair("g18-raid1-two-healthy", tmp_path)
    if code == "log-unreadable":
        with open_image(str(first), writable=True) as drive:
            survey = survey_device(drive)
            head = head_of(survey.mirrors[0])
            block = make_super(int(head["generation"]), base=survey.block(head), log_root=1 << 50)
            drive.write(int(head["offset_bytes"]) + SUPER_BYTES, block)
    else:
        append(first, chunk_root=1 << 50)
    before = digests(first, second)
    refused = program("zoned", "check", "--repair", "--allow", code, first)
    assert refused.status == 8
    assert "1 of 2 devices given" in refused.err
    assert digests(first, second) == before


def test_trees_are_those_of_the_device_with_the_highest_generation(pair: tuple[Path, Path], program: Program) -> None:
    """As a mount takes them: the first device's newest super block is older, and its roots are lost."""
    with open_image(str(pair[0]), writable=True) as drive:
        survey = survey_device(drive)
        head = head_of(survey.mirrors[0])
        block = make_super(int(head["generation"]) - 1, base=survey.block(head), chunk_root=1 << 50)
        drive.write(int(head["offset_bytes"]) + SUPER_BYTES, block)
    [row] = program("zoned", "check", "--json", *pair).json["devices"]
    assert row["verdict"] == "clean"
    assert row["facts"]["trees_checked"] == "roots"


def test_a_torn_head_is_repaired_on_one_device(pair: tuple[Path, Path], program: Program) -> None:
    """The same generation is written again: nothing of the other device's is lost."""
    first, _ = pair
    with open_image(str(first), writable=True) as drive:
        survey = survey_device(drive)
        head = head_of(survey.mirrors[0])
        block = make_super(int(head["generation"]) + 1, base=survey.block(head))
        drive.write(int(head["offset_bytes"]) + SUPER_BYTES, torn(block))
    assert program("zoned", "check", first).status == 4
    assert program("zoned", "check", "--repair", first).status == 1
