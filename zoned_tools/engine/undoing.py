"""Play an undo file back: on the devices that the user names, after the whole file was validated against them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.device.opening import open_devices
from zoned_tools.device.plan import apply_step
from zoned_tools.device.undo import UndoFile
from zoned_tools.engine.changing import identity_of
from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Step


@dataclass(frozen=True, slots=True)
class Playback:
    """An undo file that fits the devices it is to be played back on."""

    saved: UndoFile
    devices: Sequence[Device]

    @property
    def title(self) -> str:
        """Of the plan that is undone."""
        return self.saved.title

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """``(device as it was named then, device now)``: what goes where."""
        return list(zip(self.saved.paths, (device.path for device in self.devices), strict=True))

    def steps(self) -> Iterator[Step]:
        """The changes, in order."""
        return self.saved.steps(self.devices)

    def run(self) -> None:
        """Make them.

        Raises:
            DeviceError: one failed; playing back again goes on.
        """
        for step in self.steps():
            apply_step(self.devices, step)


@contextmanager
def opened_playback(path: str, paths: Sequence[str], *, writable: bool, force: bool = False) -> Iterator[Playback]:
    """An undo file and the devices that it is for.

    Args:
        paths: the devices; nothing is written to what merely stands in the file.
        force: accept another identity, another drive as far as every place is on it, and newer content.

    Raises:
        UsageError: no device is named.
        MetadataError: the file is damaged, or no undo file.
        RefusedError: it is of other devices, or something else wrote there since.
    """
    with UndoFile(path) as saved:
        if not paths:
            raise UsageError("no device is named", device=path, hint=f"it was saved from {', '.join(saved.paths)}")
        with open_devices(paths, writable=writable) as whole:
            views = saved.views(whole)
            saved.check(views, force=force, identity=identity_of(views))
            yield Playback(saved, views)
