"""A zone table that is not this drive's is one finding that stops repair, and reading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.formats.dm_zoned.images import NAMES, Images, check_target, corrupted, corruptions, facts
from tests.formats.dm_zoned.repair_support import errors_of, plan_of, repair, waiting
from zoned_tools.device.image import open_image
from zoned_tools.errors import RefusedError
from zoned_tools.formats.contract import Consent, Target
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper
from zoned_tools.formats.dm_zoned.settings import SETTINGS
from zoned_tools.formats.shared.settings import Settings

FOREIGN = ("hm64x1", "dual", "hm64x4")
"""The public cases zones-foreign, zones-foreign-dual, zones-foreign-ext4."""


def foreign_paths(images: Images, base: str, folder: Path) -> list[Path]:
    """Copies of the clean image with the zone tables of the fresh one."""
    paths = []
    for clean, fresh in zip(images.paths(base, "clean"), images.paths(base, "fresh"), strict=True):
        path = folder / clean.name
        shutil.copyfile(clean, path)
        if Path(f"{fresh}.zones").exists():
            shutil.copyfile(f"{fresh}.zones", f"{path}.zones")
        paths.append(path)
    return paths


@pytest.mark.parametrize("base", FOREIGN)
def test_the_table_of_an_empty_drive(images: Images, base: str, tmp_path: Path) -> None:
    paths = foreign_paths(images, base, tmp_path)
    target = Target("dm-zoned", tuple(open_image(str(path), writable=True) for path in paths))
    findings = check_target(target).findings
    assert [f.code for f in findings if f.code == "zones-foreign"] == ["zones-foreign"]
    assert not findings.codes & {"bits-after-wp", "map-empty-seq", "zone-unmapped-not-empty"}
    assert waiting(plan_of(target)) == {"zones-foreign": Consent.LOSES}
    assert not plan_of(target).plan
    for writable in (False, True):
        with pytest.raises(RefusedError, match="not this drive's") as caught:
            open_mapper(target, writable=writable, settings=Settings({}, SETTINGS))
        assert "--zones content" in caught.value.hint
    repair(target, frozenset({"zones-foreign"}), reclaim="clear")
    assert errors_of(target) == []
    for device in target.devices:
        device.close()


@pytest.mark.parametrize("base", FOREIGN)
def test_commands_refuse_it(images: Images, base: str, tmp_path: Path) -> None:
    from zoned_tools.cli.run import run

    paths = [str(path) for path in foreign_paths(images, base, tmp_path)]
    before = [Path(path).read_bytes() for path in paths]
    assert run("zoned", ["check", *paths, "--json"]) == 4
    assert run("zoned", ["check", "--repair", *paths]) == 4
    assert run("zoned", ["export", *paths, "-o", str(tmp_path / "out"), "--json", "-q"]) == 8
    assert not (tmp_path / "out").exists()
    assert [Path(path).read_bytes() for path in paths] == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", ["fresh", "clean", "crash"])
def test_a_drives_own_table_never_is(images: Images, name: str, state: str) -> None:
    if facts(name)["images"].get(state) is not None:
        assert check_target(images.target(name, state)).foreign is None


def test_damage_of_single_zones_never_is(images: Images) -> None:
    for base, variant in corruptions():
        try:
            assert check_target(corrupted(images, base, variant)).foreign is None, variant["id"]
        except NoValidSuperBlockError:
            continue


def test_one_valid_block_with_data_beyond_a_write_pointer_is_proof(images: Images, tmp_path: Path) -> None:
    """A drive cannot have it: only the sidecar of one zone is wrong here."""
    from zoned_tools.device.zones import ZoneCondition

    paths = [tmp_path / path.name for path in images.paths("hm64x1", "clean")]
    for path, source in zip(paths, images.paths("hm64x1", "clean"), strict=True):
        shutil.copyfile(source, path)
        raw = bytearray(Path(f"{source}.zones").read_bytes())
        row = 192 + 64 * 15
        start = int.from_bytes(raw[row : row + 8], "little")
        raw[row + 24 : row + 32] = (start + 4096).to_bytes(8, "little")
        raw[row + 40 : row + 44] = int(ZoneCondition.CLOSED).to_bytes(4, "little")
        Path(f"{path}.zones").write_bytes(raw)
    with open_image(str(paths[0])) as device:
        found = check_target(Target("dm-zoned", (device,)))
        assert found.foreign is not None
        assert found.foreign.holds_data
        assert json.dumps([dict(f.where) for f in found.findings]) == '[{"zones": 1, "empty": 0}]'
