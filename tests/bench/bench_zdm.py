#!/usr/bin/env python3
"""Measure create, check and repair of large ZDM drives of 256 MiB zones.

    python tests/bench/bench_zdm.py [--zones 3584 14336 29808] [--directory DIR]

Prints seconds of whole processes and their peak memory, and ratios that do not depend on the
machine: create against ``dd`` of as many bytes (both synced), check against ``dd`` of the
same image's tables, and processor time per zone against the smallest drive (1.0 is linear). A drive of
29,808 zones (8 TB) takes 15 GiB of disk for its empty tables.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
START_SECTOR = 524288


def run(*command: object) -> tuple[float, int, float]:
    """``(seconds, peak KiB, processor seconds)`` of one process."""
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return seconds, usage.ru_maxrss, usage.ru_utime + usage.ru_stime


def measure(zones: int, directory: Path) -> dict[str, float]:
    """Create, check, repair; and what plain copying of the same bytes costs."""
    image = directory / "drive.img"
    conventional = 2 * -(-zones // 1024) + 8
    options = ["--size", f"{zones * 256}MiB", "--zone-size", "256MiB", "--conventional", conventional]
    run(PROGRAMS / "zoned", "image", "create", image, *options, "--model", "host-managed")
    on = ["--start", START_SECTOR, image]
    result: dict[str, float] = {}
    result["create"], result["create_kib"], _ = run(PROGRAMS / "zdmadm", "-c", *on)
    used = image.stat().st_blocks * 512
    copy = directory / "copy"
    result["dd"], _, _ = run("dd", "if=/dev/zero", f"of={copy}", "bs=4M", f"count={used >> 22}", "conv=fsync")
    copy.unlink()
    result["check"], result["check_kib"], result["check_cpu"] = min(
        run(PROGRAMS / "zdmadm", "-k", *on) for _ in range(2)
    )
    skip = START_SECTOR * 512 // (4 << 20)
    result["cat"], _, result["cat_cpu"] = run(
        "dd", f"if={image}", "of=/dev/null", "bs=4M", f"skip={skip}", f"count={used >> 22}"
    )
    image.unlink()
    Path(f"{image}.zones").unlink()
    result["bytes"] = used
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zones", type=int, nargs="+", default=[3584, 14336, 29808])
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-zdm-", dir=arguments.directory))
    try:
        first: dict[str, float] = {}
        print(" zones   GiB   create  / dd   MiB    check  / dd     cpu  / dd   MiB  linear")
        for zones in arguments.zones:
            found = measure(zones, directory)
            found["per_zone"] = found["check_cpu"] / zones
            first = first or found
            print(
                f"{zones:>6} {found['bytes'] / (1 << 30):>5.1f} {found['create']:>7.2f}s "
                f"{found['create'] / found['dd']:>5.2f} {found['create_kib'] / 1024:>5.0f} {found['check']:>7.2f}s "
                f"{found['check'] / found['cat']:>5.2f} {found['check_cpu']:>6.2f}s "
                f"{found['check_cpu'] / found['cat_cpu']:>5.2f} {found['check_kib'] / 1024:>5.0f}  "
                f"{found['per_zone'] / first['per_zone']:.2f}",
                flush=True,
            )
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
