"""A layout of somebody else's package works in every command, without a line changed in this one."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.formats.plugin.package.zoned_tinyfs.layout import SuperBlock
from tests.formats.plugin.packages import install, with_packages
from tests.programs import Result

PACKAGE = Path(__file__).parent / "package"
MIB = 1 << 20
IMAGE_BLOCKS = 64 * MIB // 4096
GOOD = SuperBlock(b"small", used_blocks=2 * 1024 + 1)
TOO_LONG = replace(GOOD, label_bytes=b"small\0er", used_blocks=IMAGE_BLOCKS + 100)
"""Asks for consent, and has something that is certain to be mended."""

Zoned = Callable[..., Result]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who has installed the package."""
    site = tmp_path_factory.mktemp("site")
    install(PACKAGE, site)
    return with_packages(site)


@pytest.fixture(scope="module")
def zoned(environment: dict[str, str]) -> Zoned:
    """The command in a process of its own."""

    def call(*words: object) -> Result:
        command = [sys.executable, "-m", "zoned_tools", *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="module")
def fresh(zoned: Zoned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 MiB in zones of 4 MiB, three of them conventional, with a good super block."""
    path = tmp_path_factory.mktemp("fresh") / "disk.img"
    created = zoned("image", "create", path, "--size", "64M", "--zone-size", "4M", "--conventional", "3")
    assert created.status == 0, created.err
    put(path, GOOD)
    return path


@pytest.fixture
def image(fresh: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    for path in fresh.parent.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / fresh.name


def put(image: Path, block: SuperBlock) -> None:
    with image.open("r+b") as file:
        file.write(block.pack())


def stored(image: Path) -> SuperBlock:
    return SuperBlock.parse(image.read_bytes()[:4096])


def test_probe_and_inspect(image: Path, zoned: Zoned) -> None:
    (row,) = zoned("probe", "--json", image).json["devices"]
    assert (row["layout"], row["version"], row["label"]) == ("tinyfs", "1", "small")
    document = zoned("inspect", "--json", image).json
    assert (document["label"], document["used_blocks"], document["checksum"]) == ("small", 2049, "right")


def test_check(image: Path, zoned: Zoned) -> None:
    assert zoned("check", image).status == 0
    put(image, TOO_LONG)
    result = zoned("check", "--json", image)
    assert result.status == 4
    (row,) = result.json["devices"]
    assert (row["layout"], row["verdict"]) == ("tinyfs", "errors")
    assert [f["id"] for f in row["findings"]] == ["tinyfs.label-rest", "tinyfs.used-beyond-end"]
    assert row["findings"][1]["where"] == {"used_blocks": IMAGE_BLOCKS + 100, "device_blocks": IMAGE_BLOCKS}


def test_repair_with_consent(image: Path, zoned: Zoned) -> None:
    """The certain action is done, the losing one waits for its code, and says what is lost."""
    put(image, TOO_LONG)
    planned = zoned("check", "--repair", "--dry-run", image)
    assert planned.status == 4
    lost = f"blocks {IMAGE_BLOCKS} to {IMAGE_BLOCKS + 99} (100 blocks) are lost"
    assert f"{lost}; it waits for --allow tinyfs.used-beyond-end" in planned.out
    assert stored(image).label_rest.rstrip(b"\0") == b"er"
    assert zoned("check", "--repair", image).status == 4
    assert (stored(image).label_rest.rstrip(b"\0"), stored(image).used_blocks) == (b"", IMAGE_BLOCKS + 100)
    assert zoned("check", "--repair", "--allow", "label-rest", image).status == 4
    assert zoned("check", "--repair", "--allow", "nothing", image).status == 16
    assert zoned("check", "--repair", "--allow", "tinyfs.used-beyond-end", image).status == 1
    assert stored(image).used_blocks == IMAGE_BLOCKS
    assert zoned("check", image).status == 0


def test_settings(image: Path, zoned: Zoned) -> None:
    """Taken where they are declared, refused everywhere else, repair or not."""
    put(image, TOO_LONG)
    for words, complaint in (
        (("used=many",), "used=many is not possible"),
        (("used=0",), "used=0 is not possible"),
        (("free=1",), "tinyfs has no setting 'free'"),
    ):
        for command in (("check",), ("check", "--repair")):
            result = zoned(*command, image, *words)
            assert (result.status, result.out) == (16, "")
            assert complaint in result.err
            assert len(result.err.splitlines()) == 1
    assert zoned("check", "--repair", "--allow", "used-beyond-end", "--set", "used=7", image).status == 1
    assert stored(image).used_blocks == 7


def test_completion(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zoned_tools.cli.completion", str(tmp_path), "--installed"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    shells = [path.read_text() for path in tmp_path.rglob("*zoned*") if path.is_file()]
    assert shells
    assert all("used=" in text for text in shells)


def test_explain(zoned: Zoned) -> None:
    shown = zoned("explain", "tinyfs.used-beyond-end").out
    for part in ("More blocks are in use", "Refuses the mount.", "what is beyond it is lost", "--allow tinyfs.used"):
        assert part in shown
    (row,) = zoned("explain", "--json", "tinyfs.label-rest").json["codes"]
    assert (row["id"], row["consent"]) == ("tinyfs.label-rest", "certain")


def test_diagram(image: Path, zoned: Zoned, tmp_path: Path) -> None:
    lines = zoned("diagram", image).out.splitlines()
    assert lines[0].endswith(": tinyfs")
    assert lines[1].split()[1] == "Ttt............."
    assert "tiny super block (1)" in lines[2]
    assert zoned("diagram", "-o", tmp_path / "zones.svg", image).status == 0
    assert "tiny data" in (tmp_path / "zones.svg").read_text()


def test_metrics(image: Path, zoned: Zoned) -> None:
    put(image, TOO_LONG)
    lines = zoned("metrics", "--check", image).out.splitlines()
    assert any('layout="tinyfs"' in line and 'label="small"' in line for line in lines)
    assert any(line.startswith("zoned_check_exit_status") and line.endswith(" 4") for line in lines)


def test_dump_and_restore(image: Path, zoned: Zoned, tmp_path: Path) -> None:
    saved, packed = tmp_path / "saved.json", tmp_path / "packed"
    assert zoned("dump", image, "-o", saved).status == 0
    document = json.loads(saved.read_text())
    assert (document["layout"], document["super_block"]["used_blocks"]) == ("tinyfs", 2049)
    assert zoned("dump", "--binary", image, "-o", packed).status == 0
    put(image, replace(GOOD, magic=b"????"))
    assert zoned("restore", image, "-i", packed).status == 8
    assert zoned("restore", image, "-i", saved).status == 0
    assert image.read_bytes()[:4096] == GOOD.pack()


def test_names_are_hidden_in_a_packed_dump(image: Path, zoned: Zoned, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    assert zoned("dump", "--binary", image, "-o", packed).status == 0
    text = gzip.decompress(packed.read_bytes())
    assert b"small" not in text
    assert b"small".hex().encode() not in text


def test_what_it_does_not_have_is_said(image: Path, zoned: Zoned) -> None:
    result = zoned("map", image)
    assert (result.status, len(result.err.splitlines())) == (16, 1)
    assert "tinyfs has no" in result.err


def test_nothing_of_it_is_loaded_for_drives_of_ours(image: Path, environment: dict[str, str]) -> None:
    """Installed packages are asked only where none of ours recognises a drive."""
    make = [sys.executable, "-c", f"from zoned_tools.cli.run import run; run('mkzonefs', ['-f', {str(image)!r}])"]
    code = (
        "import sys; from zoned_tools.cli.run import run;"
        f"assert run('zoned', ['check', {str(image)!r}]) == 0;"
        "assert not {'zoned_tinyfs', 'importlib.metadata', 'zoned_tools.formats.strangers'} & set(sys.modules)"
    )
    for command in (make, [sys.executable, "-c", code]):
        subprocess.run(command, env=environment, check=True, capture_output=True)
