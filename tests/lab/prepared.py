"""dm-zoned targets that are made on the host and handed to a kernel, which only starts, compares and writes.

Our programs are slow in a guest, and these are not: so many states fit into one short boot. A :class:`Proof` collects
them and what is to be done with each, and runs all in a guest; what does not hold is told step by step.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.lab.vm import Lab
from zoned_tools.device import dump
from zoned_tools.device.base import Device
from zoned_tools.device.zones import is_conventional
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, Settings, Target
from zoned_tools.formats.dm_zoned.table import table_line

_MIB = 1 << 20
_PREAMBLE = """\
modprobe -a dm-mod dm-zoned || exit 1
modprobe null_blk nr_devices=0 || exit 1
nullb=/sys/kernel/config/nullb
make() {  # number MiB zoned zone-MiB conventional
    mkdir $nullb/nullb$1
    for pair in blocksize=4096 memory_backed=1 size=$2 zoned=$3 zone_size=$4 zone_nr_conv=$5 power=1; do
        echo ${pair#*=} >$nullb/nullb$1/${pair%=*} || echo "FAILED $case: nullb$1 $pair"
    done
    until [ -b /dev/nullb$1 ]; do sleep 0.01; done
}
unmake() {
    for number in "$@"; do echo 0 >$nullb/nullb$number/power; rmdir $nullb/nullb$number; done
}
must() {  # what command...
    local what=$1
    shift
    "$@" >/tmp/said 2>&1 || echo "FAILED $case: $what: $(tr '\\n' ' ' </tmp/said)"
}
"""
_WRITE = """\
open(IN, "<", shift) and sysopen(OUT, "/dev/mapper/proof", 02 | 010000) or die "open: $!";
for (@ARGV) {
    my ($offset, $length) = split(/:/);
    sysread(IN, my $content, $length) == $length or die "read: $!";
    sysseek(OUT, $offset, 0);
    syswrite(OUT, $content) == $length or die "write: $!";
}
"""
"""Perl, which starts quickly; each write is synchronous (``O_DSYNC``)."""


class Proof:
    """States of targets, and what the kernel has to make of them.

    Args:
        folder: empty, for the images.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[str] = []
        self._files = 0
        self._drives = 0
        self.starts = 0

    def _say(self, *words: object) -> None:
        self._lines.append(shlex.join(str(word) for word in words))

    def _file(self, content: bytes) -> Path:
        """Zeroes become holes."""
        self._files += 1
        path = self._folder / f"content-{self._files}"
        _write_sparse(path, (content[at : at + _MIB] for at in range(0, len(content), _MIB)))
        return path

    def begin(self, name: str, devices: Sequence[Device]) -> None:
        """Drives with the content of ``devices``; those of the case before are gone."""
        self._lines.append(f"case={shlex.quote(name)}")
        self._drives = len(devices)
        for number, device in enumerate(devices):
            geometry = device.geometry
            prefix = self._folder / f"{name}-{number}".replace(" ", "-")
            raw = Path(f"{prefix}_zone_data.dump")
            _write_sparse(raw, _pieces(device))
            if not geometry.is_zoned:
                self._say("make", number, geometry.size_bytes // _MIB, 0, 1, 0)
                self._say("must", "copy", "dd", f"if={raw}", f"of=/dev/nullb{number}", "bs=64k", "conv=sparse,notrunc")
                continue
            table = device.zones()
            blocks = replace(
                geometry, logical_block_bytes=LOGICAL_BLOCK_BYTES, physical_block_bytes=LOGICAL_BLOCK_BYTES
            )
            Path(f"{prefix}_zone_info.dump").write_bytes(dump.encode(blocks, table))
            conventional = int(np.count_nonzero(is_conventional(table)))
            self._say("make", number, geometry.size_bytes // _MIB, 1, geometry.zone_bytes // _MIB, conventional)
            words = ["zbd", "restore", "-d", prefix.parent, "-f", prefix.name, f"/dev/nullb{number}"]
            self._say("must", "restore", *words)
        size = table_line(Target("dm-zoned", tuple(devices)), Settings()).line.split()[1]
        self._table = " ".join([f"0 {size} zoned", *(f"/dev/nullb{number}" for number in range(len(devices)))])

    def start(self) -> None:
        self.starts += 1
        self._say("must", "start", "dmsetup", "create", "proof", "--table", self._table)

    def stop(self) -> None:
        self._say("must", "stop", "dmsetup", "remove", "--retry", "proof")

    def compare(self, content: bytes) -> None:
        """The logical device begins with ``content``."""
        self._say("must", "content", "cmp", "-n", len(content), self._file(content), "/dev/mapper/proof")

    def write(self, requests: Sequence[tuple[int, bytes]]) -> None:
        """Write ``(block, content)`` one after the other, each with a flush."""
        path = self._file(b"".join(content for _, content in requests))
        places = [f"{block * LOGICAL_BLOCK_BYTES}:{len(content)}" for block, content in requests]
        self._say("must", "write", "perl", "-e", _WRITE, path, *places)

    def end(self) -> None:
        self._say("unmake", *range(self._drives))

    def run(self, lab: Callable[..., Lab], out: Path) -> list[str]:
        """Boot a guest and do it all; what does not hold, a line for each, which begins with the name of the case."""
        script = "\n".join([_PREAMBLE, *self._lines, "echo done", ""])
        out.mkdir()
        result = lab().run(script, out=out, memory="2G", timeout=600)
        said = result.log.splitlines()
        assert said[-1:] == ["done"], result.log
        return [line.removeprefix("FAILED ") for line in said if line.startswith("FAILED ")]


def _pieces(device: Device) -> Iterator[bytes]:
    size = device.geometry.size_bytes
    return (device.read(at, min(_MIB, size - at)) for at in range(0, size, _MIB))


def _write_sparse(path: Path, pieces: Iterable[bytes]) -> None:
    with open(path, "wb") as file:
        for piece in pieces:
            if piece.count(0) == len(piece):
                file.seek(len(piece), 1)
            else:
                file.write(piece)
        file.truncate(file.tell())
