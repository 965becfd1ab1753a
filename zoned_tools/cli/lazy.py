"""A command group whose commands are imported only when they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command as build_command

from zoned_tools.cli.documents import declare, naming, schema_of
from zoned_tools.cli.run import load
from zoned_tools.cli.settings import Taken, taken_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    Buildable: TypeAlias = typer.Typer | Callable[..., object]


class _Formatter(Protocol):
    """A help text of click, as far as groups are written into it."""

    def section(self, name: str) -> AbstractContextManager[None]: ...

    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None: ...


CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class LazyGroup(TyperGroup):
    """A group over a static registry ``name -> ("module:function or typer app", summary)``.

    The help text needs the registry alone; a command's module is imported when the command
    runs. A test keeps the summaries equal to the commands' docstrings.
    """

    def __init__(self, *, name: str, help: str, registry: Mapping[str, tuple[str, str]]) -> None:  # noqa: A002 - click's own name
        super().__init__(
            name=name,
            help=help,
            rich_markup_mode=None,
            context_settings=dict(CONTEXT_SETTINGS),
            no_args_is_help=True,
        )
        self.registry = registry
        self.commands = cast("dict[str, Any]", dict.fromkeys(registry))  # names, for suggestions

    def list_commands(self, ctx: object) -> list[str]:
        del ctx  # click's own
        return list(self.registry)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | TyperGroup | None:
        del ctx
        entry = self.registry.get(cmd_name)
        return None if entry is None else build(cmd_name, cast("Buildable", load(entry[0])))

    def format_commands(self, ctx: object, formatter: _Formatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.registry.items()])


def new_app(help_text: str = "") -> typer.Typer:
    """A typer application with the house's settings: plain help, no completion installer, no pretty traceback."""
    return typer.Typer(
        help=help_text or None,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=dict(CONTEXT_SETTINGS),
        no_args_is_help=True,
    )


def build(name: str, thing: Buildable) -> TyperCommand | TyperGroup:
    """The click command of a function with typer annotations, or of a whole typer application."""
    app = thing
    if not isinstance(app, typer.Typer):
        app = new_app()
        app.info.no_args_is_help = False
        app.command(name, context_settings=dict(CONTEXT_SETTINGS))(cast("Callable[..., object]", thing))
    command = cast("TyperCommand | TyperGroup", build_command(app))
    command.name = name
    members = cast("Sequence[TyperCommand]", command.commands.values()) if isinstance(command, TyperGroup) else ()
    for one in (command, *members):
        taken = taken_by(one.callback)
        vars(one)["taken_settings"] = taken  # for completions
        _name_document(one)
        _add_setting_options(one, taken)
    return command


def _name_document(command: TyperCommand | TyperGroup) -> None:
    """Have the command name its document when it runs, and tell it of usage errors."""
    schema = schema_of(command.callback)
    if schema and command.callback is not None:
        declare(schema, command)
        command.callback = naming(schema, command.callback)


def _add_valued_flags(command: TyperCommand | TyperGroup, taken: Taken) -> None:
    """Values of a command's own flag that are settings: ``--deep=data`` is ``--deep --set data=yes``."""
    declared = taken.declared() if taken.journeys else ()
    words = {s.flag: [s.flag.partition("=")[0], "--set", f"{s.name}=yes"] for _, s in declared if "=" in s.flag}
    if words:
        parse = cast("Callable[[object, list[str]], list[str]]", command.parse_args)

        def parse_args(ctx: object, args: list[str]) -> list[str]:
            return parse(ctx, [one for word in args for one in words.get(word, [word])])

        command.parse_args = parse_args  # type: ignore[method-assign]


def _add_setting_options(command: TyperCommand | TyperGroup, taken: Taken) -> None:
    """Options of their own that layouts' settings have: ``--use-set 1`` is ``--set use-set=1``."""
    flags: dict[str, str] = {}
    _add_valued_flags(command, taken)
    for layout, setting in taken.declared() if taken.journeys else ():
        known = (option for parameter in command.params for option in parameter.opts)
        if not setting.flag or "=" in setting.flag or setting.flag in known:
            continue
        parameter = f"setting_{setting.name.replace('-', '_')}"
        flags[parameter] = setting.name
        switch = setting.kind == "switch"
        option = TyperOption(
            param_decls=[parameter, setting.flag],
            is_flag=switch,
            default=False if switch else None,
            metavar=None if switch else setting.metavar,
            help=f"{setting.help} ({layout.name}).",
        )
        option.completed = setting.choices  # type: ignore[attr-defined]  # for completions
        command.params.append(option)
    if not flags:
        return
    run = command.callback
    assert run is not None

    def callback(**values: object) -> object:
        given = {name: values.pop(parameter) for parameter, name in flags.items()}
        words = [f"{name}={'yes' if value is True else value}" for name, value in given.items() if value]
        if words:
            values["settings"] = [*cast("list[str]", values.get("settings") or []), *words]
        return run(**values)

    command.callback = callback
