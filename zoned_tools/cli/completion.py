"""Static shell completions, generated from the command tree.

``python -m zoned_tools.cli.completion completions`` writes them; a test keeps the files in
the repository equal to what this prints. Static files cost a shell nothing and work where
the programs are not in the user's PATH.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoned_tools.cli.lazy import LazyGroup
from zoned_tools.cli.run import PROGRAMS, load


@dataclass(frozen=True, slots=True)
class CompletedOption:
    """One option: its spellings, help, and what may follow it."""

    names: tuple[str, ...]
    summary: str
    takes_value: bool
    choices: tuple[str, ...] = ()


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


def click_tree(program: str) -> Any:
    """The click command of a program, with every option."""
    module = PROGRAMS[program].partition(":")[0]
    factory = "command_tree" if program != "zoned" else "command"
    return load(f"{module}:{factory}")()


def describe(program: str) -> CompletedCommand:
    """The command tree of a program."""
    return _describe(click_tree(program), ())


def _describe(command: Any, path: tuple[str, ...]) -> CompletedCommand:
    names: list[str] = []
    if hasattr(command, "list_commands"):
        names = command.list_commands(None)
    children = tuple(_describe(command.get_command(None, name), (*path, name)) for name in names)
    options = [_option(p) for p in command.params if p.param_type_name == "option"]
    if not path or isinstance(command, LazyGroup):
        options.append(CompletedOption(("--version",), "Print the version and exit.", takes_value=False))
    options.append(CompletedOption(("-h", "--help"), "Show help and exit.", takes_value=False))
    summary = (command.help or "").strip().split("\n", 1)[0]
    return CompletedCommand(path, summary, tuple(options), children)


def _option(param: Any) -> CompletedOption:
    return CompletedOption(
        names=tuple(param.opts),
        summary=" ".join((param.help or "").split()),
        takes_value=not param.is_flag,
        choices=tuple(str(c) for c in getattr(param.type, "choices", ()) or ()),
    )


def _function(program: str) -> str:
    return "_" + program.replace(".", "_").replace("-", "_")


def bash(program: str) -> str:
    """Completion for bash, to be sourced."""
    root = describe(program)
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
        if option.choices:
            pattern = "|".join(option.names)
            choices = " ".join(option.choices)
            yield f"            case $prev in {pattern}) {_compgen(choices)} return ;; esac"
    if subcommands:
        yield f"            {_compgen(' '.join([*subcommands, *words]))} return ;;"
    else:
        yield f"            if [[ $cur == -* ]]; then {_compgen(' '.join(words))} return; fi ;;"


def _compgen(words: str) -> str:
    return f'COMPREPLY=($(compgen -W "{words}" -- "$cur"));'


def _zsh_quote(text: str) -> str:
    return text.replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def zsh(program: str) -> str:
    """Completion for zsh, to be autoloaded."""
    root = describe(program)
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
            value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files"
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


def fish(program: str) -> str:
    """Completion for fish."""
    root = describe(program)
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
            value = f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r"
        yield f"complete -c {program}{guard}{flags}{value} -d '{_fish_quote(option.summary)}'"


def files() -> Iterator[tuple[str, str]]:
    """``(path below completions/, content)`` of every file."""
    for program in PROGRAMS:
        for name in (program, *ALIASES.get(program, ())):
            # bash and zsh find completions by the program's name: an alias needs its own file.
            yield f"bash/{name}", bash(program)
        yield f"zsh/_{program}", zsh(program)
        yield f"fish/{program}.fish", fish(program)


def main(directory: str) -> None:
    """Write every file below ``directory``."""
    for name, content in files():
        path = Path(directory) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "completions")
