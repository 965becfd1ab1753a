"""dm-zoned targets of a lab kernel and the work that is done on them. For use inside a guest."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.devices import modprobe, run
from tests.lab.programs import program


@contextmanager
def started(*paths: str, name: str = "lab") -> Iterator[str]:
    """Run the kernel's target on devices with the line that ``zoned table`` prints; yields the logical device."""
    modprobe("dm-zoned")
    run("dmsetup", "create", name, text=program("zoned", "table", *paths).out)
    try:
        yield f"/dev/mapper/{name}"
    finally:
        run("dmsetup", "remove", "--retry", name)


def check(*paths: str) -> dict[str, Any]:
    """What ``zoned check --json`` says about one target; ``dmzadm --check`` must agree."""
    document = json.loads(program("zoned", "check", "--json", *paths, status=None).out)
    (target,) = document["devices"]
    clone = program("dmzadm", "--check", *paths, status=None)
    assert (clone.status == 0) == (target["verdict"] == "clean"), clone.out + clone.err
    result: dict[str, Any] = target
    return result


def assert_clean(*paths: str) -> dict[str, Any]:
    """No finding at all; returns the facts that the check learnt."""
    target = check(*paths)
    assert target["verdict"] == "clean", target["findings"]
    assert target["findings"] == []
    facts: dict[str, Any] = target["facts"]
    return facts


def assert_same_content(logical: str, *paths: str) -> None:
    """The export of a target's devices (or of a copy of them) is what its running kernel target shows."""
    exported = Path(run("mktemp").stdout.strip())
    program("zoned", "export", *paths, "--force", "-o", exported)
    try:
        run("cmp", exported, logical)
    finally:
        exported.unlink()


def fio(path: str, *, seed: int, block: str = "16k", amount: str = "24m", **options: object) -> None:
    """Random writes all over a device, read back and verified."""
    words = {
        "name": "lab",
        "filename": path,
        "direct": 1,
        "ioengine": "psync",
        "rw": "randwrite",
        "bs": block,
        "io_size": amount,
        "randseed": seed,
        "verify": "crc32c",
        "verify_fatal": 1,
        **options,
    }
    run("fio", *(f"--{key}={value}" for key, value in words.items()))


def reclaim(name: str = "lab", seconds: float = 20) -> None:
    """Make the target reclaim all that it can and wait until it is done."""
    end = time.monotonic() + seconds
    before = ""
    while time.monotonic() < end:
        run("dmsetup", "message", name, "0", "reclaim")
        time.sleep(1)
        status = run("dmsetup", "status", name).stdout
        if status == before:
            return
        before = status


def make_tree(root: Path, seed: int, files: int = 40) -> dict[str, str]:
    """Write a tree of files of mixed sizes, delete and overwrite some; digest by relative path."""
    choose = random.Random(seed)
    for number in range(files):
        directory = root / f"directory-{number % 5}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"file-{number}"
        path.write_bytes(choose.randbytes(choose.choice([0, 100, 5000, 70000, 300000])))
    for path in choose.sample(sorted(root.glob("directory-*/file-*")), files // 4):
        path.unlink()
    for path in choose.sample(sorted(root.glob("directory-*/file-*")), files // 4):
        with open(path, "r+b") as file:
            file.seek(choose.randrange(10000))
            file.write(choose.randbytes(9000))
    return digests(root)


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file of a tree by relative path."""
    files: Sequence[Path] = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def mounted(device: str, directory: Path, kind: str = "ext4") -> Iterator[Path]:
    directory.mkdir(exist_ok=True)
    run("mount", "-t", kind, device, directory)
    try:
        yield directory
    finally:
        run("umount", directory)


def restore_dump(prefix: Path, device: str) -> None:
    """Bring a ``zbd dump`` pair (also one of ours) onto a real drive of the same shape."""
    run("zbd", "restore", "-d", prefix.parent, "-f", prefix.name, device)


def dump(device: str, prefix: Path) -> str:
    """``zbd dump`` a drive; path of the pair's data file, which our tools open."""
    run("zbd", "dump", "-d", prefix.parent, "-f", prefix.name, device)
    return f"{prefix}_zone_data.dump"
