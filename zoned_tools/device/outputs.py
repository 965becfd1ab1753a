"""Files that commands write beside their work: never one of the drives."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from zoned_tools.device.sidecar import SIDECAR_SUFFIX
from zoned_tools.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable


def refuse_sources(path: str, sources: Iterable[str], what: str = "is a drive of this command") -> None:
    """Refuse an output file that is one of the drives that are read, or the zone table of one.

    Raises:
        RefusedError: it is.
    """
    for source in sources:
        for name in (source, source + SIDECAR_SUFFIX):
            if os.path.exists(path) and os.path.exists(name) and os.path.samefile(path, name):
                raise RefusedError(what, device=path)


def refuse_drive(path: str, sources: Iterable[str] = ()) -> None:
    """Refuse to write a document over a drive, whatever else was agreed to.

    Args:
        sources: the drives that the document tells of; an image without a zone table is known by being one of them.

    Raises:
        RefusedError: ``path`` is a block device, one of ``sources``, or an image of a zoned drive or its zone table.
    """
    refuse_sources(path, sources)
    real = os.path.realpath(path)
    image = real.removesuffix(SIDECAR_SUFFIX)
    if os.path.exists(real) and stat.S_ISBLK(os.stat(real).st_mode):
        raise RefusedError("is a block device", device=path)
    if image != real and os.path.isfile(real) and os.path.isfile(image):
        raise RefusedError("is the zone table of an image", device=path)
    if os.path.isfile(real) and os.path.isfile(real + SIDECAR_SUFFIX):
        raise RefusedError("is the image of a zoned drive", device=path)
