"""Single fields of the newest super block: what this kernel does with each change is what the verdicts say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archives import unpack
from tests.formats.btrfs.images import VECTORS, poke
from tests.lab import devices
from tests.lab.btrfs_mounts import MOUNT_POINT, kernel_log, try_mount, unmount
from tests.lab.devices import modprobe, null_blk, run
from tests.lab.programs import program
from tests.lab.test_btrfs import restore

pytestmark = pytest.mark.lab(guest="file-systems", **devices.MACHINE)

VERDICTS: dict[str, Any] = json.loads((VECTORS / "superblocks" / "field-verdicts.json").read_text())


@pytest.fixture(autouse=True)
def nothing_stays_mounted() -> Iterator[None]:
    yield
    run("umount", MOUNT_POINT, check=False)


def outcome(device: str) -> str:
    """What the kernel does: refuses, mounts read-only alone, mounts and writes or not."""
    if try_mount(device, "ro"):
        return "refused"
    unmount()
    if try_mount(device):
        return "read-only only"
    try:
        Path(MOUNT_POINT, "new").write_bytes(b"new" * 1000)
        run("btrfs", "filesystem", "sync", MOUNT_POINT)
    except (OSError, AssertionError):
        return "mounts; writing fails"
    else:
        return "mounts, writes"
    finally:
        unmount()


def test_the_table_is_true_of_this_kernel(tmp_path: Path) -> None:
    modprobe("btrfs")
    image = unpack(VECTORS / "superblocks" / VERDICTS["base"], tmp_path) / "disk.img"
    for path in (image, Path(f"{image}.zones")):
        path.chmod(0o644)
    head = VERDICTS["head_offset_bytes"]
    sound = image.read_bytes()[head : head + 4096]
    wrong = {}
    with null_blk(size_mib=128) as disk:
        for case in VERDICTS["cases"]:
            block = bytearray(sound)
            for at, text in case["edits"]:
                block[at : at + len(text) // 2] = bytes.fromhex(text)
            poke(image, head, bytes(block))
            restore(str(image), disk.path)
            checked = program("zoned", "check", disk.path, status=None).status
            seen = outcome(disk.path)
            if not case["kernel"].startswith(seen) or (checked == 4) != (case["check"] == "error"):
                wrong[case["name"]] = (seen, checked, case["kernel"], case["check"])
    wrong.pop("logroot=root", None)  # either: 6.12 has that node in its cache
    assert not wrong, f"{wrong}\n{kernel_log()}"
