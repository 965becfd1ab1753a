"""What fleets and scripts call: metrics, lists, explanations, documents, diagrams."""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zoned_tools.errors import DeviceError
from zoned_tools.formats import registry

if TYPE_CHECKING:
    from tests.programs import Program
    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Identity

VECTORS = Path(__file__).parents[1] / "vectors" / "dm-zoned"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    with tarfile.open(VECTORS / "hm64x1.tar.xz") as archive:
        for name in ("disk.img", "disk.img.zones"):
            archive.extract(name, tmp_path, filter="data")
    return tmp_path / "disk.img"


def test_metrics(image: Path, tmp_path: Path, program: Program) -> None:
    output = tmp_path / "zoned.prom"
    missing = tmp_path / "missing.img"
    result = program("zoned", "metrics", image, missing, "--check", "-o", output)
    assert (result.status, result.err) == (8, f"zoned: {missing}: cannot open: No such file or directory\n")
    text = output.read_text()
    assert text.endswith("\n")
    line = re.compile(r'[a-z_]+\{[a-z_]+="[^"\n]*"(?:,[a-z_]+="[^"\n]*")*\} -?[0-9.]+')
    names = set()
    for row in text.splitlines():
        if not row.startswith("#"):
            assert line.fullmatch(row), row
            names.add(row.partition("{")[0])
    assert {"zoned_device_info", "zoned_zones", "zoned_written_bytes", "zoned_check_exit_status"} <= names
    assert f'zoned_device_up{{device="{missing}"}} 0' in text
    assert f'zoned_check_exit_status{{device="{image}",layout="dm-zoned"}} 0' in text
    assert "zone=" not in text
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_dump_and_restore(image: Path, tmp_path: Path, program: Program) -> None:
    document = tmp_path / "metadata.json"
    assert program("zoned", "dump", image, "-o", document).status == 0
    assert json.loads(document.read_text())["schema"] == "zoned.dump/1"
    good = image.read_bytes()
    with open(image, "r+b") as raw:
        raw.write(b"\xff" * 66 * 4096)
        raw.seek(256 * 4096)
        raw.write(b"\xff" * 66 * 4096)
    assert program("dmzadm", "--check", image).status == 255
    assert program("zoned", "restore", image, "--input", document).status == 0
    assert program("dmzadm", "--check", image).status == 0
    assert image.read_bytes() == good


def test_a_packed_dump_hides_names(image: Path, tmp_path: Path, program: Program) -> None:
    packed = tmp_path / "report.gz"
    assert program("zoned", "dump", image, "--binary", "-o", packed).status == 0
    assert packed.read_bytes()[:2] == b"\x1f\x8b"
    import gzip

    text = gzip.decompress(packed.read_bytes())
    assert b"pub-a" not in text
    assert str(image).encode() not in text
    refused = program("zoned", "restore", image, "--input", packed)
    assert (refused.status, "names were hidden" in refused.err) == (8, True)
    kept = tmp_path / "kept.gz"
    assert program("zoned", "dump", image, "--binary", "--keep-names", "-o", kept).status == 0
    assert program("zoned", "restore", image, "--input", kept).status == 0


def test_explain(program: Program) -> None:
    everything = program("zoned", "explain").out.splitlines()
    assert len(everything) > 100
    for layout in ("dm-zoned", "zdm", "zonefs", "btrfs", "inplace-compress"):
        assert any(line.startswith(f"{layout}.") for line in everything), layout
    one = program("zoned", "explain", "dm-zoned.sets-gen-differ")
    assert one.out.startswith("dm-zoned.sets-gen-differ (warning)\n  meaning:")
    assert program("zoned", "explain", "nonsense").status == 16
    document = json.loads(program("zoned", "explain", "--json").out)
    assert len(document["codes"]) == len(everything)


def test_diagram(image: Path, tmp_path: Path, program: Program) -> None:
    text = program("zoned", "diagram", image).out
    assert text.startswith(f"{image}: dm-zoned\n")
    letters = "".join(line.split()[1] for line in text.splitlines()[1:] if line.strip()[0].isdigit())
    assert len(letters) == 64
    assert letters.count("M") == 2
    svg = tmp_path / "map.svg"
    assert program("zoned", "diagram", image, "-o", svg).status == 0
    import xml.etree.ElementTree as ElementTree

    assert ElementTree.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_list(program: Program) -> None:
    assert program("zoned", "list").status == 0
    document = json.loads(program("zoned", "list", "--all", "--json").out)
    assert document["schema"] == "zoned.list/1"
    assert all({"device", "model", "size_bytes", "nr_zones"} <= set(disk) for disk in document["devices"])


def test_many_drives_in_one_check(image: Path, tmp_path: Path, program: Program) -> None:
    plain, missing = tmp_path / "plain.img", tmp_path / "missing.img"
    plain.write_bytes(bytes(1 << 20))
    for order in permutations((image, plain, missing)):
        result = program("zoned", "check", "--json", *order)
        assert result.status == 8
        rows = json.loads(result.out)["devices"]
        assert [row["devices"] for row in rows] == [[str(path)] for path in order]
        assert [row["verdict"] for row in rows] == ["clean" if path == image else "failed" for path in order]
        assert all({"devices", "layout", "verdict", "findings"} <= set(row) for row in rows)


# -- a bad drive among good ones


@pytest.fixture
def shelf(image: Path, tmp_path: Path, program: Program) -> list[Path]:
    """A missing drive, a good one, one whose zone table is damaged, another good one."""
    other, damaged = tmp_path / "other.img", tmp_path / "damaged.img"
    for path in (other, damaged):
        assert program("zoned", "image", "create", path, "--zones", 16, "--zone-size", "4M").status == 0
    assert program("mkzonefs", other).status == 0
    Path(f"{damaged}.zones").write_bytes(b"nonsense")
    return [tmp_path / "missing.img", image, damaged, other]


@pytest.mark.parametrize(
    "command",
    [
        ("probe",),
        ("probe", "--json"),
        ("probe", "--export"),
        ("report",),
        ("report", "--json"),
        ("report", "--json", "--summary"),
        ("report", "--summary"),
        ("report", "--format", "zbd", "--info"),
        ("inspect",),
        ("metrics",),
        ("metrics", "--check"),
        ("check",),
        ("check", "--json"),
    ],
    ids=" ".join,
)
def test_a_bad_drive_does_not_silence_the_others(command: tuple[str, ...], shelf: list[Path], program: Program) -> None:
    missing, first, damaged, second = shelf
    result = program("zoned", *command, *shelf)
    assert result.status == 8
    assert result.out.index(first.name) < result.out.index(second.name)
    lines = result.err.splitlines()
    names = (str(missing), f"{damaged}.zones")
    assert all(line.startswith(f"zoned: {name}: ") for line, name in zip(lines, names, strict=True))
    if "--json" in command:
        document = json.loads(result.out)
        assert document["schema"].startswith(f"zoned.{command[0]}")
        assert tuple(error["device"] for error in document["errors"]) == names


def test_what_cannot_be_asked_of_any_drive_is_told_once(shelf: list[Path], program: Program) -> None:
    result = program("zoned", "report", "--filter", "nonsense", *shelf)
    assert (result.status, result.out, result.err.count("\n")) == (16, "", 1)
    beyond = program("zoned", "report", "--offset", "100000000", *shelf[1:])
    assert (beyond.status, beyond.out, beyond.err.count("\n")) == (24, "", 3)


def test_a_drive_that_cannot_be_probed(shelf: list[Path], program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first, _, second = shelf
    layout = registry.get("dm-zoned")
    probe = layout.probe

    def fail(device: Device, start_bytes: int) -> Identity | None:
        if device.path == str(first):
            raise DeviceError("cannot read", device=device.path)
        return probe(device, start_bytes)

    monkeypatch.setattr(registry, "ours", lambda: [replace(layout, probe=fail), registry.get("zonefs")])
    for command in ("probe", "inspect", "metrics", "check"):
        result = program("zoned", command, first, second)
        assert (result.status, result.err) == (8, f"zoned: {first}: cannot read\n")
        assert second.name in result.out
