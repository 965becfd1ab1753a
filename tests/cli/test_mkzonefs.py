"""mkzonefs: the command lines of the vectors, what is stricter than the original, and power cuts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.zonefs.images import MIB, VECTORS, make_image
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import ZoneCondition, ZoneTable, is_conventional
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import CheckOptions, Target
from zoned_tools.formats.zonefs.check import check
from zoned_tools.formats.zonefs.features import FeatureSet, parse_features
from zoned_tools.formats.zonefs.format import plan_volume
from zoned_tools.formats.zonefs.judge import mount_faults, recognise
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.programs import Result

CASES: list[dict[str, Any]] = json.loads((VECTORS / "mkzonefs-cli.json").read_text())

STRICTER = {
    "uid=": "Invalid UID",
    "uid=-1": "Invalid UID",
    "uid=4294967296": "Invalid UID",
    "gid=-2": "Invalid GID",
    "perm=": "Invalid file permissions",
    "perm=-1": "Invalid file permissions",
    "perm=1777777": "Invalid file permissions",
}
"""Numbers that the original takes and cuts or wraps: refused, with its message for bad numbers."""


def case_id(case: dict[str, Any]) -> str:
    return " ".join(case["args"]) or "nothing"


def case_image(path: Path, case: dict[str, Any]) -> Path:
    facts = case["device"]
    capacity = next((v for k, v in facts.items() if k not in ("size_mib", "zone_mib", "nr_conv", "block")), None)
    return make_image(
        path,
        size_bytes=facts["size_mib"] * MIB,
        zone_bytes=facts["zone_mib"] * MIB,
        conventional=facts["nr_conv"],
        capacity_bytes=capacity and capacity * MIB,
        block_bytes=facts["block"],
    )


def neutral(text: str, image: Path) -> str:
    text = re.sub(r"FS UUID: [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "FS UUID: <uuid>", text)
    return text.replace(str(image), "DEV").replace(image.name, "<name>")


@pytest.mark.parametrize(("index", "case"), list(enumerate(CASES)), ids=[case_id(case) for case in CASES])
def test_command_line(index: int, case: dict[str, Any], tmp_path: Path, program: Callable[..., Result]) -> None:
    """Status, output, super block and zones of every recorded run of the original."""
    image = case_image(tmp_path / "disk.img", case)
    first = not index or CASES[index - 1]["device"] != case["device"]
    if not first:  # the runs followed each other on one device
        program("mkzonefs", "-f", image)
    with open_image(str(image)) as device:
        before = (device.read(0, 4096), device.zones().tobytes())
    result = program("mkzonefs", *(image if word == "DEV" else word for word in case["args"]))
    with open_image(str(image)) as device:
        raw, table = device.read(0, 4096), device.zones()
    stricter = STRICTER.get(case["args"][2]) if len(case["args"]) == 4 else None
    if stricter is not None:
        assert (result.status, result.out, result.err) == (1, "", f"{stricter}\n")
        assert (raw, table.tobytes()) == before
        return
    assert result.status == case["rc"]
    assert neutral(result.err, image) == case["stderr"]
    if "--version" in case["args"]:
        assert result.out.splitlines()[0] == case["stdout"].splitlines()[0]
        return
    label = case["sb"]["label"] if case["sb"] else ""
    if label == "xongerlabel":  # the original leaves the tail of the first -L
        label, case["stdout"] = "x", case["stdout"].replace(label, "x")
    assert neutral(result.out, image) == case["stdout"]
    if not first or case["rc"] == 0:
        assert table["condition"].tolist() == case["zone_conds"]
    if result.status == 0 and image.name in result.out:
        block = SuperBlock.parse(raw)
        stored = {key: case["sb"][key] for key in ("features", "uid", "gid", "perm")}
        assert {key: getattr(block, key) for key in stored} == stored
        assert block.label == label
        assert next(mount_faults(raw), None) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uid=4294967295", "Invalid UID"),
        ("gid=4294967295", "Invalid GID"),
        ("gid=", "Invalid GID"),
        ("perm=10000", "Invalid file permissions"),
        ("uid=" + "9" * 5000, "Invalid UID"),
        ("uid=1,foo", "Invalid feature string"),
        ("uid=-1x", "Invalid feature string"),
        ("uid=9223372036854775807x", "Invalid feature string"),
        ("uid=9223372036854775808x", "Invalid UID"),
        ("gid=-9223372036854775808x", "Invalid feature string"),
        ("gid=-9223372036854775809x", "Invalid GID"),
        ("uid=+", "Invalid feature string"),
        ("uid= ,gid=1", "Invalid feature string"),
        ("perm=0o644", "Invalid feature string"),
        ("AGGR_CNV", "Invalid feature string"),
        ("aggr_cnv, uid=1", "Invalid feature string"),
        ("uid=1;gid=2", "Invalid feature string"),
        ("perm=8", "Invalid feature string"),
        ("invalid,,list", "Invalid feature string"),
    ],
)
def test_bad_features(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_features(text)
    assert caught.value.message == message


@given(
    st.integers(0, 2**32 - 2),
    st.integers(0, 2**32 - 2),
    st.integers(0, 0o7777),
    st.permutations(["uid", "gid", "perm", "aggr_cnv"]),
    st.sampled_from(["", " ", "+", "\t +", "00"]),
)
def test_good_features(uid: int, gid: int, perm: int, order: list[str], prefix: str) -> None:
    texts = {"uid": f"uid={prefix}{uid}", "gid": f"gid={prefix}{gid}", "perm": f"perm={prefix}{perm:o}"}
    words = [texts.get(name, name) for name in order]
    expected = FeatureSet(15, uid, gid, perm)
    assert parse_features(",".join(words)) == expected
    separate = None
    for word in words:
        separate = parse_features("," + word, separate)
    assert separate == expected


@given(st.text(alphabet="aggr_cnvuidperm=,0189 +-x", max_size=24))
def test_any_feature_text(text: str) -> None:
    """Any list is either taken whole or refused with one of the four messages."""
    try:
        chosen = parse_features(text)
    except UsageError:
        return
    assert chosen.uid < 2**32 - 1
    assert chosen.gid < 2**32 - 1
    assert chosen.perm <= 0o7777


def test_same_parameters_same_bytes(tmp_path: Path, program: Callable[..., Result]) -> None:
    """The worked example of the format, byte for byte."""
    identifier = "2e5c9ba2-3b2e-4a07-a391-a24e7a5401ac"
    blocks = []
    for name in ("a.img", "b.img"):
        image = make_image(tmp_path / name, conventional=5)
        options = ("-L", "zonefs-test", "-o", "aggr_cnv,uid=1000,gid=100,perm=600", "--uuid", identifier)
        assert program("mkzonefs", *options, image).status == 0
        blocks.append(image.read_bytes()[:4096])
    assert blocks[0] == blocks[1]
    assert blocks[0][:19].hex() == "53464f5aca4badda" + b"zonefs-test".hex()
    assert blocks[0][0x40:0x6C].hex() == (
        "0000000000000000" + identifier.replace("-", "") + "0f00000000000000" + "e8030000" + "64000000" + "80010000"
    )
    assert not any(blocks[0][0x6C:])


def test_reset_is_complete(tmp_path: Path, program: Callable[..., Result]) -> None:
    """Written zones lose their content; old signatures in zone 0 are gone, other conventional zones are kept."""

    image = make_image(tmp_path / "disk.img")
    with open_image(str(image), writable=True) as device:
        device.write(65536, (bytes(64) + b"_BHRfS_M").ljust(4096, b"\0"))
        device.write(8 * MIB, b"c" * 4096)
        device.write(16 * MIB, b"x" * 8192)
    assert program("mkzonefs", "-f", image).status == 0
    with open_image(str(image)) as device:
        assert not any(device.read(4096, MIB - 4096))
        assert device.read(8 * MIB, 4096) == b"c" * 4096
        assert not any(device.read(16 * MIB, 8192))
        assert (device.zones()["condition"][3:] == ZoneCondition.EMPTY).all()
    assert image.stat().st_blocks < 200


def test_dead_zones(tmp_path: Path, program: Callable[..., Result]) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][5] = ZoneCondition.READ_ONLY
        table["condition"][6] = ZoneCondition.OFFLINE
        table["wp_sector"][5:7] = 0xFFFFFFFFFFFFFFFF

    image = make_image(tmp_path / "disk.img", edit=kill)
    result = program("mkzonefs", "-v", image)
    assert result.status == 0
    assert "Zone 00005: readonly Sequential-write-required zone\n" in result.out
    assert "Zone 00006: offline Sequential-write-required zone\n" in result.out
    assert "  1 read-only zones, 1 offline zones\n" in result.out
    assert "  14 usable zones\n" in result.out


@pytest.mark.parametrize("condition", [ZoneCondition.READ_ONLY, ZoneCondition.OFFLINE])
@pytest.mark.parametrize("conventional", [0, 3])
def test_unwritable_zone_0(
    condition: ZoneCondition, conventional: int, tmp_path: Path, program: Callable[..., Result]
) -> None:
    """Refused before the other zones lose their data."""

    def kill(table: ZoneTable) -> None:
        table["condition"][0] = condition
        table["condition"][8] = ZoneCondition.FULL

    image = make_image(tmp_path / "disk.img", conventional=conventional, edit=kill)
    result = program("mkzonefs", "-f", image)
    assert result.status == 1
    assert len(result.err.splitlines()) == 1
    with open_image(str(image)) as device:
        assert device.zones()["condition"][8] == ZoneCondition.FULL


def test_no_usable_zone(tmp_path: Path, program: Callable[..., Result]) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][1:] = ZoneCondition.OFFLINE

    assert program("mkzonefs", make_image(tmp_path / "one.img", size_bytes=4 * MIB)).err == "No useable zones\n"
    image = make_image(tmp_path / "dead.img", conventional=1, edit=kill)
    result = program("mkzonefs", image)
    assert (result.status, result.err) == (1, "No useable zones\n")
    two = make_image(tmp_path / "two.img", size_bytes=8 * MIB, conventional=1)
    assert program("mkzonefs", two).status == 0


def test_refusals(tmp_path: Path, program: Callable[..., Result]) -> None:
    """What is no zoned device, is missing, is in use, or holds something."""
    plain = tmp_path / "plain.img"
    plain.write_bytes(bytes(MIB))
    cases: list[tuple[tuple[object, ...], str]] = [
        ((plain,), f"{plain.name}: Not a zoned block device"),
        ((tmp_path,), f"{tmp_path} is not a block device"),
        (("/dev/null",), "/dev/null is not a block device"),
        ((tmp_path / "none",), "Failed to get device real path"),
        (("-x\n", plain), "Invalid option '-x\\n'"),
        (("--uuid", "x", plain), "Invalid UUID 'x'"),
    ]
    for words, message in cases:
        result = program("mkzonefs", *words)
        assert result.status == 1
        assert result.err.startswith(message)
        assert len(result.err.splitlines()) == 1
    image = make_image(tmp_path / "disk.img")
    with open_image(str(image)):
        assert "Open" in program("mkzonefs", image).err
    with open_image(str(image), writable=True) as device:
        device.write(
            0,
            bytes(446)
            + bytes([0, 0, 0, 0, 0x83, 0, 0, 0])
            + b"\0\x08\0\0\0\0\x01\0"
            + bytes(48)
            + b"\x55\xaa"
            + bytes(3584),
        )
    result = program("mkzonefs", image)
    assert result.err == f"{image} appears to contain a partition table (dos)\nUse the option '-f' to overwrite\n"
    assert program("mkzonefs", "-f", image).status == 0


@pytest.mark.parametrize("conventional", [0, 3])
@pytest.mark.parametrize("block_bytes", [512, 4096, 16384])
def test_block_sizes(conventional: int, block_bytes: int, tmp_path: Path, program: Callable[..., Result]) -> None:
    """The super block is written in whole blocks of the drive, and repaired so."""
    image = make_image(tmp_path / "disk.img", conventional=conventional, block_bytes=block_bytes)
    assert program("mkzonefs", "-L", "x", image).status == 0
    data = tmp_path / "data"
    data.write_bytes(b"d" * 3 * block_bytes)
    assert program("zoned", "zonefs", "put", image, "/seq/0", data).status == 0
    with open(image, "r+b") as file:
        file.seek(0x80)
        file.write(b"damage")
    assert program("zoned", "check", "--repair", image).status == 1
    assert program("zoned", "zonefs", "cat", image, "/seq/0").out == "d" * 3 * block_bytes


def test_labels(tmp_path: Path, program: Callable[..., Result]) -> None:
    """Bytes are stored as they are; output is always text."""
    image = make_image(tmp_path / "disk.img")
    for label, shown in ((b"caf\xc3\xa9", "café"), (b"a\xff", "a\\xff")):
        result = program("mkzonefs", "-f", "-L", os.fsdecode(label), image)
        assert (result.status, f"  FS label: {shown}\n" in result.out) == (0, True)
        assert image.read_bytes()[8:72] == label.ljust(64, b"\0")
        assert program("zoned", "probe", image).status == 0


def test_usage_errors_load_nothing_heavy() -> None:
    code = (
        "import sys; from zoned_tools.cli.run import run\n"
        "assert run('mkzonefs', ['-L', 'x', '-o', 'foo', 'dev']) == 1\n"
        "assert run('mkzonefs', ['-x']) == 1 and run('mkzonefs', ['--help']) == 0\n"
        "assert not {'numpy', 'construct'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_dry_run_and_json(tmp_path: Path, program: Callable[..., Result]) -> None:
    image = make_image(tmp_path / "disk.img", conventional=0)
    before = image.read_bytes()[:MIB], (tmp_path / "disk.img.zones").read_bytes()
    result = program("mkzonefs", "--dry-run", "-L", "x", image)
    assert result.status == 0
    assert "finish zone 0" in result.out
    assert before == (image.read_bytes()[:MIB], (tmp_path / "disk.img.zones").read_bytes())
    identifier = str(uuid.uuid4())
    document = program("mkzonefs", "--json", "--uuid", identifier, "-o", "perm=600", image).json
    assert document["schema"] == "zoned.mkzonefs/1"
    assert (document["uuid"], document["perm"], document["features"]) == (identifier, "600", ["perm"])
    assert document["files"] == {"seq": 15}


def test_help_lists_everything(program: Callable[..., Result]) -> None:
    text = program("mkzonefs", "--help").out
    assert text.startswith(program("mkzonefs", "-h").out.split("See")[0])
    for option in ("-L", "-o", "-f", "-v", "--version", "--uuid", "--json", "--dry-run"):
        assert f"  {option}" in text


def _all(_index: int) -> bool:
    return True


def _none(_index: int) -> bool:
    return False


@pytest.mark.parametrize("conventional", [0, 2])
def test_power_cuts(conventional: int, tmp_path: Path) -> None:
    """After a cut at any write there is the old volume, none, or the new one; never a wrong one."""
    image = make_image(tmp_path / "disk.img", size_bytes=32 * MIB, conventional=conventional)
    old, new = (Parameters(label, uuid=uuid.uuid4()).super_block() for label in (b"old", b"new"))
    with open_image(str(image), writable=True) as device:
        table = device.zones()
        apply_plan([device], plan_volume(device, table, old).steps)
        device.write(4 * MIB * 5, b"d" * 4096)
    with open_image(str(image)) as base:
        recorder = Recorder(Overlay(base))
        apply_plan([recorder], plan_volume(recorder, base.zones(), new).steps)
        seen = set()
        for cut in range(len(recorder.log) + 1):
            for keep in (_all, _none):
                overlay = Overlay(base)
                replay_cut([overlay], recorder.log, cut, keep=keep)
                block = recognise(overlay.read(0, 4096))
                seen.add(block and block.label)
                written = overlay.read(4 * MIB * 5, 4096) == b"d" * 4096
                reset = (
                    overlay.zones()["condition"][1:][~is_conventional(base.zones())[1:]] == ZoneCondition.EMPTY
                ).all()
                if block is not None and block.label == "new":
                    assert reset
                    assert not check(Target("zonefs", (overlay,)), CheckOptions()).has_errors
                elif block is not None:
                    assert written or np.count_nonzero(overlay.zones()["condition"] == ZoneCondition.EMPTY) > 0
        assert seen == {"old", None, "new"}
