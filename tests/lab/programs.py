"""Our programs inside a guest: in the test's own process, because starting Python there takes seconds."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from zoned_tools.cli.run import run


@dataclass(frozen=True)
class Output:
    status: int
    out: str
    err: str


def program(name: str, *arguments: object, status: int | None = 0) -> Output:
    """Run ``dmzadm``, ``zoned``, ... with arguments; asserts the exit status unless ``status`` is None."""
    out, err = io.StringIO(), io.StringIO()
    words = [str(argument) for argument in arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        exit_status = run(name, words)
    result = Output(exit_status, out.getvalue(), err.getvalue())
    if status is not None:
        assert result.status == status, f"{name} {' '.join(words)}: exit {result.status}\n{result.out}{result.err}"
    return result
