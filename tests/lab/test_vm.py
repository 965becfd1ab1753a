"""The lab itself: what a script in a guest can rely on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import devices
from tests.lab.vm import GuestError, Lab


def test_script_runs_over_the_host_and_leaves_results(lab: Callable[..., Lab], tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.write_text("from the host\n")
    out = tmp_path / "out"
    out.mkdir()
    script = f"uname -r; cat {host}; echo changed >{host}; cat {host}; stat -c %s disk; echo $NAME >left; exit 7"
    result = lab().run(
        script, out=out, files={"disk": 12345, "data": b"x"}, environment={"NAME": "it's"}, timeout=120, memory="1G"
    )
    assert result.rc == 7
    release, *rest = result.log.splitlines()
    assert release.startswith("6.12.")
    assert rest == ["from the host", "changed", "12345"]
    assert (result.out / "left").read_text() == "it's\n"
    assert host.read_text() == "from the host\n", "the host's files are copied on write"


def test_guest_that_hangs_or_dies_is_reported(lab: Callable[..., Lab], tmp_path: Path) -> None:
    hangs, dies = tmp_path / "hangs", tmp_path / "dies"
    hangs.mkdir()
    dies.mkdir()
    with pytest.raises(GuestError, match=r"did not finish in 25 s[^$]*still here"):
        lab().run("echo still here; sleep 600", timeout=25, memory="1G", out=hangs)
    with pytest.raises(GuestError, match=r"stopped before the end of its script[^$]*sysrq triggered crash"):
        lab().run("echo c >/proc/sysrq-trigger; sleep 600", timeout=120, memory="1G", out=dies)


@pytest.mark.lab(guest="target", **devices.MACHINE)
def test_marked_test_runs_in_the_guest() -> None:
    assert os.getuid() == 0
    assert os.uname().release.startswith("6.12.")
    assert Path("/sys/kernel/config").is_dir()
