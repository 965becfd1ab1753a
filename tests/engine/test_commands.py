"""zoned map, export, replay and serve on dm-zoned targets that the original tools and a kernel made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.archives import unpack
from tests.programs import Program
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.zones import wp_is_valid

VECTORS = Path(__file__).parents[1] / "vectors" / "dm-zoned"
TARGETS = ["hm64x1", "dual"]
BLOCK = 4096


@dataclass(frozen=True)
class Vector:
    directory: Path
    facts: dict[str, object]

    def devices(self, image: str) -> list[Path]:
        """Paths of the target's devices in the state ``fresh``, ``disk`` or ``crash``."""
        names = self.facts["images"][{"disk": "clean"}.get(image, image)]["files"]  # type: ignore[index]
        return [self.directory / name for name in names]

    def sha256(self, image: str) -> str:
        return str(self.facts["images"][image]["logical_sha256"])  # type: ignore[index]

    @property
    def operations(self) -> list[list[object]]:
        return [*self.facts["ops_before_crash_point"], *self.facts["ops_after"]]  # type: ignore[misc]


def extract(name: str, directory: Path) -> Path:
    """Unpack a vector's images and return their directory."""
    return unpack(VECTORS / f"{name}.tar.xz", directory)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images for requests that are refused, and so leave them as they are."""
    return extract("hm64x1", tmp_path_factory.mktemp("refused"))


@pytest.fixture(params=TARGETS)
def vector(request: pytest.FixtureRequest, tmp_path: Path) -> Vector:
    facts = json.loads((VECTORS / f"{request.param}.json").read_text())
    return Vector(extract(request.param, tmp_path), facts)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stamp(block: int, seed: int) -> bytes:
    return struct.pack("<QQ", block, seed) * 256


def as_log_writes(operations: list[list[object]], path: Path) -> None:
    """The operation list of a vector as a log of dm-log-writes, with the data."""
    entries = []
    for kind, *numbers in operations:
        if kind == "f":
            entries.append(struct.pack("<QQQQ", 0, 0, 1, 0).ljust(BLOCK, b"\0"))
            continue
        first, count, *seed = (int(n) for n in numbers)  # type: ignore[call-overload]
        head = struct.pack("<QQQQ", first, count, 0 if kind == "w" else 4, 0).ljust(BLOCK, b"\0")
        data = b"".join(stamp(block, seed[0]) for block in range(first, first + count)) if kind == "w" else b""
        entries.append(head + data)
    header = struct.pack("<QQQI", 0x6A736677736872, 1, len(entries), BLOCK).ljust(BLOCK, b"\0")
    path.write_bytes(header + b"".join(entries))


# -- export


@pytest.mark.parametrize("image", ["clean", "crash"])
def test_export_gives_what_the_kernel_shows(vector: Vector, zoned: Program, tmp_path: Path, image: str) -> None:
    out = tmp_path / "out"
    result = zoned("export", *vector.devices(image), "-o", out, "--json")
    assert result.status == 0, result.err
    assert sha256(out) == vector.sha256(image)
    document = json.loads(result.out)
    assert document["schema"] == "zoned.export/1"
    assert document["size_bytes"] == out.stat().st_size == vector.facts["logical_size"]
    assert 0 < document["data_bytes"] < document["size_bytes"]
    assert document["lost"] == []
    again = zoned("export", *vector.devices(image), "-o", out)
    assert again.status == 8
    assert "already exists" in again.err
    assert zoned("export", *vector.devices(image), "-o", out, "--force").status == 0


def test_export_to_standard_output(vector: Vector, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        done = _zoned("export", *vector.devices("clean"), "-o", "-", stdout=out)
    assert done.returncode == 0
    assert sha256(tmp_path / "out") == vector.sha256("clean")


def test_export_refuses_its_source_and_mixed_outputs(vector: Vector, zoned: Program) -> None:
    devices = vector.devices("clean")
    before = [sha256(d) for d in devices]
    assert zoned("export", *devices, "-o", devices[-1], "--force").status == 8
    assert [sha256(d) for d in devices] == before
    assert zoned("export", *devices, "-o", "-", "--json").status == 16


def test_a_layout_without_blocks_has_no_logical_device(zoned: Program, tmp_path: Path, program: Program) -> None:
    image = tmp_path / "z.img"
    assert zoned("image", "create", image, "--size", "64MiB", "--zone-size", "4MiB").status == 0
    assert program("mkzonefs", image).status == 0
    for arguments in (["export", image, "-o", tmp_path / "out"], ["map", image], ["serve", image]):
        result = zoned(*arguments)
        assert (result.status, result.err) == (16, f"zoned: {image}: zonefs has no logical device\n")
    assert not (tmp_path / "out").exists()


# -- map


def test_map_counts_from_the_start_of_the_drive(zoned: Program, tmp_path: Path) -> None:
    """A target in the second half of a drive: places are those of the drive, not of the half."""
    alone, shifted = extract("hm64x1", tmp_path) / "disk.img", tmp_path / "twice.img"
    zones, zone_bytes = 64, 1 << 20
    created = zoned("image", "create", shifted, "--size", "128MiB", "--zone-size", "1MiB", "--conventional", zones)
    assert created.status == 0, created.err
    start = zones * zone_bytes
    with open_image(str(alone)) as source, open_image(str(shifted)) as empty:
        table = np.concatenate([empty.zones()[:zones], source.zones()])
        table["start_sector"][zones:] += start // 512
        has_wp = wp_is_valid(table)
        has_wp[:zones] = False
        table["wp_sector"][has_wp] += start // 512
        geometry = empty.geometry
    shifted.unlink()
    create_image(str(shifted), geometry, table, overwrite=True)
    with shifted.open("r+b") as file:
        file.seek(start)
        file.write(alone.read_bytes())
    whole = json.loads(zoned("map", alone, "--json", "--at", "0+2000").out)["extents"]
    result = zoned("map", shifted, "--json", "--at", "0+2000", "--start", start // 512)
    assert result.status == 0, result.err
    for expected, found in zip(whole, json.loads(result.out)["extents"], strict=True):
        if expected["physical_block"] is not None:
            expected["physical_block"] += start // BLOCK
            expected["physical_bytes"] += start
        assert found == expected | {"device": str(shifted)}


def test_map_agrees_with_what_is_there(vector: Vector, zoned: Program, tmp_path: Path) -> None:
    devices = vector.devices("clean")
    result = zoned("map", *devices, "--json")
    assert result.status == 0, result.err
    document = json.loads(result.out)
    assert document["schema"] == "zoned.map/1"
    content = bytearray(int(str(vector.facts["logical_size"])))
    raw = {str(device): device.read_bytes() for device in devices}
    at = 0
    for extent in document["extents"]:
        assert extent["logical_block"] == at
        at += extent["blocks"]
        if extent["physical_block"] is None:
            continue
        place, length = extent["physical_block"] * BLOCK, extent["blocks"] * BLOCK
        assert extent["physical_bytes"] == place
        start = extent["logical_block"] * BLOCK
        content[start : start + length] = raw[extent["device"]][place : place + length]
    assert at * BLOCK == len(content)
    assert hashlib.sha256(content).hexdigest() == vector.sha256("clean")


def test_map_of_single_blocks(vector: Vector, zoned: Program) -> None:
    devices = vector.devices("clean")
    whole = json.loads(zoned("map", *devices, "--json").out)["extents"]
    some = json.loads(zoned("map", *devices, "--json", "--at", "0x10+2", "--at", "300").out)["extents"]
    assert [(e["logical_block"], e["blocks"]) for e in some] == [(16, 2), (300, 1)]
    (holder,) = [e for e in whole if e["logical_block"] <= 300 < e["logical_block"] + e["blocks"]]
    if holder["physical_block"] is not None:
        assert some[1]["physical_block"] == holder["physical_block"] + 300 - holder["logical_block"]
    text = zoned("map", *devices, "--at", "16").out.splitlines()
    assert len(text) == 2
    assert text[1].split()[:3] == ["16", "1", str(some[0]["physical_block"])]
    assert text[1].rstrip().endswith(some[0]["why"])


@pytest.mark.parametrize("at", ["x", "", "+1", "1+", "1+0", "-1", "99999999999", "0+99999999", "1+2+3", "1_0", "٣"])
def test_map_refuses_bad_ranges(refused: Path, zoned: Program, at: str) -> None:
    result = zoned("map", refused / "disk.img", f"--at={at}")
    assert result.status == 16
    assert result.err.count("\n") == 1


# -- replay


def test_replaying_the_operations_gives_the_kernels_content(vector: Vector, zoned: Program, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    as_log_writes(vector.operations, log)
    devices = vector.devices("fresh")
    result = zoned("replay", *devices, "--log-writes", log, "--check-each", "--json")
    assert result.status == 0, result.err
    document = json.loads(result.out)
    assert document["schema"] == "zoned.replay/1"
    assert document["verdict"] == "clean"
    assert document["checks"] == document["requests"]["flush"] + 1
    assert document["requests"]["write"] == sum(op[0] == "w" for op in vector.operations)
    assert document["device"]["changes"] > 0
    assert zoned("export", *devices, "-o", out).status == 0
    assert sha256(out) == vector.sha256("clean")


@pytest.mark.parametrize("crash_at", [0, 40, 100])
def test_a_power_cut_leaves_a_target_without_errors(
    vector: Vector, zoned: Program, tmp_path: Path, crash_at: int
) -> None:
    log = tmp_path / "log"
    as_log_writes(vector.operations, log)
    devices = vector.devices("fresh")
    result = zoned("replay", *devices, "--log-writes", log, "--crash-at", crash_at, "--check-each", "--json")
    document = json.loads(result.out)
    assert document["crashed"]
    assert document["device"]["changes"] == crash_at
    assert result.status == 0, document["findings"]
    assert zoned("check", *devices).status == 0
    rest = zoned("replay", *devices, "--log-writes", log, "--json")
    assert rest.status == 0, rest.err
    assert zoned("export", *devices, "-o", tmp_path / "out").status == 0
    assert sha256(tmp_path / "out") == vector.sha256("clean")


def test_dry_run_writes_nothing(vector: Vector, zoned: Program, tmp_path: Path) -> None:
    log = tmp_path / "log"
    as_log_writes(vector.operations, log)
    devices = vector.devices("fresh")
    before = [sha256(d) for d in devices]
    result = zoned("replay", *devices, "--log-writes", log, "--dry-run", "-o", "rlow=50")
    assert result.status == 0, result.err
    assert "writes" in result.out
    assert [sha256(d) for d in devices] == before


def test_an_iolog_is_stamped(vector: Vector, zoned: Program, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(
        "fio version 2 iolog\nx add\nx open\nx write 40960 8192\nx write 45056 4096\nx sync 0 0\nx close\n"
    )
    devices = vector.devices("fresh")
    assert zoned("replay", *devices, "--trace", trace, "--seed", 7).status == 0
    assert zoned("export", *devices, "-o", tmp_path / "out").status == 0
    assert (tmp_path / "out").read_bytes()[40960:49152] == stamp(10, 8) + stamp(11, 9)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 16, "one of --trace and --log-writes"),
        (["--trace", "t", "--log-writes", "t"], 16, "one of --trace and --log-writes"),
        (["--trace", "missing"], 8, "missing: cannot open the trace"),
        (["--trace", "t"], 8, "line 2: not "),
        (["--log-writes", "t"], 8, "t: not a log of dm-log-writes"),
        (["--trace", "t", "--pattern", "random"], 16, "--pattern"),
        (["--trace", "t", "--option", "rlow=200"], 16, "rlow=200"),
        (["--trace", "t", "--layout", "ext4"], 16, "no layout 'ext4'"),
    ],
)
def test_replay_refuses_in_one_line(
    refused: Path,
    zoned: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").write_text("fio version 2 iolog\nnonsense\n")
    result = zoned("replay", refused / "fresh.img", *arguments)
    assert result.status == status
    assert message in result.err
    assert result.err.count("\n") == 1


# -- serve


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "zoned_tools", *map(str, arguments)]


def _zoned(*arguments: object, **settings: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(_command(*arguments), timeout=120, **settings)  # type: ignore[call-overload, no-any-return]


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[dict[str, object], subprocess.Popen[str]]]:
    """``zoned serve`` as a process; ends with SIGTERM and must exit with 0."""
    command = _command("serve", *arguments, "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        line = server.stdout.readline()
        assert line, server.stderr.read()
        try:
            yield json.loads(line), server
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0, server.stderr.read()


def test_serve_read_only(vector: Vector, tmp_path: Path) -> None:
    devices = vector.devices("clean")
    before = [sha256(d) for d in devices]
    path = tmp_path / "sock"
    with serving(*devices, "--socket", path) as (document, _):
        assert document == {
            "schema": "zoned.serve/1",
            "exit_status": None,
            "errors": [],
            "devices": [str(d) for d in devices],
            "zone_table": "sidecar",
            "layout": "dm-zoned",
            "uri": f"nbd+unix:///?socket={path}",
            "size_bytes": vector.facts["logical_size"],
            "read_only": True,
            "exports": [{"name": "", "size_bytes": vector.facts["logical_size"]}],
        }
        uri = str(document["uri"])
        subprocess.run(["nbdinfo", "--is", "read-only", uri], check=True, timeout=30)
        subprocess.run(["nbdcopy", uri, str(tmp_path / "out")], check=True, timeout=60)
    assert sha256(tmp_path / "out") == vector.sha256("clean")
    assert [sha256(d) for d in devices] == before
    assert not path.exists()


def test_serve_written_content_comes_back(vector: Vector, zoned: Program, tmp_path: Path) -> None:
    devices = vector.devices("fresh")
    source = tmp_path / "source"
    assert zoned("export", *vector.devices("clean"), "-o", source).status == 0
    with serving(*devices, "--write", "--tcp", "0", "--name", "vol") as (document, _):
        uri = str(document["uri"])
        assert uri.startswith("nbd://127.0.0.1:")
        subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, uri], check=True, timeout=60)
        subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", source, f"{uri}/vol"], check=True, timeout=60)
    assert zoned("check", *devices).status == 0
    assert zoned("export", *devices, "-o", tmp_path / "out").status == 0
    assert sha256(tmp_path / "out") == vector.sha256("clean")


def test_random_writes_through_serve_are_verified(vector: Vector, zoned: Program, tmp_path: Path) -> None:
    """fio writes at random, which fills buffer zones, and reads back what it wrote."""
    devices = vector.devices("fresh")
    with serving(*devices, "--write", "--socket", tmp_path / "s") as (document, _):
        fio = ["fio", "--name=v", "--ioengine=nbd", f"--uri={document['uri']}", "--rw=randwrite", "--bs=4k"]
        fio += ["--size=2m", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"]
        subprocess.run(fio, check=True, timeout=120, capture_output=True, cwd=tmp_path)
    assert zoned("check", *devices).status == 0


def test_once_ends_with_the_client(vector: Vector) -> None:
    command = _command("serve", *vector.devices("clean"), "--once")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        uri = server.stdout.readline().strip()
        assert uri.startswith("nbd+unix:///?socket=/")
        subprocess.run(["nbdinfo", "--size", uri], check=True, timeout=30, capture_output=True)
        assert server.wait(30) == 0
    assert not os.path.exists(uri.partition("socket=")[2])


def test_serve_refuses_in_one_line(vector: Vector, zoned: Program, tmp_path: Path) -> None:
    devices = vector.devices("clean")
    for arguments, status in (
        (["--socket", "s", "--tcp", "1"], 16),
        (["--tcp", "0.0.0.0:1"], 16),
        (["--socket", tmp_path], 8),
        (["--name", "x" * 300], 16),
    ):
        result = zoned("serve", *devices, *arguments)
        assert result.status == status, arguments
        assert result.err.count("\n") == 1


def test_tools_are_installed() -> None:
    for tool in ("nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "fio", "nbd-client"):
        assert shutil.which(tool), f"{tool} is needed by these tests"
