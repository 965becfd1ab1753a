#!/usr/bin/env python3
"""Measure format, check and report of dm-zoned drives of 256 MiB zones, all chunks mapped.

    python tests/bench/bench_dm_zoned.py [--zones 3584 14336 57344] [--directory DIR]

Prints seconds of whole processes (best of three), the peak memory of check, and ratios that
do not depend on the machine: check against ``cat`` of the same metadata bytes, and time per
zone against the smallest drive (1.0 is linear).

    python tests/bench/bench_dm_zoned.py --findings 230000 [--directory DIR]

measures ``zoned check`` of a drive of that many zones of 64 MiB on which nearly every rule is broken
everywhere (750,000 findings; the image takes 2 GB): CPU seconds and peak memory as text, as JSON and
of ``--repair --dry-run``, against what is promised.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoned_tools.device import dump
from zoned_tools.device.image import open_image, write_sidecar
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES
from zoned_tools.formats.dm_zoned.open import open_blocks

PROGRAMS = Path(sys.executable).parent
REFERENCE_SECONDS_57344 = 5.2
"""CPU seconds of the C tool's check of the largest drive, on a machine of the same class."""


_LAUNCHER = """
import json, resource, subprocess, sys, time
with open(sys.argv[1], "wb") as output:
    started = time.perf_counter()
    status = subprocess.call(sys.argv[2:], stdout=output)
    seconds = time.perf_counter() - started
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, seconds, usage.ru_maxrss, usage.ru_utime + usage.ru_stime]))
"""


class Cost(NamedTuple):
    """What one process took."""

    seconds: float
    peak_kib: int
    cpu_seconds: float


def run(*command: object, output: str = "/dev/null", expected: int = 0) -> Cost:
    """Run one process, started by a small one whose own memory does not count."""
    words = [sys.executable, "-S", "-c", _LAUNCHER, output, *map(str, command)]
    status, *cost = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    if status != expected:
        raise SystemExit(f"{command} ended with {status}")
    return Cost(*cost)


def best(*command: object, times: int = 3) -> tuple[float, int]:
    return min(run(*command)[:2] for _ in range(times))


def map_everything(image: Path) -> tuple[list[tuple[int, int]], int]:
    """Map every chunk to a full sequential zone with all blocks valid, in both sets.

    Returns the byte ranges of the metadata, and how many bytes they are.
    """
    with open_image(str(image), writable=True) as drive:
        state = read_state(open_blocks(Target("dm-zoned", (drive,))))
        layout, geometry = state.layout, state.geometry
        assert layout is not None
        zones = np.flatnonzero(geometry.sequential)[: layout.nr_chunks]
        conventional = np.arange(layout.metadata_zones.stop, geometry.nr_cache)
        zones = np.concatenate((conventional[: layout.nr_chunks - len(zones)], zones))[: layout.nr_chunks]
        table = np.full(layout.nr_map_blocks * 512 * 2, 0xFFFFFFFF, "<u4").reshape(-1, 2)
        table[: len(zones), 0] = zones
        ones = b"\xff" * (layout.nr_bitmap_blocks // geometry.nr_zones * BLOCK_BYTES)
        ranges = []
        for number in (0, 1):
            start = layout.set_block(number) * BLOCK_BYTES
            ranges.append((start, layout.nr_meta_blocks * BLOCK_BYTES))
            drive.write(layout.map_block(number) * BLOCK_BYTES, table.tobytes())
            for zone in zones.tolist():
                drive.write(layout.bitmap_block(number) * BLOCK_BYTES + zone * len(ones), ones)
        zone_table, facts = drive.zones(), drive.geometry
    full = zones[zones >= geometry.nr_cache]
    zone_table["condition"][full] = ZoneCondition.FULL
    zone_table["wp_sector"][full] = zone_table["start_sector"][full] + zone_table["length_sectors"][full]
    write_sidecar(f"{image}.zones", dump.encode(facts, zone_table))
    return ranges, sum(length for _, length in ranges)


def cat_metadata(image: Path, ranges: list[tuple[int, int]]) -> float:
    """Seconds of ``cat`` over the same bytes, from a file of their own."""
    copy = image.with_suffix(".metadata")
    with open(image, "rb") as source, open(copy, "wb") as target:
        for start, length in ranges:
            source.seek(start)
            target.write(source.read(length))
    seconds, _ = best("cat", copy)
    copy.unlink()
    return seconds


def measure(directory: Path, nr_zones: int) -> dict[str, float]:
    """All figures of one drive."""
    image = directory / f"{nr_zones}.img"
    conventional = max(nr_zones // 100, 20)
    run(PROGRAMS / "zoned", "image", "create", image, "--zones", nr_zones, "--conventional", conventional)
    format_seconds, _ = best(PROGRAMS / "dmzadm", "--format", image, "--label=bench", "--force", "--seq=16")
    ranges, metadata_bytes = map_everything(image)
    check_seconds, peak = best(PROGRAMS / "dmzadm", "--check", image)
    figures = {
        "zones": nr_zones,
        "metadata_mib": metadata_bytes / (1 << 20),
        "format_s": format_seconds,
        "check_s": check_seconds,
        "check_mib": peak / 1024,
        "cat_s": cat_metadata(image, ranges),
        "report_s": best(PROGRAMS / "zoned", "report", image)[0],
        "json_s": best(PROGRAMS / "zoned", "report", image, "--json")[0],
    }
    image.unlink()
    return figures


# -- a million findings

ZONE_MIB = 64
LIMITS = {"text CPU s": 2.0, "text MiB": 200.0, "JSON MB/s": 150.0, "dry run MiB": 300.0}
"""What is promised; the rate is a lower limit."""


def break_everything(image: Path) -> None:
    """Damage both sets of an empty target alike: lost zones, reset zones, bits everywhere.

    Three of four chunks name zones that do not exist, the others are on zones whose bits go beyond the write
    pointer, or that are empty. Every zone's bitmap has bits inside the zone and beyond its end.
    """
    with open_image(str(image), writable=True) as drive:
        state = read_state(open_blocks(Target("dm-zoned", (drive,))))
        layout, geometry = state.layout, state.geometry
        assert layout is not None
        table = np.full((layout.nr_map_blocks * 512, 2), 0xFFFFFFFF, "<u4")
        chunks = np.arange(layout.nr_chunks)
        lost = chunks % 4 != 0
        table[: layout.nr_chunks, 0] = np.where(lost, geometry.nr_zones + chunks, geometry.nr_zones - 1 - chunks)
        table[: layout.nr_chunks, 1][lost] = geometry.nr_zones + chunks[lost]
        for number in (0, 1):
            drive.write(layout.map_block(number) * BLOCK_BYTES, table.tobytes())
            for zone in range(0, geometry.nr_zones, 1024):
                count = min(1024, geometry.nr_zones - zone)
                rows = np.zeros((count, BLOCK_BYTES // 8), "<u8")
                rows[:, 0] = np.arange(zone, zone + count) | 1 << 20
                rows[:, geometry.zone_blocks // 64] = 3
                drive.write(layout.bitmap_block(number, zone) * BLOCK_BYTES, rows.tobytes())
        zone_table, facts = drive.zones(), drive.geometry
    sequential = np.flatnonzero(geometry.sequential)
    mapped = table[: layout.nr_chunks, 0][~lost].astype(np.int64)
    half = mapped[: len(mapped) // 2]  # these are written for a bit, the other mapped ones are empty
    zone_table["condition"][half] = ZoneCondition.CLOSED
    zone_table["wp_sector"][half] = zone_table["start_sector"][half] + 128
    zone_table["condition"][np.setdiff1d(sequential, mapped)] = ZoneCondition.FULL
    write_sidecar(f"{image}.zones", dump.encode(facts, zone_table))


_AGREED = ("--allow", "dm-zoned.zones-foreign")
"""Without it nothing is planned: the zone table contradicts the metadata everywhere."""


def measure_findings(directory: Path, nr_zones: int) -> None:
    """Print what a check of a broken drive costs, and whether that is as promised."""
    image, document = directory / "broken.img", directory / "check.json"
    options = ("--zone-size", f"{ZONE_MIB}M", "--zones", nr_zones, "--conventional", max(nr_zones // 100, 40))
    run(PROGRAMS / "zoned", "image", "create", image, *options)
    run(PROGRAMS / "dmzadm", "--format", image, "--label=bench", "--force", "--seq=16")
    break_everything(image)
    text = min((run(PROGRAMS / "zoned", "check", image, expected=4) for _ in range(3)), key=lambda c: c.cpu_seconds)
    as_json = run(PROGRAMS / "zoned", "check", image, "--json", output=str(document), expected=4)
    megabytes = document.stat().st_size / 1e6
    count = len(json.loads(document.read_bytes())["devices"][0]["findings"])
    dry_run = run(PROGRAMS / "zoned", "check", image, "--repair", "--dry-run", *_AGREED, expected=4)
    figures = {
        "text CPU s": text.cpu_seconds,
        "text MiB": text.peak_kib / 1024,
        "JSON MB/s": megabytes / max(as_json.cpu_seconds - text.cpu_seconds, 1e-3),
        "dry run MiB": dry_run.peak_kib / 1024,
    }
    print(f"{nr_zones} zones, {count} findings, {megabytes:.0f} MB of JSON ({as_json.peak_kib / 1024:.0f} MiB)")
    for name, value in figures.items():
        print(f"{name:>12} {value:>9.1f}  ({'at least' if '/' in name else 'at most'} {LIMITS[name]:.0f})")
    print(f"{'dry run':>12} {dry_run.cpu_seconds:>9.1f}  CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zones", type=int, nargs="+", default=[3584, 14336, 57344])
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the images go (needs 2 GB for 57,344 zones)"
    )
    parser.add_argument("--findings", type=int, default=0, metavar="ZONES", help="measure a broken drive instead")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="zoned-bench-", dir=arguments.directory))
    if arguments.findings:
        try:
            measure_findings(directory, arguments.findings)
        finally:
            shutil.rmtree(directory)
        return
    try:
        rows = [measure(directory, nr_zones) for nr_zones in arguments.zones]
    finally:
        shutil.rmtree(directory)
    names = list(rows[0])
    print("  ".join(f"{name:>12}" for name in names))
    for row in rows:
        print(
            "  ".join(f"{row[name]:>12.3f}" if isinstance(row[name], float) else f"{row[name]:>12}" for name in names)
        )
    for row in rows:
        linear = (row["check_s"] / row["zones"]) / (rows[0]["check_s"] / rows[0]["zones"])
        print(f"{row['zones']:>6} zones: check is {row['check_s'] / row['cat_s']:.1f} x cat, {linear:.2f} x linear")
        if row["zones"] == 57344:
            print(f"{'':>13} and {REFERENCE_SECONDS_57344 / row['check_s']:.1f} times as fast as the C tool's 5.2 s")


if __name__ == "__main__":
    main()
