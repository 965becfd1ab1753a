"""Metadata documents on disk: JSON text, or gzip with the names taken out."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from zoned_tools.device.files import new_file, replace_file
from zoned_tools.device.outputs import refuse_drive
from zoned_tools.errors import DeviceError, MetadataError
from zoned_tools.formats import registry

SCHEMA = "zoned.dump/1"
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_BYTES = 4 << 30
_NAME_KEYS = frozenset({"label", "serial", "vendor", "path", "device"})
"""Keys that name people or machines in every layout's document."""


def _hash(text: str) -> str:
    return f"hashed-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def hide_names_in(  # a document's parts are of any type
    value: Any,  # noqa: ANN401
    names: frozenset[str] = _NAME_KEYS,
    key: str = "",
) -> Any:  # noqa: ANN401
    """A copy of a document with what stands under ``names`` (labels, serial numbers, paths) replaced by hashes."""
    if isinstance(value, Mapping):
        return {name: hide_names_in(part, names, name) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [hide_names_in(part, names, "path" if key == "devices" else key) for part in value]
    if isinstance(value, str) and value and key in names:
        return _hash(value)
    return value


def encode_document(document: Mapping[str, object], *, packed: bool, hide_names: bool) -> bytes:
    """The bytes of a document file."""
    shown = _hidden(document) if hide_names else document
    if packed:
        text = json.dumps(shown, separators=(",", ":"), default=str)
        return gzip.compress(text.encode(), 6, mtime=0)
    return (json.dumps(shown, indent=1, default=str) + "\n").encode()


def _hidden(document: Mapping[str, object]) -> Mapping[str, object]:
    private = registry.get(str(document["layout"])).private_keys
    hidden: Mapping[str, object] = {**hide_names_in(document, _NAME_KEYS | private), "names_hidden": True}
    return hidden


def _is_known(layout: object) -> bool:
    return isinstance(layout, str) and (layout in registry.OURS or layout in registry.names())


def write_document(path: str, content: bytes, *, overwrite: bool, sources: Iterable[str] = ()) -> None:
    """Write to a file, which is the old one until it is the whole new one, or to standard output for ``-``.

    What is no regular file (a pipe, ``/dev/null``, a link as ``/dev/stdout``) is written to as it is.

    Args:
        sources: the drives that the document tells of.

    Raises:
        DeviceError: it exists and ``overwrite`` is not set, or cannot be written.
        RefusedError: it is a drive.
    """
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    refuse_drive(path, sources)
    try:
        if not overwrite:
            new_file(path, content)
        elif not os.path.lexists(path) or (os.path.isfile(path) and not os.path.islink(path)):
            replace_file(path, content)
        else:
            with open(path, "wb") as file:
                file.write(content)
    except FileExistsError:
        raise DeviceError("already exists", device=path, hint="use --force to overwrite it") from None
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot write") from None


def read_document(path: str) -> Mapping[str, Any]:
    """Read what :func:`write_document` wrote, plain or packed.

    Raises:
        MetadataError: not a metadata document, or one whose names were hidden.
    """
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(_MAX_BYTES)
        else:
            with open(path, "rb") as file:
                raw = file.read(_MAX_BYTES)
        if raw[:2] == _GZIP_MAGIC:
            raw = gzip.decompress(raw)
        document = json.loads(raw)
    except gzip.BadGzipFile as error:
        raise MetadataError(f"damaged: {error}", device=path) from None
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    except (ValueError, EOFError) as error:
        raise MetadataError(f"not a metadata document: {error}", device=path) from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or not _is_known(document.get("layout")):
        raise MetadataError("not a metadata document of zoned dump", device=path)
    if document.get("names_hidden"):
        raise MetadataError("its names were hidden, it cannot be restored", device=path, hint="dump with --keep-names")
    return document
