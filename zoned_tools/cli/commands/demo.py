"""``zoned demo``: a tour on a temporary emulated drive."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from zoned_tools.errors import ZonedError

_BOLD, _DIM, _PLAIN = "\x1b[1;36m", "\x1b[2m", "\x1b[0m"

_WORKLOAD = """\
fio version 2 iolog
demo add
demo open
{lines}
demo datasync 0 0
demo close
"""


def demo(
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="DIRECTORY", help="Work in this new directory and keep it.", show_default=False),
    ] = None,
) -> int:
    """A tour on a temporary emulated drive."""
    if keep is not None:
        folder = Path(keep)
        try:
            folder.mkdir()
        except OSError as error:
            raise ZonedError(f"cannot create: {error.strerror}", device=keep) from None
        return _tour(folder)
    with tempfile.TemporaryDirectory(prefix="zoned-demo-") as temporary:
        return _tour(Path(temporary))


def _tour(folder: Path) -> int:
    before = Path.cwd()
    os.chdir(folder)
    try:
        tour = _Tour()
        tour.run()
    finally:
        os.chdir(before)
    return 0


class _Tour:
    """The steps, each a command that the user can repeat."""

    def __init__(self) -> None:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._bold, self._dim, self._plain = (_BOLD, _DIM, _PLAIN) if colour else ("", "", "")

    def say(self, text: str) -> None:
        print(f"\n{self._bold}# {text}{self._plain}")

    def do(self, line: str, expected: int = 0) -> None:
        """Run a command line of this suite in this process.

        Raises:
            ZonedError: it does not end with the ``expected`` status.
        """
        from zoned_tools.cli.run import run

        print(f"{self._dim}${self._plain} {line}", flush=True)
        program, *arguments = shlex.split(line)
        status = run(program, arguments)
        if status != expected:
            raise ZonedError(f"the tour ends here: '{line}' ended with exit status {status}, not {expected}")

    def run(self) -> None:
        self.say("An emulated host-managed drive: 48 zones of 4 MiB, 8 of them conventional")
        self.do("zoned image create drive.img --zones 48 --zone-size 4MiB --conventional 8 --max-open 8")
        self.say("It behaves as a drive: its zones have types, conditions and write pointers")
        self.do("zoned report drive.img --format blkzone --count 10")
        self.say("Format it for the kernel's dm-zoned target; no root and no kernel module needed")
        self.do("dmzadm --format drive.img --label=demo --seq=4")
        self.say("Fill it through the offline model of the target: random writes on a sequential drive")
        self._write_workload(Path("workload.log"))
        self.do("zoned replay drive.img --trace workload.log")
        self.do("zoned diagram drive.img")
        self.do("zoned map drive.img --at 320+800")
        self.do("dmzadm --check drive.img")
        self.do("zoned export drive.img -o before.raw --quiet")
        self.say("Damage: the primary super block is overwritten")
        print(f"{self._dim}${self._plain} dd if=/dev/urandom of=drive.img bs=512 count=1 conv=notrunc")
        with open("drive.img", "r+b") as image:
            image.write(os.urandom(512))
        self.say("Check finds it; its exit status tells scripts")
        self.do("dmzadm --check drive.img", expected=1)
        self.say("Repair: first as a plan, then for real, with an undo file")
        self.do("zoned check drive.img --repair --dry-run", expected=4)
        self.do("zoned check drive.img --repair --undo repair.undo", expected=1)
        self.do("dmzadm --check drive.img")
        self.say("Every byte is still there")
        self.do("zoned export drive.img -o after.raw --quiet")
        same = _same("before.raw", "after.raw")
        print(f"{self._dim}${self._plain} cmp before.raw after.raw && echo identical")
        print("identical" if same else "different")
        if not same:
            raise ZonedError("the tour ends here: the content changed")
        self.say("See zoned --help and the README for more")

    @staticmethod
    def _write_workload(path: Path) -> None:
        """Sequential writes to six chunks, then overwrites and discards here and there."""
        block, chunk = 4096, 4 << 20
        lines = [f"demo write {c * chunk + at} {256 * block}" for c in range(6) for at in range(0, chunk, 256 * block)]
        lines += [f"demo write {(c * 977 % 6) * chunk + (c * 131 % 1000) * block} {4 * block}" for c in range(60)]
        lines += [f"demo trim {c * chunk + 512 * block} {128 * block}" for c in range(3)]
        path.write_text(_WORKLOAD.format(lines="\n".join(lines)), encoding="utf-8")


def _same(one: str, other: str) -> bool:
    import filecmp

    return filecmp.cmp(one, other, shallow=False)
