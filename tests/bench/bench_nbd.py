"""CPU time of the NBD server beside ``nbdkit file``: ``python tests/bench/bench_nbd.py [--directory DIR]``.

Both serve the same content from the page cache to fio, in turn: nbdkit a file, the NBD server the same file
("file") and a dm-zoned image that holds it ("dm-zoned"). What counts is the CPU time of the server for one
request, as the kernel accounts it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket as socket_module
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

SIZE_MIB = 512
ROUNDS = 5
RUNS = (("4 KiB random", "randread", "4k", 1), ("4 KiB random", "randread", "4k", 16), ("1 MiB", "read", "1m", 1))
TARGETS = {("4k", 1): 0.4, ("4k", 16): 0.4, ("1m", 1): 1.0}

_SERVER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tests.engine.volumes import FileMapper
from zoned_tools.engine.nbd import Server, serve
from zoned_tools.engine.nbd.sockets import unix_listener
with unix_listener(sys.argv[3]) as (listener, uri):
    serve(Server(FileMapper(sys.argv[2])), listener)
"""


@contextmanager
def server(command: list[str], socket: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens on ``socket``; stopped at the end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert process.poll() is None, command
            assert time.monotonic() < deadline, command
            time.sleep(0.02)
        with socket_module.socket(socket_module.AF_UNIX) as client:  # the start is over when clients are greeted
            client.connect(str(socket))
            assert client.recv(8) == b"NBDMAGIC"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    socket.unlink(missing_ok=True)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(process: subprocess.Popen[bytes], socket: Path, how: str, block: str, depth: int) -> tuple[float, float]:
    """``(CPU microseconds of the server per request, requests per second)``."""
    before = cpu_seconds(process.pid)
    command = ["fio", "--name=bench", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}", f"--rw={how}"]
    command += [f"--bs={block}", f"--iodepth={depth}", "--runtime=2", "--time_based", f"--size={SIZE_MIB}m"]
    done = subprocess.run([*command, "--output-format=json"], capture_output=True, text=True, check=True)
    read = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["read"]
    return (cpu_seconds(process.pid) - before) / read["total_ios"] * 1e6, read["iops"]


def fill(image: Path, content: Path, socket: Path) -> None:
    """A dm-zoned image with ``content``."""
    zoned = [sys.executable, "-m", "zoned_tools"]
    options = ["--size", f"{2 * SIZE_MIB}M", "--zone-size", "16M", "--conventional", "8"]
    subprocess.run([*zoned, "image", "create", str(image), *options], check=True, capture_output=True)
    format_it = "import sys; from zoned_tools.cli.entry import dmzadm; sys.argv[0] = 'dmzadm'; sys.exit(dmzadm())"
    subprocess.run([sys.executable, "-c", format_it, "--format", str(image)], check=True, capture_output=True)
    with server([*zoned, "serve", str(image), "--write", "--socket", str(socket)], socket):
        subprocess.run(["nbdcopy", "--flush", str(content), f"nbd+unix:///?socket={socket}"], check=True)


def compare(title: str, how: str, block: str, depth: int, commands: dict[str, list[str]], socket: Path) -> None:
    """Measure each server in turn, again and again; print medians and what they mean."""
    rounds: dict[str, list[tuple[float, float]]] = {who: [] for who in commands}
    for _ in range(ROUNDS):
        for who, command in commands.items():
            with server(command, socket) as process:
                rounds[who].append(measure(process, socket, how, block, depth))
    cpu = {who: median(cost for cost, _ in results) for who, results in rounds.items()}
    rate = {who: median(rate for _, rate in results) for who, results in rounds.items()}
    print(f"{title}, depth {depth} (at least {TARGETS[block, depth]} of nbdkit per CPU second)")
    for who in commands:
        print(f"  {who:<10} {cpu[who]:8.1f} us CPU  {cpu['nbdkit'] / cpu[who]:5.2f}  {rate[who]:10,.0f}/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="where files of 512 MiB and 1 GiB lie")
    options = parser.parse_args()
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        content, image, socket = Path(name, "content"), Path(name, "image"), Path(name, "s")
        with content.open("wb") as stream:
            for _ in range(SIZE_MIB // 8):
                stream.write(os.urandom(8 << 20))
        fill(image, content, socket)
        commands = {
            "nbdkit": ["nbdkit", "-f", "-r", "--unix", str(socket), "file", str(content)],
            "file": [sys.executable, "-c", _SERVER, str(root), str(content), str(socket)],
            "dm-zoned": [sys.executable, "-m", "zoned_tools", "serve", str(image), "--socket", str(socket)],
        }
        for title, how, block, depth in RUNS:
            compare(title, how, block, depth, commands, socket)


if __name__ == "__main__":
    main()
