"""A command group whose commands are imported only when they are called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup, TyperOption
from typer.main import get_command as build_command

from zoned_tools.cli.run import load
from zoned_tools.cli.settings import declared_for

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Journey

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

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.registry)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = self.registry.get(cmd_name)
        return None if entry is None else build(cmd_name, load(entry[0]))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
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


def build(name: str, thing: Any) -> Any:
    """The click command of a function with typer annotations, or of a whole typer application."""
    app = thing
    if not isinstance(thing, typer.Typer):
        app = new_app()
        app.info.no_args_is_help = False
        app.command(name, context_settings=dict(CONTEXT_SETTINGS))(thing)
    command: Any = build_command(app)
    command.name = name
    journeys = getattr(thing, "setting_journeys", None)
    command.setting_journeys = journeys or frozenset()
    if journeys:
        _add_setting_options(command, journeys)
    return command


def _add_setting_options(command: Any, journeys: Collection[Journey]) -> None:
    """Options of their own that layouts' settings have: ``--use-set 1`` is ``--set use-set=1``."""
    flags: dict[str, str] = {}
    for layout, setting in declared_for(journeys):
        if not setting.flag or setting.flag in (o for p in command.params for o in p.opts):
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
    run = command.callback

    def callback(**values: Any) -> Any:
        given = {name: values.pop(parameter) for parameter, name in flags.items()}
        words = [f"{name}={'yes' if value is True else value}" for name, value in given.items() if value]
        if words:
            values["settings"] = [*(values.get("settings") or ()), *words]
        return run(**values)

    if flags:
        command.callback = callback
