"""Public rescue cases that need a check, a repair and an export alone: by name, through the commands."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.formats.dm_zoned.images import VECTORS, Images
from zoned_tools.cli.run import run

CASES = {case["id"]: case for case in json.loads((VECTORS.parent / "rescue" / "cases.json").read_text())}
NAMES = ("zones-foreign", "zones-foreign-dual", "zones-foreign-ext4")
ALONE = ("member-alone", "regular-alone", "member-stale-secondary")


def made(images: Images, case: dict[str, Any], folder: Path) -> list[Path]:
    """The files of a case: copies of its base, damaged."""
    base = case["base"].removeprefix("dm-zoned/")
    sources = {path.name: path for state in ("clean", "fresh") for path in images.paths(base, state)}
    for name, source in sources.items():
        shutil.copyfile(source, folder / name)
        if Path(f"{source}.zones").exists():
            shutil.copyfile(f"{source}.zones", folder / f"{name}.zones")
    for operation in case["make"]:
        match operation:
            case ["zones-of", name, other]:
                shutil.copyfile(folder / f"{other}.zones", folder / f"{name}.zones")
            case ["patch", name, offset, content]:
                with (folder / name).open("r+b") as file:
                    file.seek(offset)
                    file.write(bytes.fromhex(content))
            case _:
                raise AssertionError(operation)
    return [folder / name for name in case["files"]]


def words(step: dict[str, Any], paths: list[Path], folder: Path) -> list[str]:
    """A command line of a step."""
    replaced = {f"@{number}": str(path) for number, path in enumerate(paths)} | {"@OUT": str(folder / "out")}
    return [replaced.get(word, word) for word in step["cmd"]]


@pytest.mark.parametrize("name", [*NAMES, *ALONE])
def test_case(images: Images, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    paths = made(images, case, tmp_path)
    for step in case["run"]:
        program, *arguments = words(step, paths, tmp_path)
        if "--zones" in arguments:  # deriving a zone table is another room's
            continue
        before = [path.read_bytes() for path in paths]
        status = run(program, arguments)
        printed = "".join(capsys.readouterr())
        assert status in step["exit"], (step["cmd"], printed)
        assert [path.read_bytes() for path in paths] == before
        assert not (tmp_path / "out").exists()
        for word in step.get("text", ()):
            assert word in printed
        if "must" in step:
            findings = json.loads(re.sub(r"^[^{]*", "", printed))["devices"][0]["findings"]
            codes = [finding["id"].removeprefix("dm-zoned.") for finding in findings]
            assert {code for code, _ in step["must"]} <= set(codes)
            assert not set(step["must_not"]) & set(codes)
            assert all(codes.count(code) == number for code, number in step.get("count", {}).items())


def test_a_super_block_that_names_another_place_is_no_member(images: Images) -> None:
    """Bitmaps of its own zones alone: a single-device target, whose primary super block is damaged."""
    from tests.formats.dm_zoned.images import check_target, corrupted
    from tests.formats.dm_zoned.repair_support import variant_of

    target = corrupted(images, "hm64x1", variant_of("pri-location"))
    assert check_target(target).findings.codes == {"sb-bad-location"}


@pytest.mark.parametrize("base", ["dual", "triple"])
def test_all_parts_together_are_welcome(images: Images, base: str) -> None:
    from tests.formats.dm_zoned.images import check_target

    assert check_target(images.target(base)).verdict == "clean"
