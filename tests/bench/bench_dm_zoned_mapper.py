"""Speed of the dm-zoned mapper: ``python tests/bench/bench_dm_zoned_mapper.py [--directory DIR]``.

Prints single-block reads and writes per second, bulk lookup, and the time of an export of a
full image beside that of ``cp`` of the same data (sequential, page cache warm).
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from zoned_tools.device.base import Device, Geometry
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import Model, make_table
from zoned_tools.formats.contract import Settings, Target
from zoned_tools.formats.dm_zoned.format import FormatOptions, format_target
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper
from zoned_tools.formats.dm_zoned.mapper.write import DmZonedMapper

BLOCK = 4096
MIB = 1 << 20


def make_image(path: Path, zones: int, zone_bytes: int, conventional: int) -> Device:
    """A formatted image, open for writing."""
    size = zones * zone_bytes
    table = make_table(size // 512, zone_bytes // 512, nr_conventional=conventional)
    create_image(str(path), Geometry(Model.HOST_MANAGED, size, zone_bytes, zones), table, overwrite=True)
    device = open_image(str(path), writable=True)
    target = Target("dm-zoned", (device,))
    apply_plan([device], format_target(target, FormatOptions(label="bench")).plan.steps)
    return device


def timed(name: str, unit: str, count: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    print(f"{name:<44} {count / seconds:12,.0f} {unit}/s   ({count:,} in {seconds:.2f} s)", flush=True)
    return seconds


def fill(mapper: DmZonedMapper, size_mib: int) -> None:
    data = os.urandom(MIB) * 8
    for block in range(0, size_mib * 256, len(data) // BLOCK):
        mapper.write(block, data)


def single_blocks(mapper: DmZonedMapper, blocks: int, zone_blocks: int, rounds: int) -> None:
    chance = random.Random(1)
    places = [chance.randrange(blocks) for _ in range(rounds)]
    few = [place % (4 * zone_blocks) for place in places]  # the buffer zones of 4 chunks are enough
    data = os.urandom(BLOCK)

    def read() -> None:
        for place in places:
            mapper.read(place, 1)

    def write() -> None:
        for place in few:
            mapper.write(place, data)
        mapper.flush()

    def append() -> None:
        for place in range(blocks, blocks + rounds):
            mapper.write(place, data)
        mapper.flush()

    timed("single-block reads, random", "blocks", rounds, read)
    timed("single-block writes, sequential", "blocks", rounds, append)
    timed("single-block writes, random in 4 chunks", "blocks", rounds, write)


def reclaim(mapper: DmZonedMapper) -> None:
    started = time.perf_counter()
    steps = mapper.reclaim()
    seconds = time.perf_counter() - started
    print(f"{'reclaim of everything, idle':<44} {steps / seconds:12,.0f} zones/s   ({steps} steps in {seconds:.2f} s)")


def lookups(mapper: DmZonedMapper) -> None:
    found = 0

    def work() -> None:
        nonlocal found
        found = sum(1 for _ in mapper.lookup(0, mapper.size_blocks))

    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    rate = mapper.size_blocks / seconds
    print(f"{'bulk lookup':<44} {rate:12,.0f} blocks/s   ({found:,} extents in {seconds * 1000:.1f} ms)")


def export(mapper: DmZonedMapper, path: Path) -> None:
    """What an export has to do: holes left out, one buffer, whole runs."""
    buffer = memoryview(bytearray(1024 * BLOCK))
    with open(path, "wb", buffering=0) as out:
        for start, count in mapper.data_extents(0, mapper.size_blocks):
            for block in range(start, start + count, 1024):
                part = buffer[: min(1024, start + count - block) * BLOCK]
                mapper.read_into(block, part)
                out.seek(block * BLOCK)
                out.write(part)
        out.truncate(mapper.size_blocks * BLOCK)


def compare_with_cp(mapper: DmZonedMapper, image: Path, directory: Path, size_mib: int, rounds: int) -> None:
    out, copy, plain = directory / "export.raw", directory / "copy.raw", directory / "plain.raw"
    export(mapper, plain)  # cp of the same data: the exported content itself
    ours = theirs = float("inf")
    for _ in range(rounds):
        out.unlink(missing_ok=True)
        started = time.perf_counter()
        export(mapper, out)
        ours = min(ours, time.perf_counter() - started)
        copy.unlink(missing_ok=True)
        started = time.perf_counter()
        subprocess.run(["cp", "--reflink=never", str(plain), str(copy)], check=True)
        theirs = min(theirs, time.perf_counter() - started)
    same = subprocess.run(["cmp", str(out), str(copy)], check=False).returncode == 0
    print(
        f"{'export of ' + str(size_mib) + ' MiB':<44} {size_mib / ours:12,.0f} MiB/s   "
        f"cp {size_mib / theirs:,.0f} MiB/s, ratio {theirs / ours:.2f}{'' if same else '  CONTENT DIFFERS'}"
    )
    for path in (out, copy, plain):
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=None, help="where the images go")
    parser.add_argument("--size-mib", type=int, default=1024, help="data to export")
    parser.add_argument("--zone-mib", type=int, default=16, help="zone size")
    parser.add_argument("--blocks", type=int, default=20000, help="single-block requests")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of export and cp")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = Path(name)
        conventional = 24
        zones = conventional + arguments.size_mib // arguments.zone_mib + 32
        image = directory / "bench.img"
        device = make_image(image, zones, arguments.zone_mib * MIB, conventional)
        mapper = open_mapper(Target("dm-zoned", (device,)), writable=True, settings=Settings())
        timed(
            "bulk writes (8 MiB each, with reclaim)",
            "MiB",
            arguments.size_mib,
            lambda: fill(mapper, arguments.size_mib),
        )
        mapper.flush()
        compare_with_cp(mapper, image, directory, arguments.size_mib, arguments.rounds)
        lookups(mapper)
        single_blocks(mapper, arguments.size_mib * 256, arguments.zone_mib * 256, arguments.blocks)
        reclaim(mapper)
        lookups(mapper)
        mapper.close()
        device.close()


if __name__ == "__main__":
    main()
