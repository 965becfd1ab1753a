"""Run a program that ends itself with SIGKILL ahead of its n-th call that changes a file below a folder.

python -m tests.faults.killed FOLDER NUMBER PROGRAM [ARGUMENT...]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.device.faults import Call, Syscalls
from zoned_tools.cli.run import run


def main() -> int:
    folder, number, program, *arguments = sys.argv[1:]
    left = int(number)

    def before(call: Call) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    with pytest.MonkeyPatch.context() as patched:
        calls = Syscalls(patched, Path(folder))
        calls.watching, calls.before = True, before
        return run(program, arguments)


if __name__ == "__main__":
    sys.exit(main())
