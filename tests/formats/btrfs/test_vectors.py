"""The rings of the images that mkfs.btrfs and kernels made, and of their damaged siblings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formats.btrfs.images import EXPECTED, VECTORS, template
from tests.programs import Result
from zoned_tools.formats.btrfs.checksum import csum_matches, seal
from zoned_tools.formats.btrfs.layout import pack, parse

Program = Callable[..., Result]
Image = Callable[[str], Path]

RINGS = [name for name, entry in EXPECTED.items() if "mirrors" in entry]
DAMAGED = {
    # name: the codes of the errors, and how many steps the repair has
    "pv01-torn-last": {"head-torn"},
    "pv02-badcsum-last": {"head-torn"},
    "pv03-torn-last-and-uncovered-csum-byte": {"head-torn"},
    "pv04-zero-tail": {"head-none"},
    "pv06-both-inuse": {"ring-invalid"},
    "pv07-empty0-inuse1": {"ring-invalid"},
    "pv09-bothfull-newest-zeroed": {"choice-influenced", "roots-unreadable"},
    "pv10-bothfull-newest-badcsum": {"head-torn", "choice-influenced"},
    "pv11-bothfull-old-gen-huge": {"head-csum", "choice-influenced"},
    "pv14-badmagic-last": {"head-magic"},
    "pv15-wrong-bytenr": {"head-bytenr"},
    "pv16-foreign-fsid-last": {"head-fsid"},
    "pv19-unknown-csum-type": {"head-csum"},
    "pv20-wrapped-torn-first": {"head-torn"},
}
HARMLESS = {
    "pv05-wp-behind-content": {"wp-behind"},
    "pv13-rollback-appended": {"middle-bad"},
    "pv17-gen-regress-last": {"generation-decreases"},
    "pv18-middle-bad": {"middle-bad"},
}
CLEAN = [name for name in EXPECTED if name not in DAMAGED and name not in HARMLESS and name != "pv12-both-empty"]

# Undamaged vectors whose states can be derived from the content alone.
RAW_COPIES = [name for name in RINGS if name.startswith("p0") or name[:3] in ("p10", "p12", "pv8")]


def short(copy: dict[str, Any] | None) -> tuple[Any, ...]:
    return () if copy is None else (copy["offset_bytes"], copy["generation"], copy["log_root"])


def assert_kernel_choice(found: dict[str, Any] | None, wanted: dict[str, Any] | None) -> None:
    if wanted is None:
        assert found is None
        return
    assert found is not None
    assert found["offset_bytes"] == wanted["offset"]
    assert found["csum_ok"] == wanted["csum_ok"]
    assert found["valid"] == wanted.get("valid", True)
    assert (found["magic"] == "ok") == wanted.get("magic", True)
    if wanted["gen"] is not None:
        assert found["generation"] == wanted["gen"]


@pytest.mark.parametrize("name", RINGS)
def test_supers_lists_both_answers_and_every_copy(name: str, vector_image: Image, program: Program) -> None:
    document = program("zoned", "btrfs", "supers", "--json", vector_image(name)).json
    assert document["schema"] == "zoned.btrfs.supers/1"
    wanted_mirrors = EXPECTED[name]["mirrors"]
    assert [ring["mirror"] for ring in document["rings"]] == [m["mirror"] for m in wanted_mirrors]
    for ring, wanted in zip(document["rings"], wanted_mirrors, strict=True):
        assert ring["mode"] == {"ring": "ring", "conventional": "in-place"}[wanted["mode"]]
        assert ring["zones"] == [wanted["zone"], wanted["zone"] + 1]
        assert ring["state"] == {"empty": "absent"}.get(wanted.get("state", "ok"), wanted.get("state", "ok"))
        assert ring["next_write_bytes"] == wanted.get("next_write")
        assert_kernel_choice(ring["kernel_choice"], wanted["kernel"])
        newest = wanted["newest_valid"]
        assert short(ring["newest_valid"]) == (tuple(newest.values()) if newest else ())
        assert len(ring["copies"]) == sum(wanted["entries"])
        if wanted["mode"] == "ring":
            assert sum(copy["valid"] for copy in ring["copies"]) == wanted["valid_entries"]
            bad = [copy["offset_bytes"] for copy in ring["copies"] if not copy["valid"]]
            assert bad == [entry["offset"] for entry in wanted["bad_entries"]]
            temporary = {c["offset_bytes"] for c in ring["copies"] if c["magic"] == "temporary"}
            assert temporary == {e["offset"] for e in wanted["bad_entries"] if e["why"] == "temporary magic"}


@pytest.mark.parametrize("name", RINGS)
def test_readable_roots(name: str, vector_image: Image, program: Program) -> None:
    wanted = EXPECTED[name]["roots"]
    ring = program("zoned", "btrfs", "supers", "--json", "--roots", vector_image(name)).json["rings"][0]
    readable = [copy["generation"] for copy in ring["copies"] if copy["roots_readable"]]
    assert len(readable) == wanted["with_readable_roots"]
    assert sorted(set(readable)) == wanted["generations"]
    tested = [copy for copy in ring["copies"] if copy["roots_readable"] is not None]
    assert len(tested) == wanted["valid_superblocks"]


@pytest.mark.parametrize("name", RINGS)
def test_latest_alone_is_the_same(name: str, vector_image: Image, program: Program) -> None:
    image = vector_image(name)
    for ring in program("zoned", "btrfs", "supers", "--json", image).json["rings"]:
        alone = program("zoned", "btrfs", "supers", "--json", "--latest", "--mirror", ring["mirror"], image).json
        assert alone["kernel_choice"] == ring["kernel_choice"]


@pytest.mark.parametrize("name", RAW_COPIES)
def test_raw_copy_without_zone_table(name: str, vector_image: Image, tmp_path: Path, program: Program) -> None:
    plain = tmp_path / "plain.img"
    plain.hardlink_to(vector_image(name))
    document = program("zoned", "btrfs", "supers", "--json", plain).json
    assert document["derived"]
    assert document["zone_size_bytes"] == EXPECTED[name]["zone_size"]
    ring, wanted = document["rings"][0], EXPECTED[name]["mirrors"][0]
    assert_kernel_choice(ring["kernel_choice"], wanted["kernel"])
    assert ring["newest_valid"] == ring["kernel_choice"]
    assert len(ring["copies"]) == sum(wanted["entries"])
    both_written = min(wanted["entries"]) > 0 or wanted["entries"][0] == 0
    assert ring["next_write_bytes"] == (wanted["next_write"] if both_written else None)
    alone = program("zoned", "btrfs", "supers", "--json", "--latest", plain).json
    assert alone["kernel_choice"] == ring["kernel_choice"]
    identity = program("zoned", "probe", "--json", plain).json["devices"][0]
    assert identity["layout"] == "btrfs"


@pytest.mark.parametrize("name", CLEAN)
def test_undamaged_images_are_clean(name: str, vector_image: Image, program: Program) -> None:
    found = program("zoned", "check", "--json", "--deep", vector_image(name))
    assert found.status == 0
    assert found.json["devices"][0]["verdict"] == "clean"
    assert found.json["devices"][0]["findings"] == []


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_findings(name: str, vector_image: Image, program: Program) -> None:
    found = program("zoned", "check", "--json", vector_image(name))
    assert found.status == 0
    assert {f["id"] for f in found.json["devices"][0]["findings"]} == {f"btrfs.{code}" for code in HARMLESS[name]}


def errors_in(found: Result) -> set[str]:
    findings = found.json["devices"][0]["findings"]
    return {f["id"].removeprefix("btrfs.") for f in findings if f["severity"] == "error"}


@pytest.mark.parametrize("name", DAMAGED)
def test_repair_and_undo(name: str, own_image: Image, tmp_path: Path, program: Program) -> None:
    image = own_image(name)
    sidecar = Path(f"{image}.zones")
    before = (digest(image), sidecar.read_bytes())
    found = program("zoned", "check", "--json", image)
    assert found.status == 4
    assert errors_in(found) == DAMAGED[name]
    dry = program("zoned", "check", "--repair", "--dry-run", image)
    assert dry.status == 4
    assert (digest(image), sidecar.read_bytes()) == before

    undo = tmp_path / "undo"
    repaired = program("zoned", "check", "--json", "--repair", "--undo", undo, image)
    assert repaired.status == 1
    assert repaired.json["devices"][0]["verdict"] == "corrected"
    ring = program("zoned", "btrfs", "supers", "--json", image).json["rings"][0]
    wanted = EXPECTED[name]["mirrors"][0]["newest_valid"]
    assert ring["kernel_choice"] == ring["newest_valid"]
    assert (ring["kernel_choice"]["generation"], ring["kernel_choice"]["log_root"]) == (
        wanted["gen"],
        wanted["log_root"],
    )
    assert program("zoned", "check", image).status == 0

    assert program("zoned", "undo", undo, image).status == 0
    assert (digest(image), sidecar.read_bytes()) == before


def digest(image: Path) -> str:
    with open(image, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_nothing_left(own_image: Image, program: Program) -> None:
    """Both zones empty and no other mirror: the check says so and repair changes nothing."""
    image = own_image("pv12-both-empty")
    ring = program("zoned", "btrfs", "supers", "--json", image).json["rings"][0]
    assert (ring["state"], ring["next_write_bytes"], ring["copies"]) == ("absent", 0, [])
    found = program("zoned", "check", "--json", "--layout", "btrfs", "--repair", image)
    assert found.status == 4
    assert errors_in(found) == {"head-none", "nothing-valid"}
    assert not found.json["changed"]


def test_emulated_zones_on_a_regular_image(vector_image: Image, program: Program) -> None:
    document = program("zoned", "btrfs", "supers", "--json", "--roots", vector_image("p21-emulated-regular")).json
    assert document["model"] == "regular"
    assert not document["derived"]
    for ring, wanted in zip(document["rings"], EXPECTED["p21-emulated-regular"]["superblocks"], strict=True):
        assert ring["mode"] == "regular"
        assert ring["kernel_choice"] == ring["newest_valid"] == ring["copies"][0]
        assert ring["kernel_choice"]["offset_bytes"] == wanted["offset"]
        assert ring["kernel_choice"]["generation"] == wanted["gen"]
        assert ring["kernel_choice"]["roots_readable"]


# -- one super block in full


@pytest.mark.parametrize("name", ["p01-fresh", "p02-inuse0", "p04-full0-inuse1", "p11-conv-sb"])
def test_full_dump_has_the_text_of_dump_super(name: str, vector_image: Image, program: Program) -> None:
    wanted = (VECTORS / "dump-super" / f"{name}.txt").read_text().rstrip().splitlines()
    image = vector_image(name)
    found = program("zoned", "btrfs", "supers", "--full", image).out.rstrip().splitlines()
    assert found[0] == wanted[0].replace("/dev/nullb0", str(image))
    assert found[1:] == wanted[1:]


def test_full_dump_of_every_mirror(vector_image: Image, program: Program) -> None:
    name = "p13-mirrors-8GiB-zones"
    image = vector_image(name)
    texts = (VECTORS / "dump-super" / f"{name}.txt").read_text().split("superblock: ")[1:]
    for mirror, text in enumerate(texts):
        found = program("zoned", "btrfs", "supers", "--full", "--mirror", mirror, image).out.rstrip().splitlines()
        assert found[1:] == text.rstrip().splitlines()[1:]


@pytest.mark.parametrize("csum", ["crc32c", "xxhash", "sha256", "blake2"])
def test_every_checksum_type(csum: str, tmp_path: Path, program: Program) -> None:
    block = template(csum)
    csum_type = parse(block).csum_type
    assert pack(parse(block)) == block
    assert csum_matches(block, csum_type)
    assert seal(block, csum_type) == block
    for at in (32, 2048, 4095):
        assert not csum_matches(block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :], csum_type)
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(65536) + block + bytes(65536))
    found = program("zoned", "btrfs", "supers", "--full", image).out.rstrip().splitlines()
    wanted = (VECTORS / "superblocks" / f"{csum}.txt").read_text().rstrip().splitlines()
    assert found[1:] == wanted[1:]


def test_inspect_and_export(vector_image: Image, tmp_path: Path, program: Program) -> None:
    image = vector_image("pv01-torn-last")
    tree = program("zoned", "inspect", "--json", image).json
    device = tree["members"][0]
    assert device["super_block"]["generation"] == 8
    assert device["super_block"]["sys_chunk_array"][0]["length"] == 4 << 20
    out = tmp_path / "super.bin"
    assert program("zoned", "export", image, "-o", out).status == 0
    block = parse(out.read_bytes()[65536 : 65536 + 4096])
    assert (block.generation, block.bytenr) == (8, 65536)


def test_probe_tells_uuid_and_label(vector_image: Image, program: Program) -> None:
    for name in ("p01-fresh", "pv01-torn-last", "pv06-both-inuse", "pv14-badmagic-last", "pv20-wrapped-torn-first"):
        row = program("zoned", "probe", "--json", vector_image(name)).json["devices"][0]
        assert (row["layout"], row["version"], row["label"]) == ("btrfs", "zoned", "ringA")
        assert row["uuid"] == "aaaaaaaa-0001-4000-8000-000000000001"
