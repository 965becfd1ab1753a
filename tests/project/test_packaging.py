"""The source distribution is the whole project; the wheel has what the programs read besides their code."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _build(kind: str, source: Path, directory: Path) -> None:
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(directory), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_source_distribution_has_everything(tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    _build("sdist", ROOT, tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        packed = {name.split("/", 1)[1] for name in files.getnames() if "/" in name}
    missing = {name for name in tracked.stdout.splitlines() if (ROOT / name).exists()} - packed - {".gitignore"}
    assert not missing


def test_the_wheel_has_schemas_and_the_marker_of_types(tmp_path: Path) -> None:
    """Built from the source distribution, which is what distributions do."""
    _build("sdist", ROOT, tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    _build("wheel", archive.with_name(archive.name.removesuffix(".tar.gz")), tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "zoned_tools/report/schemas").glob("*.json")}
    assert data
    assert {*data, "zoned_tools/py.typed", "zoned_tools/report/schemas/generator.py"} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
