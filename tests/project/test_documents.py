"""Every document that programs read has its name in one place, and a typed definition beside it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zoned_tools
from zoned_tools.report.schemas import generator

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(zoned_tools.__file__).parent
SCHEMA = re.compile(r"zoned\.[a-z][a-z.-]*/[0-9]+")

FILES = {
    "zoned.dump/1": {"engine/documents.py", "report/documents/targets.py"},
    "zoned.undo/1": {"device/undo_format.py", "report/documents/undo.py"},
    "zoned.undo/2": {"device/undo_format.py"},
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
def places() -> dict[str, set[str]]:
    """Schema name to the files in which it stands."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in _names(path):
            found[name].add(path.relative_to(PACKAGE).as_posix())
    return found


def _is_document(files: set[str]) -> bool:
    return len(files) == 1 and next(iter(files)).startswith("report/documents/")


def test_each_schema_name_stands_in_one_module_of_documents(places: dict[str, set[str]]) -> None:
    wrong = {
        name: files
        for name, files in places.items()
        if FILES.get(name, files) != files or (name not in FILES and not _is_document(files))
    }
    assert not wrong
    assert len(places) > 30
    assert places.keys() >= FILES.keys()


def test_each_document_has_a_typed_definition(places: dict[str, set[str]]) -> None:
    """A definition has its schema's name as the type of its key ``schema``, and leads with it."""
    defined = generator.definitions()
    assert defined.keys() == places.keys() - {"zoned.undo/2"}  # which only undo files carry
    for name, forms in defined.items():
        assert f"``{name}``" in (forms[0].__doc__ or "") or len(forms) > 1
        assert len({form.__name__ for form in forms}) == len(forms)
