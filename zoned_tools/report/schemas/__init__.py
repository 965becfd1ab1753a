"""JSON Schemas of the documents that programs read, as they are shipped: a file for each schema name.

``python -m zoned_tools.report.schemas DIRECTORY`` makes the files from the typed definitions
(:mod:`~zoned_tools.report.schemas.generator`); a test keeps them equal. Reading them needs none of that.
"""

from __future__ import annotations

import re
from pathlib import Path

_DIRECTORY = Path(__file__).parent
_FILE = re.compile(r"(?P<name>[a-z.-]+)-(?P<number>[0-9]+)\.json")


def file_name(name: str) -> str:
    """``check-1.json`` of ``zoned.check/1``."""
    return name.removeprefix("zoned.").replace("/", "-") + ".json"


def schema_names() -> list[str]:
    """Every schema name (``zoned.check/1``) in order; the newest number of a name comes last."""
    found = filter(None, (_FILE.fullmatch(path.name) for path in _DIRECTORY.iterdir()))
    order = sorted((match["name"], int(match["number"])) for match in found)
    return [f"zoned.{name}/{number}" for name, number in order]


def find_schema(words: str, names: list[str]) -> str | None:
    """The one of ``names`` that is meant by ``zoned.check/1``, ``check/1`` or, for the newest number, ``check``."""
    wanted = f"zoned.{words.removeprefix('zoned.')}"
    meant = [name for name in names if wanted in (name, name.rpartition("/")[0])]
    return meant[-1] if meant else None


def schema_text(name: str) -> str:
    """The JSON Schema of a schema name, as text."""
    return (_DIRECTORY / file_name(name)).read_text(encoding="utf-8")
