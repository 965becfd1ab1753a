"""Speed of the inplace-compress codecs, export, import and the structural check.

Run directly: ``python tests/bench/bench_inplace_compress.py [--mib 256] [--folder DIR]``.
Prints one JSON document; speeds are in MB/s of logical content. One process is measured in
its CPU time, so that other load does not count; several processes by the clock.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from zoned_tools.device.opening import open_device
from zoned_tools.device.plan import apply_plan
from zoned_tools.engine.export import export_volume
from zoned_tools.engine.output import open_output
from zoned_tools.formats.contract import Settings, Target
from zoned_tools.formats.inplace_compress import c842, layout, lzo
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.encoding import Choice
from zoned_tools.formats.inplace_compress.entries import fill_extents, pack_entries
from zoned_tools.formats.inplace_compress.extents import scan
from zoned_tools.formats.inplace_compress.format import plan_volume
from zoned_tools.formats.inplace_compress.import_ import plan_import
from zoned_tools.formats.inplace_compress.mapper.copying import copy_volume
from zoned_tools.formats.inplace_compress.mapper.open import open_mapper
from zoned_tools.formats.inplace_compress.open import open_volume
from zoned_tools.formats.inplace_compress.payload import spans
from zoned_tools.formats.inplace_compress.source import open_source

MB = 1e6


def content(length_bytes: int, seed: int = 1) -> bytes:
    """Text-like content that compresses to about half; repeats after 8 MiB, far beyond every window."""
    random = np.random.default_rng(seed)
    words = [bytes(random.integers(97, 123, random.integers(2, 12), dtype=np.uint8)) + b" " for _ in range(4000)]
    period = min(length_bytes, 8 << 20)
    chosen = np.minimum(random.zipf(1.3, period // 4) - 1, len(words) - 1)
    text = b"".join(words[i] for i in chosen.tolist())[:period].ljust(period, b".")
    return (text * -(-length_bytes // period))[:length_bytes]


def best(function: Callable[[], object], runs: int = 3, clock: Callable[[], float] = time.process_time) -> float:
    times = []
    for _ in range(runs):
        begin = clock()
        function()
        times.append(clock() - begin)
    return min(times)


def clock_of(processes: int) -> Callable[[], float]:
    return time.process_time if processes == 1 else time.perf_counter


def codecs() -> dict[str, float]:
    figures = {}
    for blocks in (1, 2, 32):
        size = blocks * layout.BLOCK_BYTES
        whole = content(4 << 20)
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        for name, encode, decode in (
            ("842", c842.encode_many, c842.decode_many),
            ("lzo_exact", lambda p: lzo.encode_many(p, exact=True), lzo.decode_many),
            ("lzo_fast", lambda p: lzo.encode_many(p, exact=False), lzo.decode_many),
        ):
            streams = encode(pieces)
            assert decode(streams, [size] * len(pieces)) == pieces
            figures[f"{name}_{blocks}_blocks_encode"] = len(whole) / best(partial(encode, pieces)) / MB
            figures[f"{name}_{blocks}_blocks_decode"] = (
                len(whole) / best(partial(decode, streams, [size] * len(streams))) / MB
            )
        one = c842.encode(pieces[0])
        figures[f"842_{blocks}_blocks_encode_single"] = size / best(partial(c842.encode, pieces[0]), 20) / MB
        figures[f"842_{blocks}_blocks_decode_single"] = size / best(partial(c842.decode, one, size), 20) / MB
    return figures


def library_speeds(target: Target, raw: bytes, window: int) -> dict[str, float]:
    """liblzo2 alone, on the payloads of the volume and on the pieces that were imported."""
    library = ctypes.CDLL("liblzo2.so.2")
    room, length = ctypes.create_string_buffer(1 << 20), ctypes.c_size_t()
    volume = open_volume(target.device)
    streams = []
    for extents in scan(volume.entry_chunks()):
        for span in spans(volume, extents.select(extents.is_compressed)):
            streams += [bytes(span.stream(i)) for i in range(len(span.extents))]
    size = window * layout.BLOCK_BYTES

    def decode() -> None:
        for stream in streams:
            length.value = size
            assert library.lzo1x_decompress_safe(stream, len(stream), room, ctypes.byref(length), None) == 0

    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    work = ctypes.create_string_buffer(16384 * 8)

    def encode() -> None:
        for piece in pieces:
            assert library.lzo1x_1_compress(piece, len(piece), room, ctypes.byref(length), work) == 0

    return {"decode": len(raw) / best(decode) / MB, "encode": len(raw) / best(encode) / MB}


def volumes(folder: Path, mib: int, window: int) -> dict[str, object]:
    """Import and export of a volume, against liblzo2 alone."""
    raw = content(mib << 20)
    source, image, out = folder / "raw", folder / "image", folder / "out"
    source.write_bytes(raw)
    figures: dict[str, object] = {}
    for processes in (1, 2):
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate((mib << 20) + (64 << 20))
        with open_device(str(image), writable=True) as device:
            clock = clock_of(processes)
            begin = clock()
            plan, _ = plan_import(
                device,
                open_source(str(source)),
                Choice(Compressor.LZO, window),
                data_blocks=len(raw) // layout.BLOCK_BYTES,
                processes=processes,
            )
            apply_plan([device], plan.steps)
            figures[f"import_{processes}_processes"] = len(raw) / (clock() - begin) / MB
    with open_device(str(image)) as device:
        target = Target(layout.NAME, (device,))
        library = library_speeds(target, raw, window)

        def export() -> None:
            mapper = open_mapper(target, writable=False, settings=Settings())
            with open_output(str(out), [], force=True) as output:
                export_volume(mapper, output)

        figures["export"] = len(raw) / best(export) / MB
        for processes in (1, 2):
            out.write_bytes(b"")

            def copy(count: int = processes) -> None:
                copy_volume(open_volume(device), str(out), processes=count)

            figures[f"copy_{processes}_processes"] = len(raw) / best(copy, clock=clock_of(processes)) / MB
            assert out.read_bytes() == raw
        mapper = open_mapper(target, writable=False, settings=Settings())
        figures["mapper_read_4_MiB"] = (
            len(raw) / best(lambda: [mapper.read(at, 1024) for at in range(0, len(raw) // 4096 - 1023, 1024)]) / MB
        )
    figures |= {f"liblzo2_{name}": speed for name, speed in library.items()}
    figures["export_ratio"] = figures["export"] / library["decode"]  # type: ignore[operator] # both are numbers
    figures["import_ratio"] = figures["import_1_processes"] / library["encode"]  # type: ignore[operator] # both are numbers
    return figures


def structure(folder: Path) -> dict[str, float]:
    """The structural check of a volume of 1 TiB in a process of its own: seconds and MiB."""
    image = folder / "big"
    with image.open("wb") as file:
        file.truncate((1 << 40) + (256 << 20))
    with open_device(str(image), writable=True) as device:
        apply_plan([device], plan_volume(device, compressor=Compressor.LZO, data_blocks=1 << 28).steps)
        random = np.random.default_rng(2)
        step = 1 << 22
        for start in range(0, 1 << 28, step):
            entries = fill_extents(
                np.arange(0, step, 2), np.full(step // 2, 2), random.integers(1, 17, step // 2), step
            )
            device.write(layout.BLOCK_BYTES + start // 8 * 5, pack_entries(entries))
    program = (
        "import sys; from zoned_tools.cli.entry import zoned; "
        f"sys.argv = ['zoned', 'inplace-compress', 'check', '--metadata-only', {str(image)!r}]; zoned()"
    )
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    image.unlink()
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--folder", default=None)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        figures = {
            "cores": len(os.sched_getaffinity(0)),
            "codecs": codecs(),
            "structure_1_TiB": structure(folder),
            "windows_of_2_blocks": volumes(folder, chosen.mib, 2),
            "windows_of_32_blocks": volumes(folder, chosen.mib, 32),
        }
    print(json.dumps(figures, indent=2, default=float))


if __name__ == "__main__":
    main()
