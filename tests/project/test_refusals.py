"""Settings and codes that a layout does not know are refused by every command, in the same words, before any write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archives import unpack
from tests.programs import Program

CREATE = ("zoned", "image", "create")
MAKERS: dict[str, tuple[tuple[object, ...], ...]] = {
    "dm-zoned": (
        (*CREATE, "disk.img", "--zones", 64, "--zone-size", "4M", "--conventional", 16),
        ("dmzadm", "--format"),
    ),
    "zdm": (
        (*CREATE, "disk.img", "--zones", 16, "--zone-size", "256M", "--conventional", 8),
        ("zdmadm", "--create", "--start", 524288),
    ),
    "zonefs": ((*CREATE, "disk.img", "--zones", 16, "--zone-size", "4M", "--conventional", 2), ("mkzonefs",)),
    "btrfs": (),
    "inplace-compress": ((), ("zoned", "inplace-compress", "format")),
}
START = {"zdm": ("--start", 524288)}
COMMANDS = {
    "check": ("check",),
    "repair": ("check", "--repair"),
    "dry-run": ("check", "--repair", "--dry-run"),
    "map": ("map",),
    "export": ("export", "-o", "exported"),
    "serve": ("serve", "--socket", "socket"),
    "replay": ("replay", "--trace", "trace"),
    "table": ("table",),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Program], Path]:
    """The image of a layout, made once."""
    made: dict[str, Path] = {}

    def make(layout: str, program: Program) -> Path:
        if layout not in made:
            directory = tmp_path_factory.mktemp(layout)
            made[layout] = directory / "disk.img"
            if layout == "btrfs":
                unpack(Path(__file__).parent.parent / "vectors" / "btrfs-zoned" / "p02-inuse0.tar.xz", directory)
            else:
                create, make = MAKERS[layout]
                if create:
                    assert program(*[made[layout] if word == "disk.img" else word for word in create]).status == 0
                else:
                    made[layout].write_bytes(bytes(16 << 20))
                assert program(*make, made[layout]).status == 0
        return made[layout]

    return make


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("layout", MAKERS)
def test_unknown_settings_are_refused(
    layout: str, command: str, image: Callable[[str, Program], Path], program: Program, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = image(layout, program)
    monkeypatch.chdir(tmp_path)
    Path("trace").write_text("fio version 2 iolog\n")
    before = path.stat().st_mtime_ns
    name, *options = COMMANDS[command]
    result = program("zoned", name, path, *options, *START.get(layout, ()), "--set", "nonsense=1")
    assert result.status == 16
    assert result.out == ""
    assert f"{layout} has no setting 'nonsense' for " in result.err
    assert result.err.count("\n") == 1
    assert path.stat().st_mtime_ns == before
    assert sorted(tmp_path.iterdir()) == [tmp_path / "trace"]


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--json",)])
@pytest.mark.parametrize("layout", MAKERS)
def test_unknown_codes_are_refused(
    layout: str, options: tuple[str, ...], image: Callable[[str, Program], Path], program: Program
) -> None:
    path = image(layout, program)
    result = program("zoned", "check", path, "--repair", *options, *START.get(layout, ()), "--allow", "nonsense")
    assert result.status == 16
    assert f"{layout} has no finding 'nonsense' (zoned explain {layout} lists them)" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("code", ["dm-zoned.nonsense", "zdm.nonsense", "zonefs.", "btrfs.nonsense"])
@pytest.mark.parametrize("layout", MAKERS)
def test_unknown_codes_of_other_layouts_are_refused(
    layout: str, code: str, image: Callable[[str, Program], Path], program: Program
) -> None:
    path = image(layout, program)
    result = program("zoned", "check", path, "--repair", "--dry-run", *START.get(layout, ()), "--allow", code)
    assert result.status == 16
    assert f"{code.split('.', maxsplit=1)[0]} has no finding '{code.split('.')[1]}'" in result.err


def test_consent_without_repair_is_refused(image: Callable[[str, Program], Path], program: Program) -> None:
    result = program("zoned", "check", image("zonefs", program), "--allow", "sb-magic")
    assert (result.status, result.out) == (16, "")
    assert "--allow needs --repair" in result.err
