#!/usr/bin/env python3
"""Boot a lab kernel in qemu over this machine's own files and run a script in it as root.

The host's programs and virtual environments are there at the same paths; what the guest
changes is kept in its memory, except in ``/out``, which comes back. As a program::

    tests/lab/vm.py [-k 6.12|6.1] [-t SECONDS] [-m MEMORY] [-q QEMU_ARGUMENT]... SCRIPT|-
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if __package__ or __name__ != "__main__":
    from tests.lab.kernel import (
        SEARCH_PATH,
        SUITES,
        Kernel,
        LabUnavailableError,
        cache_directory,
        find_program,
        get_kernel,
    )
else:  # run as a program
    from kernel import (  # type: ignore[import-not-found, no-redef]  # the name it has beside this file
        SEARCH_PATH,
        SUITES,
        Kernel,
        LabUnavailableError,
        cache_directory,
        find_program,
        get_kernel,
    )

MAX_GUESTS = 2
"""Guests of one user that run at the same time; the others wait."""

_CONSOLE_TAIL_LINES = 60


class GuestError(Exception):
    """A guest did not come to the end of its script; the text ends with its console's last lines."""


@dataclass(frozen=True)
class LabResult:
    """What a script in the guest left.

    Attributes:
        rc: its exit status.
        log: its standard output and error.
        out: the directory that was ``/out`` in the guest.
    """

    rc: int
    log: str
    out: Path


class Lab:
    """A kernel to run scripts in.

    Raises:
        LabUnavailableError: this machine has no qemu, or the kernel cannot be fetched.
    """

    def __init__(self, kernel: str = "6.12") -> None:
        self.kernel: Kernel = get_kernel(kernel)

    def run(
        self,
        script: str,
        *,
        timeout: float = 300,
        memory: str = "2G",
        qemu_args: Sequence[str] = (),
        files: Mapping[str, bytes | int] | None = None,
        out: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> LabResult:
        """Run a bash script as root in a fresh guest and wait for it.

        Args:
            timeout: seconds from boot to power-off; the wait for a free guest does not count.
            memory: of the guest, as qemu takes it.
            qemu_args: more arguments for qemu; ``{out}`` in them is the directory of ``files``.
            files: what is in ``/out`` at the start: contents, or the size of a sparse file in bytes.
            out: an empty directory for ``/out``, by default a new temporary one (the caller removes it).
            environment: variables for the script.

        Raises:
            GuestError: the guest crashed, or did not power off in time.
        """
        directory = out or Path(tempfile.mkdtemp(prefix="zoned-lab-"))
        for name, content in (files or {}).items():
            with open(directory / name, "wb") as file:
                if isinstance(content, int):
                    file.truncate(content)
                else:
                    file.write(content)
        (directory / "script").write_text(script, encoding="utf-8")
        variables = {"PATH": SEARCH_PATH, **(environment or {})}
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
        (directory / "environment").write_text("".join(lines), encoding="utf-8")
        extra = [argument.replace("{out}", str(directory)) for argument in qemu_args]
        with _guest_slot(), open(directory / "qemu.log", "wb") as log:
            try:
                subprocess.run(
                    [*self._qemu(directory, memory), *extra],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=timeout,
                    check=False,
                )
                ended = "the guest stopped before the end of its script"
            except subprocess.TimeoutExpired:
                ended = f"the guest did not finish in {timeout:g} s"
        status = _text(directory / "status").strip()
        if not status:
            raise GuestError(f"{ended}\n{_tails(directory)}")
        return LabResult(int(status), _text(directory / "log"), directory)

    def _qemu(self, out: Path, memory: str) -> list[str]:
        shares = (("/", "host_root", True), (str(self.kernel.modules), "modules", True), (str(out), "out", False))
        # Emulation by default: it is there on every machine, virtual ones included, and always behaves the same.
        accelerator = os.environ.get("ZONED_LAB_ACCEL", "tcg,thread=multi")
        command = [find_program("qemu-system-x86_64"), "-accel", accelerator]
        # One processor: emulated ones that spin on each other's locks make everything three times slower.
        command += ["-smp", "1", "-cpu", "max", "-m", memory, "-display", "none", "-nodefaults", "-no-reboot"]
        command += ["-serial", f"file:{out}/console"]
        command += ["-kernel", str(self.kernel.image), "-initrd", str(self.kernel.initramfs)]
        command += ["-append", "console=ttyS0 loglevel=6 panic=-1 oops=panic"]
        for path, tag, read_only in shares:
            mode = "readonly=on," if read_only else ""
            share = f"local,path={path.replace(',', ',,')},mount_tag={tag},{mode}security_model=none,multidevs=remap"
            command += ["-virtfs", share]
        return command


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _tails(out: Path) -> str:
    parts = []
    for name in ("qemu.log", "console", "log"):
        lines = _text(out / name).splitlines()[-_CONSOLE_TAIL_LINES:]
        if lines:
            parts.append("\n".join([f"--- {name}", *lines]))
    return "\n".join(parts)


@contextmanager
def _guest_slot() -> Iterator[None]:
    """Wait until fewer than :data:`MAX_GUESTS` guests run (test workers each boot their own)."""
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        for number in range(MAX_GUESTS):
            with open(directory / f"guest-{number}.lock", "w", encoding="ascii") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield
                return
        time.sleep(0.2)


def main() -> int:
    """Run a script in the lab by hand."""
    parser = argparse.ArgumentParser(description="run a bash script as root in a lab kernel")
    parser.add_argument("-k", "--kernel", choices=sorted(SUITES), default="6.12")
    parser.add_argument("-t", "--timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("-m", "--memory", default="2G")
    parser.add_argument("-q", "--qemu", action="append", default=[], metavar="ARGUMENT", help="{out} is /out")
    parser.add_argument("-o", "--out", type=Path, help="keep what the guest leaves in /out in this directory")
    parser.add_argument("script", help="file, - for standard input")
    arguments = parser.parse_args()
    script = sys.stdin.read() if arguments.script == "-" else Path(arguments.script).read_text(encoding="utf-8")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    directory = arguments.out or Path(tempfile.mkdtemp(prefix="zoned-lab-"))
    try:
        result = Lab(arguments.kernel).run(
            script, timeout=arguments.timeout, memory=arguments.memory, qemu_args=arguments.qemu, out=directory
        )
    except (LabUnavailableError, GuestError) as error:
        print(f"vm.py: {error}", file=sys.stderr)
        return 125
    finally:
        if not arguments.out:
            shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.write(result.log)
    return result.rc


if __name__ == "__main__":
    sys.exit(main())
