"""Layouts whose devices are shown one by one: each behind its own name of one server, as it is exported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.archives import unpack
from tests.programs import Program

VECTORS = Path(__file__).parents[1] / "vectors" / "btrfs-zoned"


@pytest.mark.parametrize(
    ("name", "devices", "exports"),
    [
        ("g01-dup-healthy", ["disk.img"], [""]),
        ("g07-data-offline", ["disk.img"], [""]),
        ("g18-raid1-two-healthy", ["disk.img", "disk2.img"], ["devid-1", "devid-2"]),
    ],
)
def test_every_device_is_served_as_it_is_exported(
    name: str, devices: list[str], exports: list[str], tmp_path: Path, zoned: Program
) -> None:
    unpack(VECTORS / f"{name}.tar.xz", tmp_path)
    images = [tmp_path / device for device in devices]
    assert zoned("export", *images, "-o", tmp_path / "out").status in (0, 4)
    socket = tmp_path / "s"
    command = [sys.executable, "-m", "zoned_tools", "serve", "--json", *map(str, images), "--socket", str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        document = json.loads(server.stdout.readline())
        size = images[0].stat().st_size
        assert document["exports"] == [{"name": export, "size_bytes": size} for export in exports]
        assert document["read_only"] is True
        for export in exports:
            copy = tmp_path / f"copy-{export}"
            uri = f"nbd+unix:///{export}?socket={socket}"
            subprocess.run(["nbdcopy", uri, str(copy)], check=True, timeout=60)
            wanted = tmp_path / "out" if len(exports) == 1 else tmp_path / "out" / f"{export}.img"
            assert copy.read_bytes() == wanted.read_bytes()
            listed = subprocess.run(["nbdinfo", "--map", uri], check=True, timeout=60, capture_output=True, text=True)
            assert "hole,zero" in listed.stdout
        if len(exports) > 1:
            gone = subprocess.run(["nbdinfo", f"nbd+unix:///devid-3?socket={socket}"], check=False, capture_output=True)
            assert gone.returncode != 0
            listed = subprocess.run(
                ["nbdinfo", "--list", f"nbd+unix:///?socket={socket}"], check=True, capture_output=True, text=True
            )
            assert [export for export in exports if f'export="{export}"' in listed.stdout] == exports
        server.terminate()
        complaints = server.stderr.read()
        assert server.wait(30) == 0
    assert ("zone 4 is offline" in complaints) == (name == "g07-data-offline")


def test_a_view_is_read_only(tmp_path: Path, zoned: Program) -> None:
    unpack(VECTORS / "g01-dup-healthy.tar.xz", tmp_path)
    image = tmp_path / "disk.img"
    assert "read-only" in zoned("serve", image, "--write").err
    assert zoned("serve", image, "--set", "set=1").status == 16
