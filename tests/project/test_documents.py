"""Every document that programs read has its name in one place, and a typed definition beside it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, is_typeddict

import pytest

import zoned_tools
from zoned_tools.report import documents

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(zoned_tools.__file__).parent
SCHEMA = re.compile(r"zoned\.[a-z][a-z.-]*/[0-9]+")

FILES = {
    "zoned.dump/1": ["engine/documents.py"],
    "zoned.undo/1": ["device/undo_format.py", "report/documents/undo.py"],
    "zoned.undo/2": ["device/undo_format.py"],
}
"""What lower floors store and read back: their names stand where they are read.

Undo files of the first version are called as the document of ``zoned undo`` is.
"""


def _docstrings(tree: ast.Module) -> set[int]:
    """Strings that are statements by themselves: docstrings, and what stands below constants."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _names(path: Path) -> Iterator[str]:
    """Schema names in the string literals of a file, pieces of f-strings included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield from SCHEMA.findall(node.value)


@pytest.fixture(scope="module")
def places() -> dict[str, list[str]]:
    """Schema name to the files in which it stands, once for each time."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in _names(path):
            found[name].append(path.relative_to(PACKAGE).as_posix())
    return found


def _is_document(files: list[str]) -> bool:
    return len(files) == 1 and files[0].startswith("report/documents/")


def test_each_schema_name_is_written_once_and_in_report(places: dict[str, list[str]]) -> None:
    wrong = {
        name: files
        for name, files in places.items()
        if FILES.get(name, files) != files or (name not in FILES and not _is_document(files))
    }
    assert not wrong
    assert len(places) > 30
    assert places.keys() >= FILES.keys()


def _definitions() -> Iterator[tuple[str, str]]:
    """``(module, docstring)`` of every typed definition below ``report.documents``."""
    for info in pkgutil.iter_modules(documents.__path__):
        module = importlib.import_module(f"{documents.__name__}.{info.name}")
        for thing in vars(module).values():
            if is_typeddict(thing):
                yield info.name, thing.__doc__ or ""


def test_each_document_has_a_typed_definition(places: dict[str, list[str]]) -> None:
    """A definition names its schema in its docstring, in the module that makes the document."""
    defined = {name for _, text in _definitions() for name in SCHEMA.findall(text)}
    free_of_form = {"zoned.inspect/1"}  # the layout's own tree
    assert places.keys() - {"zoned.undo/2"} - free_of_form <= defined
