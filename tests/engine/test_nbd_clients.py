"""The NBD server held to the clients that people use."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engine.serving import served
from tests.engine.volumes import BLOCK, MemoryMapper

SIZE_BLOCKS = 4096  # 16 MiB


def run(*command: str, stdin: bytes | None = None) -> bytes:
    """Run a client; a missing program is a failure of the test set-up, not a reason to skip."""
    assert shutil.which(command[0]), f"{command[0]} is not installed"
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def sparse() -> MemoryMapper:
    """Data in blocks 16..79, 1000..1001 and the last one."""
    mapper = MemoryMapper(SIZE_BLOCKS)
    rng = random.Random(1)
    for block in [*range(16, 80), 1000, 1001, SIZE_BLOCKS - 1]:
        mapper.blocks[block] = rng.randbytes(BLOCK)
    return mapper


def test_nbdinfo_describes_the_export(sparse: MemoryMapper, tmp_path: Path) -> None:
    with served(sparse, tmp_path / "s", description="dm-zoned on disk.img") as uri:
        document = json.loads(run("nbdinfo", "--json", uri))
    assert document["protocol"] == "newstyle-fixed"
    assert document["structured"] is True
    (export,) = document["exports"]
    assert export["export-size"] == SIZE_BLOCKS * BLOCK
    assert export["description"] == "dm-zoned on disk.img"
    assert export["contexts"] == ["base:allocation"]
    flags = {name: export[name] for name in export if name.startswith(("is_", "can_"))}
    assert not flags["is_read_only"]
    for name in ("can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"):
        assert flags[name], name
    assert not flags["can_cache"]
    assert export["block_size_preferred"] == 4096
    assert export["block_size_maximum"] == 32 << 20


def test_nbdinfo_sees_a_read_only_export(tmp_path: Path) -> None:
    with served(MemoryMapper(16, writable=False), tmp_path / "s") as uri:
        (export,) = json.loads(run("nbdinfo", "--json", uri))["exports"]
        assert export["is_read_only"]
        assert not export["can_trim"]
        assert not export["can_zero"]
        assert run("nbdinfo", "--is", "read-only", uri) == b""


def test_nbdinfo_lists_exports(sparse: MemoryMapper, tmp_path: Path) -> None:
    with served(sparse, tmp_path / "s", name="volume") as uri:
        document = json.loads(run("nbdinfo", "--list", "--json", uri))
    assert [export["export-name"] for export in document["exports"]] == ["volume"]


def test_nbdinfo_maps_holes(sparse: MemoryMapper, tmp_path: Path) -> None:
    with served(sparse, tmp_path / "s") as uri:
        extents = json.loads(run("nbdinfo", "--map", "--json", uri))
    assert [(e["offset"] // BLOCK, e["length"] // BLOCK, e["type"]) for e in extents] == [
        (0, 16, 3),
        (16, 64, 0),
        (80, 920, 3),
        (1000, 2, 0),
        (1002, SIZE_BLOCKS - 1003, 3),
        (SIZE_BLOCKS - 1, 1, 0),
    ]


def test_nbdcopy_out_and_in(sparse: MemoryMapper, tmp_path: Path) -> None:
    with served(sparse, tmp_path / "s") as uri:
        run("nbdcopy", uri, str(tmp_path / "out"))
        run("nbdcopy", "--synchronous", uri, str(tmp_path / "slow"))
    assert (tmp_path / "out").read_bytes() == sparse.content() == (tmp_path / "slow").read_bytes()
    copy = MemoryMapper(SIZE_BLOCKS)
    with served(copy, tmp_path / "s") as uri:
        run("nbdcopy", "--flush", str(tmp_path / "out"), uri)
    assert copy.content() == sparse.content()
    assert set(copy.blocks) == set(sparse.blocks), "holes were written"
    assert copy.flushes >= 1
    assert copy.closed


def test_qemu_img_info_map_and_convert(sparse: MemoryMapper, tmp_path: Path) -> None:
    with served(sparse, tmp_path / "s") as uri:
        assert json.loads(run("qemu-img", "info", "--output=json", uri))["virtual-size"] == SIZE_BLOCKS * BLOCK
        extents = json.loads(run("qemu-img", "map", "--output=json", uri))
        run("qemu-img", "convert", "-O", "raw", uri, str(tmp_path / "out"))
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == sparse.content()
    data = [(e["start"] // BLOCK, e["length"] // BLOCK) for e in extents if e["data"]]
    assert data == [(16, 64), (1000, 2), (SIZE_BLOCKS - 1, 1)]
    copy = MemoryMapper(SIZE_BLOCKS)
    with served(copy, tmp_path / "s") as uri:
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(tmp_path / "out"), uri)
    assert copy.content() == sparse.content()


def test_qemu_io_reads_writes_zeroes_and_discards_at_any_alignment(tmp_path: Path) -> None:
    mapper = MemoryMapper(64)
    model = bytearray(64 * BLOCK)
    commands = []
    rng = random.Random(2)
    for number in range(60):
        offset = rng.randrange(0, len(model) - 20000) // 512 * 512
        length = rng.randrange(512, 20000) // 512 * 512
        fill = rng.randrange(1, 256)
        if number % 3 == 2:
            commands.append(f"write -z {'-u ' if number % 2 else ''}{offset} {length}")
            fill = 0
        else:
            commands.append(f"write -P {fill} {'-f ' if number % 2 else ''}{offset} {length}")
        model[offset : offset + length] = bytes([fill]) * length
        commands.append(f"read -P {fill} {offset} {length}")
    commands += ["discard 40960 40960", "flush"]
    model[40960:81920] = bytes(40960)
    with served(mapper, tmp_path / "s") as uri:
        output = run("qemu-io", "-f", "raw", uri, stdin="\n".join([*commands, "q"]).encode()).decode()
    assert "failed" not in output, output
    assert "verification" not in output, output
    assert mapper.content() == bytes(model)


def test_fio_verifies_what_it_wrote(tmp_path: Path) -> None:
    mapper = MemoryMapper(1024)
    with served(mapper, tmp_path / "s") as uri:
        report = run(
            "fio",
            "--name=verify",
            "--ioengine=nbd",
            f"--uri={uri}",
            "--rw=randwrite",
            "--bsrange=512-64k",
            "--bs_unaligned=0",
            "--blockalign=512",
            "--iodepth=16",
            "--size=4m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--fsync=32",
            "--randseed=7",
            "--output-format=json",
            "--output=/dev/stdout",
        ).decode()
    assert json.loads(report[report.index("{") :])["jobs"][0]["error"] == 0
    assert mapper.flushes > 1
    assert len(mapper.blocks) > 100


def test_four_writers_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    mapper = MemoryMapper(2048)
    with served(mapper, tmp_path / "s") as uri:
        report = run(
            "fio",
            "--name=many",
            "--ioengine=nbd",
            f"--uri={uri}",
            "--numjobs=4",
            "--offset_increment=2m",
            "--size=2m",
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=8",
            "--verify=md5",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--thread",
            "--output-format=json",
            "--output=/dev/stdout",
        ).decode()
    assert [job["error"] for job in json.loads(report[report.index("{") :])["jobs"]] == [0] * 4
    assert len(mapper.blocks) == 2048


def test_nbd_client_lists(sparse: MemoryMapper, tmp_path: Path) -> None:
    with served(sparse, tmp_path / "s", name="volume"):
        output = run("nbd-client", "-l", "-unix", str(tmp_path / "s"))
    assert b"volume" in output
