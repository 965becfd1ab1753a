#!/usr/bin/env python3
"""Measure scanning a full ring of two 256 MiB zones (131,072 super blocks) with verified checksums.

    python tests/bench/bench_btrfs.py [--csum crc32c xxhash sha256 blake2] [--directory DIR]

Prints, best of several runs, the scan (reading included) beside the bare library: one call over
the same bytes in one buffer, and one call for each super block in it. ``ratio`` is the first
divided by the scan; 0.5 is wanted. Then the whole command, and finding only the latest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from zoned_tools.device.base import Geometry
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.zones import Model, ZoneCondition, make_table
from zoned_tools.formats.btrfs.checksum import ALGORITHMS
from zoned_tools.formats.btrfs.layout import SUPER_BLOCK_OFFSETS, SUPER_BYTES
from zoned_tools.formats.btrfs.survey import survey_device

VECTORS = Path(__file__).parents[1] / "vectors" / "btrfs-zoned" / "superblocks"
ZONE_BYTES = 256 << 20
RING_BYTES = 2 * ZONE_BYTES


def best(action: Callable[[], object], times: int = 9, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of the fastest run; of the processor, so that other programs disturb less."""
    seconds = []
    for _ in range(times):
        started = clock()
        action()
        seconds.append(clock() - started)
    return min(seconds)


def make_ring(path: Path, block: bytes) -> None:
    """A drive whose first two zones are full of one valid super block."""
    size = 5 * ZONE_BYTES
    table = make_table(size // 512, ZONE_BYTES // 512)
    table["condition"][:2] = ZoneCondition.FULL
    create_image(str(path), Geometry(Model.HOST_MANAGED, size, ZONE_BYTES, 5), table, overwrite=True)
    with open(path, "r+b") as file:
        file.writelines(block * 256 for _ in range(RING_BYTES // (SUPER_BYTES * 256)))
        os.fsync(file.fileno())


def measure(path: Path, csum: str) -> None:
    block = (VECTORS / f"{csum}.bin").read_bytes()
    at = SUPER_BLOCK_OFFSETS["csum_type"]
    compute = ALGORITHMS[int.from_bytes(block[at : at + 2], "little")].make_bulk()
    make_ring(path, block)
    with open_image(str(path)) as device:
        found = survey_device(device).mirrors[0].copies
        assert len(found) == RING_BYTES // SUPER_BYTES
        assert found["valid"].all()
        scan = best(lambda: survey_device(device))
    with open(path, "rb") as file:
        buffer = file.read(RING_BYTES)
    view = memoryview(buffer)
    one = best(lambda: compute(view))
    each = best(lambda: [compute(view[start : start + 4064]) for start in range(32, RING_BYTES, SUPER_BYTES)])
    print(f"{csum:8} scan {scan:.3f} s, one call {one:.3f} s, a call each {each:.3f} s, ratio {one / scan:.2f}")


def whole_command(path: Path, *options: str) -> None:
    command = [str(Path(sys.executable).parent / "zoned"), "btrfs", "supers", *options, str(path)]
    seconds = best(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), 3, time.perf_counter)
    print(f"zoned btrfs supers {' '.join(options)}: {seconds:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csum", nargs="+", default=["crc32c", "xxhash", "sha256", "blake2"])
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        path = Path(directory) / "ring.img"
        for csum in arguments.csum:
            measure(path, csum)
        for options in ((), ("--json",), ("--latest",)):
            whole_command(path, *options)


if __name__ == "__main__":
    main()
