"""Writes the JSON Schemas into a directory; development only."""

from __future__ import annotations

import sys
from pathlib import Path

from zoned_tools.report.schemas.generator import files


def main(directory: str) -> None:
    """Write every schema into ``directory``, and remove those whose definition is gone."""
    made = files()
    for path in Path(directory).glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (Path(directory) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
