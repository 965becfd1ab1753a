"""Layouts whose devices are exported and served one by one, each as a regular device."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from zoned_tools.engine.export import ExportResult, LostRange, export_volume
from zoned_tools.engine.losses import KnownLosses, find_losses, refuse_losses
from zoned_tools.engine.output import open_output
from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import Journey, need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from zoned_tools.formats.contract import Mapper, Target
    from zoned_tools.formats.shared.losses import Loss
    from zoned_tools.formats.shared.views import DeviceView


def has_views(target: Target) -> bool:
    """Whether the target's devices are exported and served one by one."""
    return registry.of(target).open_views is not None


def open_views(target: Target, settings: Mapping[str, str]) -> Sequence[DeviceView]:
    """The views of a target's devices.

    Raises:
        UsageError: the layout has none, or does not know a setting.
        ZonedError: what the layout raises.
    """
    layout = registry.of(target)
    room = need(layout.open_views, target, "show device by device")
    return room(target, layout.parse_settings(settings, Journey.LOGICAL))


@contextmanager
def opened_views(target: Target, settings: Mapping[str, str]) -> Iterator[Sequence[DeviceView]]:
    """The same, closed at the end."""
    with ExitStack() as stack:
        views = open_views(target, settings)
        for view in views:
            stack.callback(view.mapper.close)
        yield views


def place_text(view: DeviceView, row: Loss) -> str:
    """:func:`place_words` of a loss."""
    places = (place for _, _, place in view.parts_of(row.offset_bytes, row.length_bytes))
    return place_words(next((place for place in places if place is not None), {}))


def place_words(place: Mapping[str, int | None]) -> str:
    """``, device 1, zone 4, block group 16777216``: as far as it is known."""
    spoken = {key: "device" if key == "devid" else key.replace("_", " ") for key in place}
    return "".join(f", {spoken[key]} {number}" for key, number in place.items() if number is not None)


def known_losses(target: Target, view: DeviceView) -> KnownLosses:
    """What is known to be unreadable of a view, beside what is gone."""
    return KnownLosses(target, find_losses(target, view.mapper))


def export_views(
    target: Target,
    path: str,
    settings: Mapping[str, str],
    *,
    force: bool = False,
    skip_errors: bool = False,
    opened: Callable[[Mapper], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> ExportResult:
    """Write every device to a file of its own: ``path`` itself for one, files in the directory ``path`` for several.

    Args:
        force: overwrite files that exist.
        opened: shown each mapper before it is copied.

    Raises:
        UsageError: several devices are to go to standard output.
        ZonedError: a block cannot be read (unless ``skip_errors``), or an output not be written.
    """
    with opened_views(target, settings) as views:
        known = [known_losses(target, view) for view in views]
        rows = [row for one in known for row in one.rows]
        if rows and not skip_errors:
            refuse_losses(target, rows)
        outputs = output_names(path, [view.name for view in views])
        done = ExportResult(0, output=path, generation=views[0].generation)
        with _directory(path, make=len(views) > 1):
            for view, output, losses in zip(views, outputs, known, strict=True):
                opened(view.mapper)
                with open_output(output, target.paths, force=force) as out:
                    result = export_volume(view.mapper, out, skip_errors=skip_errors, progress=progress, known=losses)
                result.lost = list(_placed(view, result.lost))
                result.output, result.generation = output, view.generation
                _add(done, result)
        return done


def _add(done: ExportResult, device: ExportResult) -> None:
    done.devices.append(device)
    done.size_bytes += device.size_bytes
    done.data_bytes += device.data_bytes
    done.lost += device.lost


def output_names(path: str, names: Sequence[str]) -> list[str]:
    """The file of each view: ``path`` for one, ``devid-1.img`` and so on below it for several.

    Raises:
        UsageError: several cannot go to standard output.
    """
    if len(names) == 1:
        return [path]
    if path == "-":
        raise UsageError(f"{len(names)} devices cannot share standard output", hint="-o DIRECTORY")
    return [os.path.join(path, f"{name}.img") for name in names]


@contextmanager
def _directory(path: str, *, make: bool) -> Iterator[None]:
    """The directory of several files; one that was made is removed when the export fails and nothing is in it."""
    made = False
    if make:
        try:
            os.mkdir(path)
            made = True
        except FileExistsError:
            if not os.path.isdir(path):
                raise DeviceError("is no directory", device=path) from None
        except (OSError, ValueError) as error:
            reason = error if isinstance(error, OSError) else OSError(0, str(error))
            raise DeviceError.from_os_error(reason, path, "cannot create") from None
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):  # a device that was exported stays
                os.rmdir(path)
        raise


def _placed(view: DeviceView, lost: Sequence[LostRange]) -> Iterator[LostRange]:
    """What was lost, zone by zone, with what is gone; without what is nobody's."""
    gone = [LostRange(row.offset_bytes, row.length_bytes, row.reason, row.status) for row in view.gone]
    for row in sorted([*lost, *gone], key=lambda one: one.offset_bytes):
        for offset, length, place in view.parts_of(row.offset_bytes, row.length_bytes):
            if place is not None:
                yield LostRange(offset, length, row.reason, row.status, place)
