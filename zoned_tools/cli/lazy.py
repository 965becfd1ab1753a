"""A command group whose commands are imported only when they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command as build_command

from zoned_tools.cli.run import load

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
    command = build_command(app)
    command.name = name
    return command
