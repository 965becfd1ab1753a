"""``zoned serve`` and the kernel's NBD client: a file system on a target that no kernel runs, then run by one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import devices
from tests.lab.device_mapper import (
    assert_clean,
    assert_same_content,
    digests,
    make_tree,
    mounted,
    restore_dump,
    started,
)
from tests.lab.devices import run
from tests.lab.programs import program

pytestmark = pytest.mark.lab(guest="target", **devices.MACHINE)


@contextmanager
def served(*arguments: str, socket: Path) -> Iterator[str]:
    """The logical device of a target as /dev/nbd0, through a server of our own and the kernel's client."""
    devices.modprobe("nbd", "max_part=0")
    command = [sys.executable, "-m", "zoned_tools", "serve", *arguments, "--socket", str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stderr
        try:
            assert str(socket) in server.stdout.readline()
            run("nbd-client", "-unix", socket, "/dev/nbd0", "-b", 4096)
            try:
                yield devices.wait_for("/dev/nbd0")
            finally:
                run("nbd-client", "-d", "/dev/nbd0")
        finally:
            server.send_signal(signal.SIGTERM)
            complaints = server.stderr.read()
    assert server.returncode == 0, complaints
    assert "Traceback" not in complaints


def test_file_system_made_over_nbd_is_the_kernel_targets(tmp_path: Path) -> None:
    pair = tmp_path / "copy_zone_data.dump"
    program("zoned", "image", "create", pair, "--size=128M", "--zone-size=1M", "--conventional=24")
    program("dmzadm", "--format", pair)
    with served(str(pair), "--write", socket=tmp_path / "socket") as disk:
        run("mkfs.ext4", "-q", "-F", disk)
        with mounted(disk, tmp_path / "mnt") as root:
            make_tree(root, seed=11)
            run("fstrim", root)
        with mounted(disk, tmp_path / "mnt") as root:
            make_tree(root / "more", seed=12)
            tree = digests(root)
        run("e2fsck", "-f", "-n", disk)
    assert assert_clean(str(pair))["mapped_chunks"] > 0
    with served(str(pair), socket=tmp_path / "socket") as disk:
        assert run("blockdev", "--getro", disk).stdout == "1\n"
        assert_same_content(disk, str(pair))
    with devices.null_blk(size_mib=128, zone_mib=1, conventional=24) as drive:
        restore_dump(tmp_path / "copy", drive.path)
        with started(drive.path) as logical:
            assert_same_content(logical, str(pair))
            run("e2fsck", "-f", "-n", logical)
            with mounted(logical, tmp_path / "mnt") as root:
                assert digests(root) == tree
        assert_clean(drive.path)
