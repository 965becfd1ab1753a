"""Overlays: what they show, and how little they hold."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned_tools.device import pages
from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.emulated import no_zones
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.zones import Model, make_table
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64 * 4096 + 1536


@given(
    changes=st.lists(
        st.tuples(st.sampled_from(["write", "zeroes", "discard"]), st.integers(0, SIZE // 512 - 1), st.integers(1, 40)),
        max_size=25,
    ),
    memory=st.sampled_from([0, 1 << 20]),
)
def test_an_overlay_shows_what_was_written(
    changes: list[tuple[str, int, int]], memory: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also when every page is in the file; what may hold data is never left out."""
    path = str(tmp_path_factory.mktemp("overlay") / "disk.img")
    create_image(path, Geometry(Model.REGULAR, SIZE), no_zones())
    content = bytearray(SIZE)
    with open_image(path, writable=True) as base:
        for at in (0, 8192, 100 * 512, SIZE - 512):
            content[at : at + 512] = os.urandom(512)
            base.write(at, bytes(content[at : at + 512]))
        before = bytes(content)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(pages.Pages.__init__, "__defaults__", (memory,))
            overlay = Overlay(base)
            for number, (kind, sector, count) in enumerate(changes):
                start, length = sector * 512, min(count * 512, SIZE - sector * 512)
                data = bytes([number + 1]) * length if kind == "write" else bytes(length)
                content[start : start + length] = data
                if kind == "discard":
                    overlay.discard(start, length)
                else:
                    overlay.write(start, data)
            assert overlay.read(0, SIZE) == content
            assert overlay.read(1000, 9000) == content[1000:10000]
            shown = bytearray(SIZE)
            last = 0
            for start, length in overlay.data_extents(0, SIZE):
                assert start >= last
                assert length > 0
                last = start + length
                shown[start:last] = content[start:last]
            assert shown == content
            overlay.close()
        assert base.read(0, SIZE) == before


ZONE = 512 << 20


def big(folder: Path) -> str:
    path = str(folder / "disk.img")
    geometry = Geometry(Model.HOST_MANAGED, 2000 * ZONE, ZONE, 2000)
    create_image(path, geometry, make_table(geometry.size_bytes // 512, ZONE // 512, nr_conventional=2))
    return path


def test_a_rewritten_zone_of_512_mib_is_not_held_in_memory(tmp_path: Path) -> None:
    """In a process of its own, whose peak is measured."""
    path = big(tmp_path)
    program = f"""
import resource
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay
with open_image({path!r}) as base, Overlay(base) as overlay:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for round in range(2):
        for at in range(0, {ZONE}, 4 << 20):
            overlay.write(5 * {ZONE} + at, bytes([at >> 22, round + 1]) * (2 << 20))
        if round == 0:
            overlay.manage(ZoneOperation.RESET, 5)
    assert overlay.read(5 * {ZONE} + (400 << 20), 2) == bytes([100, 2])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    folder = os.environ.get("TMPDIR", "/var/tmp")
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": folder},
        check=True,
    )
    assert int(done.stdout) < 128 << 10, "KiB: 64 MiB of pages and an index"


def test_resetting_everything_costs_nothing(tmp_path: Path) -> None:
    with open_image(big(tmp_path), writable=True) as base:
        for zone in range(2, 2000):
            base.write(zone * ZONE, b"x" * 4096)
        tracemalloc.start()
        with Overlay(base) as overlay:
            overlay.manage(ZoneOperation.RESET, 0, 2000)
            overlay.flush()
            overlay.discard(0, 2 * ZONE)
            overlay.write(7 * ZONE, b"y" * 4096)
            assert overlay.read(7 * ZONE, 8192) == b"y" * 4096 + bytes(4096)
            assert list(overlay.data_extents(0, 2000 * ZONE)) == [(7 * ZONE, 4096)]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 << 20


def test_no_room_for_pages_is_an_error_of_the_project(tmp_path: Path) -> None:
    path = str(tmp_path / "plain.img")
    create_image(path, Geometry(Model.REGULAR, 1 << 20), no_zones())
    with open_image(path) as base, pytest.MonkeyPatch.context() as patched:
        patched.setattr(pages.Pages.__init__, "__defaults__", (0,))
        patched.setattr(pages, "write_all", no_space)
        overlay = Overlay(base)
        with pytest.raises(DeviceError, match="cannot keep changed pages"):
            overlay.write(0, b"x" * 4096)


def no_space(_fd: int, _data: bytes, _offset: int) -> None:
    raise OSError(28, os.strerror(28))
