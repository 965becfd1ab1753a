"""Zones that no readable metadata name, as files."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.engine.output import open_output
from zoned_tools.errors import DeviceError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import Journey, need

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.engine.output import Output
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.shared.orphans import Orphan

TABLE_NAME = "orphans.json"
_ZERO_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WrittenOrphan:
    """A zone and what was written of it; ``lost_bytes`` could not be read, and are zeroes."""

    orphan: Orphan
    sha256: str
    lost_bytes: int = 0


def export_orphans(
    target: Target, directory: str, settings: Mapping[str, str], *, force: bool = False, skip_errors: bool = False
) -> list[WrittenOrphan]:
    """Write every orphan zone of a target to ``zone-NNNNN.raw`` in a directory, which is made if need be.

    Raises:
        UsageError: the layout has none, or does not know a setting.
        ZonedError: a zone cannot be read, or a file not be written; of that zone no file is left.
    """
    layout = registry.of(target)
    find = need(layout.orphans, target, "export as orphans")
    chosen = layout.parse_settings(settings, Journey.LOGICAL)
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise DeviceError.from_os_error(error, directory, "cannot create") from None
    written = []
    for orphan in find(target, chosen):
        path = os.path.join(directory, f"zone-{orphan.zone:05}.raw")
        with open_output(path, target.paths, force=force) as output:
            copied = _copy(orphan, output)
            if copied.lost_bytes and not skip_errors:
                raise DeviceError(
                    f"{copied.lost_bytes} bytes of zone {orphan.zone} cannot be read",
                    device=target.device.path,
                    errno=errno.EIO,
                    hint="--skip-errors writes the rest",
                )
            written.append(copied)
    return written


def _copy(orphan: Orphan, output: Output) -> WrittenOrphan:
    """Write the content of a zone."""
    digest, zeroes = hashlib.sha256(), bytes(_ZERO_BYTES)
    lost: list[int] = []
    for length, data in orphan.content(lost.append):
        if data is not None:
            output.data(data)
            digest.update(data)
            continue
        output.hole(length)
        for done in range(0, length, _ZERO_BYTES):
            digest.update(zeroes[: length - done])
    return WrittenOrphan(orphan, digest.hexdigest(), sum(lost))
