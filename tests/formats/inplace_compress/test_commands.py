"""``zoned inplace-compress`` and the umbrella's commands on these volumes, as users call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.inplace_compress.images import content, corrupt_bytes, image_bytes, mapper_of, target_of
from tests.programs import Program
from zoned_tools.cli.commands import inplace_compress
from zoned_tools.device.opening import open_device
from zoned_tools.engine.logical import open_logical
from zoned_tools.formats.inplace_compress import encoding, lzo
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.table import ACTIVATION_WARNING


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(4 << 20)
    return path


@pytest.mark.parametrize("compressor", ["lzo", "842"])
def test_from_format_to_export(zoned: Program, image: Path, tmp_path: Path, compressor: str) -> None:
    made = zoned("inplace-compress", "format", image, "--compressor", compressor, "--json")
    line = f"0 8176 inplacecompress device={image},writethrough,compressor={compressor}"
    assert made.json == {
        "exit_status": 0, "errors": [],
        "schema": "zoned.inplace-compress.format/1", "dry_run": False, "device": str(image), "compressor": compressor,
        "meta_blocks": 1, "data_blocks": 1022, "table": line, "warning": ACTIVATION_WARNING,
    }  # fmt: skip
    assert zoned("table", image).out.strip() == line
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.write_bytes(content("text:1", 1 << 20))
    refused = zoned("inplace-compress", "import", raw, image)
    assert refused.status == 8
    assert "inplace-compress" in refused.err
    filled = zoned("inplace-compress", "import", raw, image, "--force", "--compressor", compressor, "--json").json
    assert (filled["content_bytes"], filled["extents"], filled["data_blocks"]) == (1 << 20, 8, 1022)
    assert zoned("inplace-compress", "check", image, "--deep").status == 0
    facts = zoned("inplace-compress", "stat", image, "--window", 2, "--json").json
    assert (facts["written_blocks"], facts["hole_blocks"], facts["foreign_extents"]) == (256, 766, 8)
    assert facts["ratio"] < 0.5
    assert zoned("export", image, "-o", out).status == 0
    assert out.read_bytes() == raw.read_bytes() + bytes(4096 * 766)
    (extent,) = zoned("map", image, "--at", "5+1", "--json").json["extents"]
    assert extent["logical_block"] == 5
    assert extent["physical_block"] == 2
    assert "32 blocks" in extent["why"]


def test_table_in_every_spelling(zoned: Program, image: Path) -> None:
    for spelling in (
        "device={},writeback=7,compressor=842",
        "device:{},writeback:0x7,compressor:842",
        "{} writeback:7 compressor:842",
    ):
        given = f"0 4096 inplacecompress {spelling.format(image)}"
        made = zoned("inplace-compress", "format", image, "--force", "--table", given, "--json")
        assert made.json["data_blocks"] == 512
        assert made.json["table"] == f"0 4096 inplacecompress device={image},writeback=7,compressor=842"
    assert "writeback=9,compressor=842,critical" in zoned("table", image, "-o", "writeback:9", "-o", "critical").out
    misspelt = zoned("inplace-compress", "format", image, "--force", "--table", f"device={image},writethough")
    assert misspelt.status == 0
    assert "writethough" in misspelt.err
    assert "formats the device" in misspelt.err
    assert zoned("inplace-compress", "format", image, "-f", "--table", "device=x writethrough").status == 16
    assert (
        zoned(
            "inplace-compress", "format", image, "-f", "--table", "0 4096 inplacecompress device=x", "--data-blocks", 9
        ).status
        == 16
    )
    assert (
        zoned(
            "inplace-compress", "format", image, "-f", "--table", "device=x,compressor=lzo", "--compressor", "842"
        ).status
        == 16
    )


def test_dry_run_and_undo_of_format(zoned: Program, image: Path, tmp_path: Path) -> None:
    image.write_bytes(image_bytes("p1-lzo"))
    before = image.read_bytes()
    shown = zoned("inplace-compress", "format", image, "--force", "--dry-run")
    assert "super block" in shown.out
    assert image.read_bytes() == before
    assert zoned("inplace-compress", "format", image, "--force", "--undo", tmp_path / "undo").status == 0
    assert image.read_bytes() != before
    assert zoned("undo", tmp_path / "undo", image).status == 0
    assert image.read_bytes() == before


@pytest.mark.parametrize("command", [["check"], ["inplace-compress", "check"]])
def test_check_by_either_command(zoned: Program, image: Path, command: list[str]) -> None:
    image.write_bytes(corrupt_bytes("842-payload-flip"))
    ran = zoned(*command, image, "--json")
    assert ran.status == 4
    (device,) = ran.json["devices"]
    assert (ran.json["schema"], device["layout"], device["verdict"]) == ("zoned.check/1", "inplace-compress", "errors")
    (found,) = device["findings"]
    assert (found["id"], found["severity"]) == ("inplace-compress.EXT_DECOMP", "error")
    assert found["where"] == {"block": 1, "blocks": 1}
    assert device["facts"]["unreadable_blocks"] == 1


def test_check_of_metadata_only(zoned: Program, image: Path) -> None:
    image.write_bytes(corrupt_bytes("842-payload-flip"))
    assert zoned("inplace-compress", "check", image, "--metadata-only").status == 0
    assert zoned("inplace-compress", "check", image, "--metadata-only", "--deep").status == 16
    assert zoned("inplace-compress", "check", image, "--processes", 999).status == 16


def test_shadows_are_warnings_until_relinked(zoned: Program, image: Path) -> None:
    image.write_bytes(corrupt_bytes("lzo-map-stale-raw"))
    assert zoned("inplace-compress", "check", image).out.count("RAW_SHADOW") == 0
    deep = zoned("inplace-compress", "check", image, "--deep", "--json")
    assert deep.status == 0
    assert [f["severity"] for f in deep.json["devices"][0]["findings"]] == ["warning"]
    before = image.read_bytes()
    assert zoned("inplace-compress", "repair", image).status == 0
    assert image.read_bytes() == before
    assert zoned("inplace-compress", "repair", image, "--relink", "--json").json["changed"] is True
    assert image.read_bytes()[8192:] == image_bytes("p1-lzo")[8192:]
    assert image.read_bytes()[:8192] == image_bytes("p1-lzo")[:8192]


def test_repair(zoned: Program, image: Path, tmp_path: Path) -> None:
    image.write_bytes(corrupt_bytes("lzo-sb-zeroed"))
    shown = zoned("inplace-compress", "repair", image, "--dry-run")
    assert shown.status == 4
    assert "super block of 1022 data blocks" in shown.out
    assert image.read_bytes() == corrupt_bytes("lzo-sb-zeroed")
    done = zoned("inplace-compress", "repair", image, "--undo", tmp_path / "undo", "--json")
    assert (done.status, done.json["devices"][0]["verdict"]) == (1, "corrected")
    assert image.read_bytes() == image_bytes("p1-lzo")
    image.write_bytes(corrupt_bytes("lzo-tag-magic"))
    left = zoned("inplace-compress", "repair", image)
    assert left.status == 4
    assert "it waits for --allow inplace-compress.EXT_TAG" in left.err
    assert image.read_bytes() == corrupt_bytes("lzo-tag-magic")
    assert zoned("inplace-compress", "repair", image, "--zero-unreadable", "--salvage-raw").status == 16
    assert zoned("inplace-compress", "repair", image, "--zero-unreadable").status == 1
    assert zoned("inplace-compress", "check", image).status == 0


def test_unreadable_ranges_are_listed_never_silently_zeroed(zoned: Program, image: Path, tmp_path: Path) -> None:
    image.write_bytes(corrupt_bytes("lzo-payload-ext-torn"))
    failed = zoned("export", image, "-o", tmp_path / "out")
    assert failed.status == 8
    assert "blocks 16 to 17" in failed.err
    assert not (tmp_path / "out").exists()
    skipped = zoned("export", image, "-o", tmp_path / "out", "--skip-errors", "--json")
    assert skipped.status == 4
    (lost,) = skipped.json["lost"]
    assert (lost["offset_bytes"], lost["length_bytes"]) == (16 * 4096, 8192)


def test_replaying_a_trace(zoned: Program, image: Path, tmp_path: Path) -> None:
    zoned("inplace-compress", "format", image)
    trace = tmp_path / "trace"
    lines = [
        "d add",
        "d open",
        "d write 0 65536",
        "d write 4096 4096",
        "d trim 8192 16384",
        "d sync 0 0",
        "d write 40960 512",
        "d close",
    ]
    trace.write_text("\n".join(["fio version 2 iolog", *lines, ""]))
    for settings in ([], ["--set", "writeback=5"], ["--set", "window=32"]):
        ran = zoned("replay", image, "--trace", trace, "--check-each", "--json", *settings)
        assert ran.status == 0, ran.err
        assert ran.json["verdict"] in ("clean", None)
    assert zoned("check", image).status == 0


def test_a_volume_in_a_partition(zoned: Program, tmp_path: Path) -> None:
    path, raw = tmp_path / "disk", tmp_path / "raw"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    raw.write_bytes(content("text:1", 100_000))
    assert zoned("inplace-compress", "import", raw, path, "--start", 2048, "--json").json["table"] is None
    assert path.read_bytes()[: 1 << 20] == bytes(1 << 20)
    assert zoned("check", path, "--start", 2048).status == 0
    assert zoned("export", path, "--start", 2048, "-o", tmp_path / "out").status == 0
    assert (tmp_path / "out").read_bytes()[:100_000] == raw.read_bytes()
    entry = bytes(4) + b"\x83" + bytes(3) + (2048).to_bytes(4, "little") + (14336).to_bytes(4, "little")
    with path.open("r+b") as file:
        file.write((bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa")
    assert zoned("check", path).status == 0
    assert zoned("table", path).status == 16
    assert zoned("table", path, "device=/dev/sdc1").out.endswith(" device=/dev/sdc1,writethrough,compressor=lzo\n")
    assert "device=/dev" not in zoned("inplace-compress", "stat", path).out


@pytest.mark.parametrize("size", [512, 4096, 8192, 12288])
def test_tiny_devices(zoned: Program, tmp_path: Path, size: int) -> None:
    path = tmp_path / "tiny"
    path.write_bytes(bytes(size))
    assert zoned("inplace-compress", "check", path).status in (4, 8)
    made = zoned("inplace-compress", "format", path, "--no-undo")
    assert made.status == (0 if size == 12288 else 8)
    assert made.err.count("\n") == 1


def test_old_series_is_named(zoned: Program, image: Path) -> None:
    words = (0x106526C206506C09, 1, 1, 1022)
    image.write_bytes(b"".join(w.to_bytes(8, "little") for w in words).ljust(4 << 20, b"\0"))
    assert zoned("check", image, "--json").json["devices"][0]["findings"][0]["id"] == "inplace-compress.OLD_SERIES"
    exported = zoned("export", image, "-o", "-")
    assert exported.status == 8
    assert "2013" in exported.err
    assert zoned("inspect", image).status == 0
    assert zoned("probe", image, "--json").json["devices"][0]["version"] == "2013"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["device=/dev/sdc"], "device=/dev/sdc,writethrough,compressor=lzo"),
        (["device:8:16", "writethough"], "device=8:16,writethrough,compressor=lzo"),
        (["device=8:16,writeback=0x10,critical"], "device=8:16,writeback=16,compressor=lzo,critical"),
        (["writeback:5", "compressor:842"], "device={},writeback=5,compressor=lzo"),
        (["writeback=5", "writethrough"], "device={},writethrough,compressor=lzo"),
        (["writethrough,critical", "writeback=7"], "device={},writeback=7,compressor=lzo,critical"),
        (["critical"], "device={},writethrough,compressor=lzo,critical"),
        (["--set", "table=device=/dev/sdd,writeback=9"], "device=/dev/sdd,writeback=9,compressor=lzo"),
        (["--set", "writeback=5,writethrough", "--set", "writeback=6"], "device={},writeback=6,compressor=lzo"),
    ],
)
def test_table_in_every_spelling_with_its_warning(zoned: Program, image: Path, words: list[str], wanted: str) -> None:
    image.write_bytes(image_bytes("p1-lzo"))
    ran = zoned("table", image, *words)
    assert (ran.status, ran.out) == (0, f"0 8176 inplacecompress {wanted.format(image)}\n")
    assert ran.err == f"warning: {ACTIVATION_WARNING}\n"
    assert zoned("table", image, *words, "--json").json["warning"] == ACTIVATION_WARNING


@pytest.mark.parametrize("word", ["bogus=1", "writeback=5x", "writeback=", "compressor=zstd", "critical=2"])
def test_settings_that_cannot_be_meant(zoned: Program, image: Path, tmp_path: Path, word: str) -> None:
    image.write_bytes(image_bytes("p1-lzo"))
    for command in (["table"], ["map", "--at", "0"], ["check"], ["export", "-o", tmp_path / "out"]):
        ran = zoned(*command, image, "--set", word)
        assert (ran.status, ran.out, ran.err.count("\n")) == (16, "", 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prefix", ["", "inplace-compress."])
def test_the_umbrella_takes_codes_and_finding_ids_as_consent(zoned: Program, image: Path, prefix: str) -> None:
    image.write_bytes(corrupt_bytes("lzo-map-stale-raw"))
    assert zoned("check", image, "--repair", "--allow", "NOT_A_CODE").status == 16
    assert zoned("check", image, "--repair", "--deep", "--allow", f"{prefix}RAW_SHADOW").status == 1
    assert image.read_bytes() == image_bytes("p1-lzo")


@pytest.mark.parametrize(("name", "base"), [("lzo-sb-data-blocks", "p1-lzo"), ("842-sb-data-blocks", "p2-842")])
def test_a_last_block_that_the_super_block_left_out_is_kept(zoned: Program, image: Path, name: str, base: str) -> None:
    image.write_bytes(corrupt_bytes(name))
    assert zoned("check", image, "--repair").status == 1
    assert image.read_bytes() == image_bytes(base)


def test_raw_data_behind_the_last_entry_is_only_dropped_with_consent(
    zoned: Program, image: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(content("rand:1", 502 * 4096))
    zoned("inplace-compress", "import", raw, image, "--data-blocks", 502, "--window", 2)
    content_before = image.read_bytes()
    damaged = bytearray(content_before)
    damaged[16:18] = (501).to_bytes(2, "little")
    image.write_bytes(damaged)
    left = zoned("check", image, "--repair")
    assert left.status == 4
    assert "block 501 may hold raw data" in left.err
    assert "it waits for --allow inplace-compress.MAP_SLACK" in left.err
    assert image.read_bytes() == damaged
    assert zoned("inplace-compress", "repair", image, "--data-blocks", 502).status == 1
    assert image.read_bytes() == content_before
    image.write_bytes(damaged)
    assert zoned("inplace-compress", "repair", image, "--clear-slack").status == 1
    image.write_bytes(damaged)
    assert zoned("check", image, "--repair", "--allow", "MAP_SLACK").status == 1


def test_export_with_processes_gives_the_same(zoned: Program, tmp_path: Path) -> None:
    path, raw = tmp_path / "large.img", tmp_path / "raw"
    with path.open("wb") as file:
        file.truncate(40 << 20)
    raw.write_bytes(content("text:7", 2 << 20))
    assert zoned("inplace-compress", "import", raw, path, "--compressor", "842", "--force").status == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert zoned("export", path, "-o", one, "-j", 1).status == 0
    result = zoned("export", path, "-o", two, "-j", 2, "--json").json
    assert result["data_bytes"] == 2 << 20
    assert result["size_bytes"] == two.stat().st_size == one.stat().st_size
    assert two.read_bytes() == one.read_bytes()
    assert two.stat().st_blocks * 512 < 4 << 20, "holes stay holes"


def test_a_name_that_no_table_line_can_carry(zoned: Program, tmp_path: Path) -> None:
    path = tmp_path / "sp ace,.img"
    path.write_bytes(bytes(1 << 20))
    made = zoned("inplace-compress", "format", path)
    assert (made.status, made.out.count("\n")) == (0, 1), made
    assert "table:" not in made.out
    assert zoned("probe", path, "--json").json["devices"][0]["layout"] == "inplace-compress"
    assert zoned("inplace-compress", "format", path, "--force", "--json").json["table"] is None
    assert zoned("table", path).status == 16
    refused = zoned("inplace-compress", "format", path, "--force", "--table", "")
    assert (refused.status, "has no arguments" in refused.err) == (16, True)


def test_dry_run_of_import(zoned: Program, image: Path, tmp_path: Path) -> None:
    """It tells the very figures, and writes nothing."""
    raw = tmp_path / "raw"
    raw.write_bytes(content("mix:3:900", 300_000) + bytes(70_000) + content("rand:2", 9000))
    before = image.read_bytes()
    line = ("inplace-compress", "import", raw, image)
    shown = zoned(*line, "--dry-run")
    assert (shown.status, shown.err) == (0, "")
    assert "would import into inplace-compress:" in shown.out
    assert "would be stored" in shown.out
    wanted = zoned(*line, "--dry-run", "--json").json
    assert image.read_bytes() == before
    assert not list(tmp_path.glob("undo*"))
    made = zoned(*line, "--json").json
    assert (wanted.pop("dry_run"), made.pop("dry_run")) == (True, False)
    assert (wanted.pop("table"), made.pop("table")[:2]) == (None, "0 ")
    assert wanted == made
    assert made["extents"] > 0
    assert zoned(*line, "--dry-run").status == 8  # it holds a volume now: what import says, too
    assert zoned(*line, "--force", "--dry-run", "--verify").status == 16


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("compressor", ["lzo", "842"])
def test_import_reads_back(
    zoned: Program,
    image: Path,
    tmp_path: Path,
    compressor: str,
    processes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(encoding.WORTHWHILE_BYTES, Compressor.LZO, 0)
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        file.write(content("text:1", 200_000))
        file.seek(2 << 20)
        file.write(content("rand:1", 5000))
    line = ("inplace-compress", "import", raw, image, "--compressor", compressor, "--verify", "-j", processes)
    made = zoned(*line, "--json")
    assert made.status == 0, made
    assert made.json["verified"] is True
    assert zoned(*line, "--force").out.splitlines()[0].endswith(", read back")


@pytest.mark.parametrize("where", ["payload", "hole", "behind"])
def test_import_that_does_not_read_back(
    zoned: Program, image: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies between and behind the data of the source has to be holes."""
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        file.seek(1 << 20)
        file.write(content("rand:1", 8192))
    monkeypatch.setattr("zoned_tools.formats.inplace_compress.source.PART_BLOCKS", 32)
    block = {"payload": 257, "hole": 40, "behind": 300}[where]

    def spoil(*_: object) -> None:
        with open_device(str(image), writable=True) as device:
            mapper = mapper_of(device, writable=True)
            mapper.write(block, b"x" * 4096)
            mapper.close()

    monkeypatch.setattr("zoned_tools.cli.commands.inplace_compress._line", lambda *_: None)
    read_back = inplace_compress._read_back

    def spoilt(*arguments: Any, **more: Any) -> None:
        spoil()
        read_back(*arguments, **more)

    monkeypatch.setattr(inplace_compress, "_read_back", spoilt)
    failed = zoned("inplace-compress", "import", raw, image, "--verify")
    assert failed.status == 8
    assert f"block {block} does not read back" in failed.err


def test_import_keeps_the_compressor_of_the_volume(zoned: Program, image: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(content("text:1", 100_000))
    line = ("inplace-compress", "import", raw, image, "--force", "--json")
    assert zoned(*line).json["compressor"] == "lzo"  # nothing there
    assert zoned("inplace-compress", "format", image, "--compressor", "842", "--force").status == 0
    for _ in range(2):
        assert zoned(*line).json["compressor"] == "842"
        assert zoned("inplace-compress", "stat", image, "--json").json["compressor"] == "842"
    assert zoned(*line, "--table", f"device={image},writethrough,compressor=lzo").json["compressor"] == "lzo"
    assert zoned(*line, "--compressor", "842").json["compressor"] == "842"
    damaged = bytearray(image.read_bytes())
    damaged[24] = 9
    image.write_bytes(damaged)
    assert zoned(*line).json["compressor"] == "lzo"


@pytest.mark.parametrize("command", ["format", "import"])
@pytest.mark.parametrize("name", ["{other}", "8:16", "/dev/sdx", "{image}.none"])
def test_a_table_line_of_another_device_changes_nothing(
    zoned: Program, image: Path, tmp_path: Path, command: str, name: str
) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(4 << 20))
    (tmp_path / "raw").write_bytes(b"content" * 1000)
    before = image.read_bytes()
    words = [tmp_path / "raw"] if command == "import" else []
    named = name.format(other=other, image=image)
    for line in (f"0 800 inplacecompress device={named},writethrough", f"device={named},writethrough"):
        refused = zoned("inplace-compress", command, *words, image, "--table", line)
        assert refused.status == 16
        assert f"for another device, {named}" in refused.err
    assert (image.read_bytes(), other.read_bytes()) == (before, bytes(4 << 20))
    (tmp_path / "link").symlink_to(image)
    assert zoned("inplace-compress", command, *words, image, "--table", f"device={tmp_path}/link").status == 0


def test_stat_and_inspect_agree(zoned: Program, image: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(content("text:1", 1 << 20))
    assert zoned("inplace-compress", "import", tmp_path / "raw", image).status == 0
    facts = zoned("inplace-compress", "stat", image, "--json").json
    seen = zoned("inspect", image, "--json").json
    (tree,) = [one["tree"] for one in seen["targets"]] if "targets" in seen else [seen]
    shown = tree["statistics"]
    assert facts["foreign_extents"] == 8
    assert shown == {key: facts[key] for key in shown}


def test_replay_makes_the_streams_of_the_kernel_and_serve_quick_ones(
    zoned: Program, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever encoder is installed: which one is asked for counts."""
    asked: list[bool] = []
    encode = lzo.encode_many

    def ask(inputs: Any, *, exact: bool) -> list[bytes]:
        asked.append(exact)
        return encode(inputs, exact=exact)

    monkeypatch.setattr(lzo, "encode_many", ask)
    assert zoned("inplace-compress", "format", image).status == 0
    trace = tmp_path / "trace"
    trace.write_text("fio version 2 iolog\n/d add\n/d open\n/d write 0 8192\n/d close\n")
    for words, exact in (((), True), (("--set", "encoder=fast"), False), (("--set", "encoder=kernel"), True)):
        assert zoned("replay", image, "--trace", trace, *words).status == 0
        assert set(asked) == {exact}
        asked.clear()
    with open_device(str(image), writable=True) as device:
        for words_of, exact in (({}, False), ({"encoder": "kernel"}, True)):
            mapper = open_logical(target_of(device), writable=True, settings=words_of)  # as serve does
            mapper.write(0, bytes(8192))
            mapper.close()
            assert set(asked) == {exact}
            asked.clear()
