"""Console entry points. ``--version`` answers before typer is imported."""

from __future__ import annotations

import sys

from zoned_tools import __version__
from zoned_tools.cli.streams import secure_standard_streams

VERSION_TEXT = {
    "zoned": f"zoned {__version__}",
    # The clones print what scripts written for the originals look for, then who they really are.
    "dmzadm": f"2.2.2\nzoned_tools {__version__}, works as dmzadm 2.2.2",
    "zdmadm": f"zdmadm, zoned_tools {__version__}, works as zdmadm 0.125",
    "mkzonefs": f"mkzonefs, version 1.6.0\nzoned_tools {__version__}, works as mkzonefs 1.6.0",
}


def _main(program: str) -> int:
    secure_standard_streams()
    # Every original reads its arguments from left to right: only a leading option is safe to answer here.
    if sys.argv[1:2] == ["--version"] or (program == "dmzadm" and sys.argv[1:2] == ["-v"]):
        print(VERSION_TEXT[program])
        return 0
    from zoned_tools.cli.run import run

    return run(program, sys.argv[1:])


def zoned() -> int:
    return _main("zoned")


def dmzadm() -> int:
    return _main("dmzadm")


def zdmadm() -> int:
    return _main("zdmadm")


def mkzonefs() -> int:
    return _main("mkzonefs")
