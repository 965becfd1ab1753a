"""``zoned undo``: play an undo file back."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.options import DryRun


def undo(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Undo file.", show_default=False)],
    devices: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DEV]...", help="The devices, where their names have changed.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Overwrite what was changed after the undo file was saved.")
    ] = False,
) -> int:
    """Play an undo file back."""
    from zoned_tools.device.opening import open_devices
    from zoned_tools.device.plan import apply_step
    from zoned_tools.device.undo import UndoFile

    with UndoFile(file) as saved, open_devices(devices or saved.paths, writable=not dry_run) as whole:
        opened = saved.views(whole)
        saved.check(opened, force=force)
        print(f"{'would undo' if dry_run else 'undoing'}: {saved.title}")
        for step in saved.steps(opened):
            if dry_run:
                print(f"  {opened[step.device].path}: {step.describe()}")
            else:
                apply_step(opened, step)
    return 0
