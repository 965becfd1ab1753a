"""Domain files: what of a dying drive is worth reading, so that a copy of that alone gives everything."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.archives import set_zone, unpack
from zoned_tools.device.image import open_image
from zoned_tools.device.mapfile import read_mapfile
from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition, written_sectors

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program

LAYOUTS = {
    "dm-zoned": ("dm-zoned/hm64x1", ["disk.img"]),
    "dm-zoned of three": ("dm-zoned/triple", ["disk0.img", "disk1.img", "disk2.img"]),
    "zonefs": ("zonefs/p1-default", ["disk.img"]),
    "btrfs": ("btrfs-zoned/p02-inuse0", ["disk.img"]),
}


def _rescue(image: Path, domain: Path, copy: Path) -> None:
    """Copy what a domain file says, and nothing else, as ddrescue does."""
    size = image.stat().st_size
    bad = read_mapfile(str(domain), size)
    with open(image, "rb") as source, open(copy, "wb") as target:
        target.truncate(size)
        for start, end, letter in bad.over(size):
            if letter == "+":
                source.seek(start)
                target.seek(start)
                target.write(source.read(end - start))
    shutil.copy(f"{domain}", f"{copy}.map")
    if image.with_name(f"{image.name}.zones").exists():
        shutil.copy(f"{image}.zones", f"{copy}.zones")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_copy_of_the_domain_alone_gives_everything(name: str, vectors: Path, tmp_path: Path, zoned: Program) -> None:
    archive, files = LAYOUTS[name]
    unpack(vectors / f"{archive}.tar.xz", tmp_path)
    images = [tmp_path / file for file in files]
    domains = [tmp_path / f"{file}.domain" for file in files]
    words = [word for domain in domains for word in ("--domain-out", domain)]
    assert zoned("map", *images, *words).status == 0
    copies = [tmp_path / f"copy-{file}" for file in files]
    for image, domain, copy in zip(images, domains, copies, strict=True):
        _rescue(image, domain, copy)
        _assert_below_wp(image, domain)
    before, after = tmp_path / "before", tmp_path / "after"
    if name != "zonefs":
        assert zoned("export", *images, "-q", "-o", before).status == 0
        assert zoned("export", *copies, "-q", "-o", after).status == 0
        assert before.read_bytes() == after.read_bytes()
    assert zoned("check", *copies).status == zoned("check", *images).status


def _assert_below_wp(image: Path, domain: Path) -> None:
    with open_image(str(image)) as drive:
        table = drive.zones()
        ends = (table["start_sector"].astype("i8") + written_sectors(table)) * SECTOR_BYTES
        for start, end, letter in read_mapfile(str(domain), drive.geometry.size_bytes).over(drive.geometry.size_bytes):
            if letter != "+" or not drive.geometry.is_zoned:
                continue
            for zone in range(drive.geometry.zone_of(start), drive.geometry.zone_of(end - 1) + 1):
                if table["type"][zone] != 1:
                    assert min(end, (zone + 1) * drive.geometry.zone_bytes) <= ends[zone]


def test_metadata_come_first(vectors: Path, tmp_path: Path, zoned: Program) -> None:
    """The domain of the payload can be made from a copy of the metadata alone."""
    image = unpack(vectors / "dm-zoned/hm64x1.tar.xz", tmp_path) / "disk.img"
    first, copy = tmp_path / "first", tmp_path / "copy.img"
    assert zoned("map", image, "--domain-out", first, "--metadata-only").status == 0
    _rescue(image, first, copy)
    assert zoned("map", copy, "--domain-out", tmp_path / "from-copy").status == 0
    assert zoned("map", image, "--domain-out", tmp_path / "from-drive").status == 0
    texts = [(tmp_path / name).read_text("ascii").splitlines()[2:] for name in ("from-copy", "from-drive")]
    assert texts[0] == texts[1]
    assert first.read_text("ascii").count("+") == 3


@pytest.mark.skipif(shutil.which("ddrescue") is None, reason="needs GNU ddrescue")
def test_ddrescue_takes_a_domain(vectors: Path, tmp_path: Path, zoned: Program) -> None:
    image = unpack(vectors / "dm-zoned/hm64x1.tar.xz", tmp_path) / "disk.img"
    domain, copy = tmp_path / "domain", tmp_path / "copy.img"
    assert zoned("map", image, "--domain-out", domain).status == 0
    subprocess.run(["ddrescuelog", "-t", domain], check=True, capture_output=True)
    subprocess.run(["ddrescue", "-q", "-m", domain, image, copy, f"{copy}.map"], check=True)
    shutil.copy(f"{image}.zones", f"{copy}.zones")
    assert zoned("export", copy, "-q", "-o", tmp_path / "after").status == 0
    assert zoned("export", image, "-q", "-o", tmp_path / "before").status == 0
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()


def test_impossible_wishes(vectors: Path, tmp_path: Path, zoned: Program) -> None:
    image = unpack(vectors / "dm-zoned/hm64x1.tar.xz", tmp_path) / "disk.img"
    assert zoned("map", image, "--metadata-only").status == 16
    assert zoned("map", image, "--domain-out", tmp_path / "a", "--json").status == 16
    assert zoned("map", image, "--domain-out", tmp_path / "a", "--domain-out", tmp_path / "b").status == 16
    assert zoned("map", image, "--domain-out", image).status == 8


def test_a_read_only_zone_matters_up_to_its_capacity(vectors: Path, tmp_path: Path, zoned: Program) -> None:
    """Its write pointer is undefined: what is valid in it is read like the rest."""
    image = unpack(vectors / "dm-zoned/hm64x1.tar.xz", tmp_path) / "disk.img"
    assert zoned("map", image, "--domain-out", tmp_path / "before").status == 0
    set_zone(image, 15, condition=ZoneCondition.READ_ONLY)
    assert zoned("map", image, "--domain-out", tmp_path / "after").status == 0
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_every_device_of_a_file_system_has_its_metadata_in_the_domain(
    vectors: Path, tmp_path: Path, zoned: Program
) -> None:
    """RAID1 of two devices: the nodes of each device are in its own domain, in whatever order they are named."""
    unpack(vectors / "btrfs-zoned/g18-raid1-two-healthy.tar.xz", tmp_path)
    images = [tmp_path / "disk.img", tmp_path / "disk2.img"]
    domains = [tmp_path / "first.domain", tmp_path / "second.domain"]
    found = []
    for order in (images, images[::-1]):
        words = [word for domain in domains for word in ("--domain-out", domain)]
        assert zoned("map", *order, "--metadata-only", "--force", *words).status == 0
        found.append([_data_lines(domain) for domain in domains])
    assert found[0] == found[1][::-1]
    assert all(len(rows) > 1 for rows in found[0])
    copies = [tmp_path / f"copy-{image.name}" for image in images]
    for image, domain, copy in zip(images, domains[::-1], copies, strict=True):
        _rescue(image, domain, copy)
    result = zoned("check", "--deep", *copies, "--json")
    codes = {row["id"] for row in result.json["devices"][0]["findings"]}
    assert not codes & {"btrfs.roots-unreadable", "btrfs.metadata-lost"}, codes


def _data_lines(domain: Path) -> list[str]:
    return [line for line in domain.read_text().splitlines() if line.endswith("+") and line.count("0x") == 2]


@pytest.mark.parametrize("archive", ["btrfs-zoned/g01-dup-healthy", "zonefs/p1-default"])
def test_a_copy_without_its_zone_table_does_not_tell_what_is_written(
    archive: str, vectors: Path, tmp_path: Path, zoned: Program
) -> None:
    """The domain would go past every write pointer; where the metadata are can be told."""
    image = unpack(vectors / f"{archive}.tar.xz", tmp_path) / "disk.img"
    image.with_name("disk.img.zones").unlink()
    domain = tmp_path / "domain"
    result = zoned("map", image, "--domain-out", domain)
    assert (result.status, domain.exists()) == (8, False)
    assert "zone table" in result.err
    assert "on the drive itself" in result.err
    assert zoned("map", image, "--domain-out", domain, "--metadata-only").status == 0
    assert len(_data_lines(domain)) >= 1
