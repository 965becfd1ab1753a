"""Every shell line of the README works, in the order in which a reader meets it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

SECTIONS = [
    (title, re.findall(r"^```sh\n(.*?)^```", body, re.MULTILINE | re.DOTALL))
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(
    ("title", "blocks"), [s for s in SECTIONS if s[1]], ids=[t for t, blocks in SECTIONS if blocks]
)
def test_section(title: str, blocks: list[str], tmp_path: Path) -> None:
    """Sections stand alone: each begins with the formatted drive of the first steps."""
    assert shutil.which("bash")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    first = SECTIONS[[t for t, _ in SECTIONS].index("First steps")][1]
    prepare = "" if blocks is first else f"({''.join(first)}) > /dev/null\n"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = f"set -eu\n{prepare}" + "\n".join(blocks)
    done = subprocess.run(
        ["timeout", "60", "bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    assert "Traceback" not in done.stderr


def test_the_two_set_up_commands() -> None:
    commands = re.findall(r"^```\n(.*?)\n```", README, re.MULTILINE)
    assert commands == ["./setup && .venv/bin/zoned demo", "tests/run"]
    assert 'tests/run" "$@"' in (ROOT / ".ci/run").read_text()
    for script in ("setup", "tests/run", ".ci/run"):
        assert os.access(ROOT / script, os.X_OK)


def test_the_demo_is_short_and_whole() -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["zoned", "demo"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n$ ") >= 12
    assert "\nidentical\n" in done.stdout
