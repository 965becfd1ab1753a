"""Manual pages and completions say exactly what the programs take."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from zoned_tools.cli import manual
from zoned_tools.cli.completion import CompletedCommand, describe, files
from zoned_tools.cli.run import PROGRAMS
from zoned_tools.formats import registry
from zoned_tools.formats.shared.settings import Journey

ROOT = Path(__file__).parents[2]

LINKS = {"mkfs.zonefs.8": "mkzonefs.8"}
"""Pages that are another page under a second name."""

PAGES = sorted(p for p in (ROOT / "man").glob("*.[0-9]") if p.name not in LINKS)

# Arguments that do something in the clones but are no options of the click command.
EXTRA = {"dmzadm": {"-v"}, "zdmadm": set(), "mkzonefs": {"-h"}}


def _page_of(program: str, command: CompletedCommand) -> Path:
    verb = f"-{command.path[0]}" if command.path else ""
    return ROOT / "man" / f"{program}{verb}.8"


def _options_in(page: Path) -> set[str]:
    text = page.read_text().replace("\\-", "-")
    text = re.sub(r"\\f[BIRP]", "", text)
    body = "\n".join(line for line in text.splitlines() if not line.startswith('.\\"'))
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*|-[A-Za-z])(?![\w-])", body))


COMMANDS = [(program, command) for program in PROGRAMS for command in describe(program).walk()]


@pytest.mark.parametrize(
    ("program", "command"), COMMANDS, ids=[" ".join((program, *command.path)) for program, command in COMMANDS]
)
def test_every_option_is_in_the_manual(program: str, command: CompletedCommand) -> None:
    page = _page_of(program, command)
    assert page.exists(), "the command has no manual page"
    documented = _options_in(page)
    missing = {name for option in command.options for name in option.names} - documented - {"--help", "-h"}
    assert not missing


@pytest.mark.parametrize("page", [p for p in PAGES if p.suffix == ".8"], ids=lambda p: p.name)
def test_the_manual_has_no_option_that_does_not_exist(page: Path) -> None:
    known: set[str] = {"-h", "--help", "--version"}
    for program, command in COMMANDS:
        if _page_of(program, command) == page:
            known |= {name for option in command.options for name in option.names}
            known |= EXTRA.get(program, set())
    text = page.read_text()
    # Only what stands as an item of an option list; examples may show other programs' options.
    items = re.findall(r"^\.TP\n(?:\.B[IR]? )?(.*)$", text, re.MULTILINE)
    named = {
        n
        for item in items
        for n in re.findall(r"(?<![\w-])(--[a-z][a-z-]*|-[A-Za-z])\b", item.replace("\\-", "-").replace("\\fB", ""))
    }
    assert named <= known, named - known


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_manual_is_clean(page: Path) -> None:
    groff = shutil.which("groff")
    assert groff is not None, "groff checks the manual pages"
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-rCHECKSTYLE=3", str(page)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert re.search(r"^\.SH NAME\n\S.* \\- ", page.read_text(), re.MULTILINE), "the NAME line is what whatis shows"


@pytest.mark.parametrize(("name", "page"), LINKS.items())
def test_second_names(name: str, page: str) -> None:
    assert (ROOT / "man" / name).read_text() == f".so man8/{page}\n"
    assert (ROOT / "man" / page).exists()


def test_completions_are_current() -> None:
    """Regenerate with: python -m zoned_tools.cli.completion completions"""
    for name, content in files():
        path = ROOT / "completions" / name
        assert path.exists(), f"{name} is missing"
        assert path.read_text() == content, f"{name} is not what the programs take"


def test_generated_pages_are_current() -> None:
    """Regenerate with: python -m zoned_tools.cli.manual man"""
    for name, content in manual.pages().items():
        assert (ROOT / "man" / name).read_text() == content, name


def _complete(line: str) -> set[str]:
    words = line.split(" ")
    script = (
        f"source {ROOT}/completions/bash/{words[0]}; COMP_WORDS=({' '.join(repr(w) for w in words)}); "
        f"COMP_CWORD={len(words) - 1}; _{words[0]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_choices() -> None:
    assert {"report", "check", "image"} <= _complete("zoned ")
    assert _complete("zoned rep") == {"report", "replay"}
    assert {"--format", "--filter", "--json"} <= _complete("zoned report --")
    assert {"blkzone", "zbd", "csv"} <= _complete("zoned report --format ")
    assert {"create", "import", "info"} <= _complete("zoned image ")
    assert "--zone-capacity" in _complete("zoned image create --zone")
    assert {"--format", "--check", "--repair"} <= _complete("dmzadm --")


ONE_LAYOUT = {
    "zoned zonefs check DEV --set ": "zonefs",
    "zoned inplace-compress check DEV --set ": "inplace-compress",
    "zoned inplace-compress repair DEV --set ": "inplace-compress",
    "dmzadm --repair DEV --set ": "dm-zoned",
}


@pytest.mark.parametrize("line", ONE_LAYOUT)
def test_a_command_of_one_layout_completes_its_settings_alone(line: str) -> None:
    declared = registry.get(ONE_LAYOUT[line]).settings
    names = {s.name for s in declared if not s.journeys.isdisjoint({Journey.CHECK, Journey.REPAIR})}
    assert {word.partition("=")[0] for word in _complete(line)} == names
    for setting in declared:
        if setting.name in names and (setting.choices or setting.kind == "switch"):
            assert _complete(f"{line}{setting.name} = ") == set(setting.choices or ("yes", "no"))


def test_every_command_with_settings_completes_them() -> None:
    for program in PROGRAMS:
        for command in describe(program).walk():
            for option in command.options:
                if "--set" in option.names and option.takes_value:  # zdmadm's is a verb
                    assert option.settings, (program, command.path)
