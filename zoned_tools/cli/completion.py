"""Static shell completions, generated from the command tree.

``python -m zoned_tools.cli.completion completions`` writes them (``--installed`` adds the settings of layouts that
other packages bring); a test keeps the files in
the repository equal to what this prints. Static files cost a shell nothing and work where
the programs are not in the user's PATH.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from zoned_tools.cli.lazy import LazyGroup
from zoned_tools.cli.run import PROGRAMS, load
from zoned_tools.cli.settings import Taken, taken_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class CompletedOption:
    """One option: its spellings, help, and what may follow it."""

    names: tuple[str, ...]
    summary: str
    takes_value: bool
    choices: tuple[str, ...] = ()
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For ``--set``: name of each setting to its values, empty where any text may follow."""

    @property
    def words(self) -> tuple[str, ...]:
        """What may follow: the choices, or ``KEY=VALUE`` words."""
        pairs = (f"{name}={value}" for name, values in self.settings.items() for value in values or ("",))
        return self.choices or tuple(pairs)


@dataclass(frozen=True, slots=True)
class CompletedCommand:
    """One command of the tree; ``path`` are the words after the program's name."""

    path: tuple[str, ...]
    summary: str
    options: tuple[CompletedOption, ...]
    children: tuple[CompletedCommand, ...] = field(default_factory=tuple)

    def walk(self) -> Iterator[CompletedCommand]:
        """This command and everything below it."""
        yield self
        for child in self.children:
            yield from child.walk()


ALIASES = {"mkzonefs": ("mkfs.zonefs",)}
"""Other names that a program is installed under."""


class _Parameter(Protocol):
    """A parameter of a click command."""

    opts: list[str]
    help: str | None
    is_flag: bool
    type: object
    param_type_name: str


class Described(Protocol):
    """A click command, or a clone's command tree."""

    @property
    def params(self) -> Sequence[_Parameter]: ...

    @property
    def help(self) -> str | None: ...


class Group(Described, Protocol):
    """A click command with sub-commands."""

    def list_commands(self, ctx: None, /) -> list[str]: ...

    def get_command(self, ctx: None, name: str, /) -> Described: ...


def click_tree(program: str) -> Described:
    """The click command of a program, with every option."""
    module = PROGRAMS[program].partition(":")[0]
    factory = "command_tree" if program != "zoned" else "command"
    return cast("Callable[[], Described]", load(f"{module}:{factory}"))()


def describe(program: str, *, installed: bool = False) -> CompletedCommand:
    """The command tree of a program; ``installed`` adds the settings of installed layouts."""
    return _describe(click_tree(program), (), installed=installed)


def _describe(command: Described, path: tuple[str, ...], *, installed: bool) -> CompletedCommand:
    children: tuple[CompletedCommand, ...] = ()
    if hasattr(command, "list_commands"):
        group = cast("Group", command)
        names = group.list_commands(None)
        children = tuple(_describe(group.get_command(None, n), (*path, n), installed=installed) for n in names)
    settings = _settings(taken_by(command), installed=installed)
    options = [_option(p, settings) for p in command.params if p.param_type_name == "option"]
    if not path or isinstance(command, LazyGroup):
        options.append(CompletedOption(("--version",), "Print the version and exit.", takes_value=False))
    options.append(CompletedOption(("-h", "--help"), "Show help and exit.", takes_value=False))
    summary = (command.help or "").strip().split("\n", 1)[0]
    return CompletedCommand(path, summary, tuple(options), children)


def _settings(taken: Taken, *, installed: bool) -> dict[str, tuple[str, ...]]:
    """What layouts declare for a command; of settings with one name in two layouts the values of both."""
    found: dict[str, tuple[str, ...]] = {}
    for _, setting in taken.declared(installed=installed):
        values = ("yes", "no") if setting.kind == "switch" else setting.choices
        found[setting.name] = tuple(dict.fromkeys((*found.get(setting.name, ()), *values)))
    return found


def _option(param: _Parameter, settings: Mapping[str, tuple[str, ...]]) -> CompletedOption:
    choices = getattr(param.type, "choices", ()) or getattr(param, "completed", ())
    return CompletedOption(
        names=tuple(param.opts),
        summary=" ".join((param.help or "").split()),
        takes_value=not param.is_flag,
        choices=tuple(str(c) for c in choices),
        settings=settings if "--set" in param.opts else {},
    )


def _function(program: str) -> str:
    return "_" + program.replace(".", "_").replace("-", "_")


def bash(program: str, *, installed: bool = False) -> str:
    """Completion for bash, to be sourced."""
    root = describe(program, installed=installed)
    lines = [f"# bash completion for {program}", "", f"{_function(program)}() {{"]
    lines += [
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path= word",
        "    COMPREPLY=()",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        case "$path $word" in',
    ]
    for command in root.walk():
        if command.path:
            lines.append(f'            "{" ".join(("", *command.path))}") path="{" ".join(("", *command.path))}" ;;')
    lines += ["        esac", "    done", '    case "$path" in']
    for command in root.walk():
        lines += _bash_case(command)
    lines += [
        "    esac",
        '    if [[ $cur != -* ]]; then COMPREPLY+=($(compgen -f -- "$cur")); fi',
        "}",
        f"complete -o filenames -F {_function(program)} {' '.join((program, *ALIASES.get(program, ())))}",
        "",
    ]
    return "\n".join(lines)


def _bash_case(command: CompletedCommand) -> Iterator[str]:
    words = [name for option in command.options for name in option.names]
    subcommands = [child.path[-1] for child in command.children]
    yield f'        "{" ".join(("", *command.path)) if command.path else ""}")'
    for option in command.options:
        if option.words:
            pattern = "|".join(option.names)
            yield f"            case $prev in {pattern}) {_compgen(' '.join(option.words))} return ;; esac"
        yield from _bash_values(option)
    if subcommands:
        yield f"            {_compgen(' '.join([*subcommands, *words]))} return ;;"
    else:
        yield f"            if [[ $cur == -* ]]; then {_compgen(' '.join(words))} return; fi ;;"


def _bash_values(option: CompletedOption) -> Iterator[str]:
    """bash takes the ``=`` of ``KEY=VALUE`` for a word of its own."""
    known = {name: values for name, values in option.settings.items() if values}
    if not known:
        return
    yield "            [[ $cur == = ]] && cur= && word=$prev || word=${COMP_WORDS[COMP_CWORD-2]}"
    yield "            if [[ ${COMP_WORDS[COMP_CWORD]} == = || $prev == = ]]; then case $word in"
    for name, values in known.items():
        yield f"                {name}) {_compgen(' '.join(values))} return ;;"
    yield "            esac; fi"


def _compgen(words: str) -> str:
    return f'COMPREPLY=($(compgen -W "{words}" -- "$cur"));'


def _zsh_quote(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def zsh(program: str, *, installed: bool = False) -> str:
    """Completion for zsh, to be autoloaded."""
    root = describe(program, installed=installed)
    lines = [f"#compdef {' '.join((program, *ALIASES.get(program, ())))}", ""]
    for command in root.walk():
        lines += _zsh_function(program, command)
    lines.append(f'{_function(program)} "$@"')
    return "\n".join(lines) + "\n"


def _zsh_name(program: str, path: tuple[str, ...]) -> str:
    return "_".join((_function(program), *(word.replace("-", "_") for word in path)))


def _zsh_function(program: str, command: CompletedCommand) -> Iterator[str]:
    yield f"{_zsh_name(program, command.path)}() {{"
    arguments = []
    for option in command.options:
        value = ""
        if option.takes_value:
            value = f":value:({' '.join(option.words)})" if option.words else ":value:_files"
        arguments += [f"'{name}[{_zsh_quote(option.summary)}]{value}'" for name in option.names]
    if not command.children:
        yield "    _arguments \\"
        yield from (f"        {argument} \\" for argument in arguments)
        yield "        '*:device or file:_files'"
        yield "}"
        return
    yield "    local -a commands"
    yield "    commands=("
    for child in command.children:
        yield f"        '{child.path[-1]}:{_zsh_quote(child.summary)}'"
    yield "    )"
    yield "    local state line"
    yield "    _arguments -C \\"
    yield from (f"        {argument} \\" for argument in arguments)
    yield "        '1: :->command' '*:: :->rest'"
    yield "    case $state in"
    yield "        command) _describe command commands ;;"
    yield "        rest)"
    yield "            case $line[1] in"
    for child in command.children:
        yield f"                {child.path[-1]}) {_zsh_name(program, child.path)} ;;"
    yield "            esac ;;"
    yield "    esac"
    yield "}"


def fish(program: str, *, installed: bool = False) -> str:
    """Completion for fish."""
    root = describe(program, installed=installed)
    lines = [f"# fish completion for {program}"]
    for name in (program, *ALIASES.get(program, ())):
        for command in root.walk():
            lines += _fish_lines(name, command)
    return "\n".join(lines) + "\n"


def _fish_quote(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _fish_lines(program: str, command: CompletedCommand) -> Iterator[str]:
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.path)
    if command.children:
        names = " ".join(child.path[-1] for child in command.children)
        here = "; and ".join(part for part in (seen, f"not __fish_seen_subcommand_from {names}") if part)
        for child in command.children:
            yield f"complete -c {program} -n '{here}' -f -a {child.path[-1]} -d '{_fish_quote(child.summary)}'"
        condition = here
    else:
        condition = seen
    guard = f" -n '{condition}'" if condition else ""
    for option in command.options:
        flags = "".join(
            f" -l {name[2:]}" if name.startswith("--") else f" -{'s' if len(name) == 2 else 'o'} {name[1:]}"
            for name in option.names
        )
        value = ""
        if option.takes_value:
            value = f" -x -a '{' '.join(option.words)}'" if option.words else " -r"
        yield f"complete -c {program}{guard}{flags}{value} -d '{_fish_quote(option.summary)}'"


def files(*, installed: bool = False) -> Iterator[tuple[str, str]]:
    """``(path below completions/, content)`` of every file."""
    for program in PROGRAMS:
        for name in (program, *ALIASES.get(program, ())):
            # bash and zsh find completions by the program's name: an alias needs its own file.
            yield f"bash/{name}", bash(program, installed=installed)
        yield f"zsh/_{program}", zsh(program, installed=installed)
        yield f"fish/{program}.fish", fish(program, installed=installed)


def main(directory: str, *, installed: bool = False) -> None:
    """Write every file below ``directory``; ``installed`` adds the settings of installed layouts."""
    for name, content in files(installed=installed):
        path = Path(directory) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--installed"]
    main(words[0] if words else "completions", installed="--installed" in sys.argv)
