"""``zoned-rescue(7)``: every line of its stories, run one after the other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.archives import poke, unpack
from tests.engine.rescue_cases import VECTORS

MANUAL = Path(__file__).parents[2] / "man/zoned-rescue.7"
DRIVE = "drive.img"
_ENDS = re.compile(r"\s+# ends with (\d+)$")


def stories() -> dict[str, list[tuple[list[str], int]]]:
    """Command lines and exit statuses below each heading."""
    found: dict[str, list[tuple[list[str], int]]] = {}
    heading, inside = "", False
    for line in MANUAL.read_text(encoding="utf-8").replace("\\-", "-").splitlines():
        if line.startswith(".SH "):
            heading = line[4:]
        elif line in (".EX", ".EE"):
            inside = line == ".EX"
        elif inside:
            ending = _ENDS.search(line)
            words = _ENDS.sub("", line).replace("/dev/sdb", DRIVE).split()
            found.setdefault(heading, []).append((words, int(ending[1]) if ending else 0))
    return found


def _vector(name: str, folder: Path, *renamed: tuple[str, str]) -> None:
    """Images of a dm-zoned vector under other names, zone tables included."""
    source = folder / "vector"
    source.mkdir(exist_ok=True)
    unpack(VECTORS / f"dm-zoned/{name}.tar.xz", source)
    for old, new in renamed:
        shutil.move(source / old, folder / new)
        if (source / f"{old}.zones").exists():
            shutil.move(source / f"{old}.zones", folder / f"{new}.zones")


def _patch(path: Path, *places: tuple[int, bytes]) -> None:
    for offset, content in places:
        poke(path, offset, content)


def _bad_sectors(folder: Path) -> None:
    """A drive of which a map block, bitmap blocks and a valid block give errors: a map file stands for them."""
    _vector("hm64x1", folder, ("disk.img", DRIVE))
    size = (folder / DRIVE).stat().st_size
    bad = [(4096, 4096), (1123328, 512), (17303040, 1024)]
    _patch(folder / DRIVE, *((at, b"\xee" * length) for at, length in bad))
    rows, done = [], 0
    for at, length in bad:
        rows += [f"{done} {at - done} +", f"{at} {length} -"]
        done = at + length
    rows.append(f"{done} {size - done} +")
    (folder / f"{DRIVE}.map").write_text("\n".join(["0 +", *rows, ""]))


def _no_zone_table(folder: Path) -> None:
    _vector("hm64x1", folder, ("disk.img", "raw.img"))
    (folder / "raw.img.zones").unlink()


def _no_super_block(folder: Path) -> None:
    _vector("hm64x1", folder, ("disk.img", "nosuper.img"))
    _patch(folder / "nosuper.img", (0, bytes(4096)), (1 << 20, bytes(4096)))


def _half_a_target(folder: Path) -> None:
    _vector("dual", folder, ("disk0.img", "regular.img"), ("disk1.img", "member.img"))


def _wrong_table(folder: Path) -> None:
    _vector("hm64x1", folder, ("disk.img", "foreign.img"), ("fresh.img", "fresh.img"))
    shutil.copy(folder / "fresh.img.zones", folder / "foreign.img.zones")


PREPARE = {
    "A DRIVE WITH BAD SECTORS": _bad_sectors,
    "NO ZONE TABLE": _no_zone_table,
    "NO SUPER BLOCK": _no_super_block,
    "HALF A TARGET": _half_a_target,
    "A WRONG ZONE TABLE": _wrong_table,
}


def test_every_story_is_played() -> None:
    assert set(stories()) == set(PREPARE)


def _run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    if words[0] == "zoned":
        words = [str(Path(sys.executable).with_name("zoned")), *words[1:]]
    else:
        _bad_drive(words, folder)
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def _bad_drive(words: list[str], folder: Path) -> None:
    """ddrescue reads an image as if its bad sectors gave errors: they are not in the domain, and marked afterwards."""
    domain = folder / words[words.index("-m") + 1]
    from zoned_tools.device.badareas import BadAreas
    from zoned_tools.device.mapfile import mapfile_content, read_mapfile

    size = (folder / DRIVE).stat().st_size
    bad = read_mapfile(str(folder / f"{DRIVE}.map"), size)
    for start, end, letter in bad:
        wanted = BadAreas.of(row for row in read_mapfile(str(domain), size).over(size) if row[2] == "+")
        for first, last, _ in wanted.within(start, end - start):
            mine = folder / "disk.img.map"
            rows = list(read_mapfile(str(mine), size)) if mine.exists() else [(0, size, "?")]
            kept = BadAreas.of(rows).without(first, last - first)
            joined = sorted([*kept, (first, last, letter)])
            mine.write_bytes(mapfile_content(BadAreas.of(joined).over(size)))


@pytest.mark.skipif(shutil.which("ddrescue") is None, reason="needs GNU ddrescue")
@pytest.mark.parametrize("story", PREPARE)
def test_story(story: str, tmp_path: Path) -> None:
    PREPARE[story](tmp_path)
    for words, status in stories()[story]:
        result = _run(list(words), tmp_path)
        assert result.returncode == status, f"{' '.join(words)}\n{result.stdout}{result.stderr}"
        assert "Traceback" not in result.stderr
