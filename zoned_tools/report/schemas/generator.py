"""JSON Schemas (draft 2020-12) from the typed definitions in :mod:`zoned_tools.report.documents`; development only.

A document is a TypedDict whose key ``schema`` is a Literal. Several with one name are its forms. Objects have no
other keys than those declared, but for those that a layout completes
(:func:`~zoned_tools.report.documents.layout_adds_keys`).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import sys
from collections import defaultdict
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Literal, TypeAlias, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from zoned_tools.report import documents
from zoned_tools.report.documents.envelope import Envelope
from zoned_tools.report.schemas import file_name

Schema: TypeAlias = dict[str, object]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_PLAIN: dict[object, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    NoneType: {"type": "null"},
    object: {},
}


def files() -> dict[str, str]:
    """File name to content of every schema."""
    return {
        file_name(name): json.dumps(_document(name, forms), indent=1) + "\n"
        for name, forms in sorted(definitions().items())
    }


def definitions() -> dict[str, list[type]]:
    """Schema name to the typed definitions of its forms."""
    found: dict[str, list[type]] = defaultdict(list)
    for info in pkgutil.iter_modules(documents.__path__):
        module = importlib.import_module(f"{documents.__name__}.{info.name}")
        for thing in vars(module).values():
            if is_typeddict(thing) and thing.__module__ == module.__name__:
                kind = _hints(thing).get("schema")
                if get_origin(kind) is Literal:
                    found[get_args(kind)[0]].append(thing)
    return found


class Parts(dict[str, Schema]):
    """Schemas of the objects inside a document, by name, each of one type."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, type] = {}

    def claim(self, kind: type) -> None:
        """Take a type's name for it.

        Raises:
            TypeError: another type has it; one of the two schemas would stand for both.
        """
        if self._kinds.setdefault(kind.__name__, kind) is not kind:
            raise TypeError(f"two types of a document are named {kind.__name__}")


def _document(name: str, forms: list[type]) -> Schema:
    """A file as it is; what a command prints has the envelope's keys too, and may be nothing but an envelope."""
    parts = Parts()
    if documents.FILES.issuperset(forms):
        bodies = [_schema_of(form, parts) for form in forms]
    else:
        bodies = [_ended(_object(form, parts), parts) for form in forms]
        bodies.append(_without_result(name, parts))
    head: Schema = {"$schema": DIALECT, "title": name}
    body: Schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
    return {**head, **body, "$defs": dict(sorted(parts.items()))}


def _ended(body: Schema, parts: Parts) -> Schema:
    """An object with the envelope's keys."""
    end = _object(Envelope, parts)
    properties = {**cast("Schema", body["properties"]), **cast("Schema", end["properties"])}
    required = [*cast("list[str]", body["required"]), *cast("list[str]", end["required"])]
    return {**body, "properties": properties, "required": required}


def _without_result(name: str, parts: Parts) -> Schema:
    head: Schema = {
        "type": "object",
        "description": "A command that came to no result.",
        "properties": {"schema": {"const": name}},
        "required": ["schema"],
        "additionalProperties": False,
    }
    return _ended(head, parts)


def _schema_of(kind: object, parts: Parts) -> Schema:
    """The schema of a type; objects go to ``parts``, by name, and are referred to.

    Raises:
        TypeError: JSON has no such type, or nobody needed it so far.
    """
    if kind in _PLAIN:
        return _PLAIN[kind]
    if is_typeddict(kind):
        assert isinstance(kind, type)
        parts.claim(kind)
        if kind.__name__ not in parts:
            parts[kind.__name__] = {}  # in the making
            parts[kind.__name__] = _object(kind, parts)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"type": "string", "enum": [str(member) for member in kind]}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema_of(one, parts) for one in arguments]}
    if origin is list:
        return {"type": "array", "items": _schema_of(arguments[0], parts)}
    if origin in (dict, Mapping) and arguments[0] is str:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], parts)}
    raise TypeError(f"no JSON Schema of {kind}")


def _object(definition: type, parts: Parts) -> Schema:
    hints = _hints(definition)
    required: frozenset[str] = vars(definition)["__required_keys__"]
    return {
        "type": "object",
        "description": _description(definition),
        "properties": {key: _schema_of(kind, parts) for key, kind in hints.items()},
        "required": [key for key in hints if key in required],
        "additionalProperties": definition in documents.COMPLETED_BY_LAYOUTS,
    }


def _description(definition: type) -> str:
    return " ".join(inspect.cleandoc(definition.__doc__ or "").replace("``", "").split())


def _hints(definition: type) -> dict[str, object]:
    """The types of all keys, inherited ones first."""
    references = vars(definition)["__annotations__"].values()
    modules = {getattr(one, "__forward_module__", None) or definition.__module__ for one in references}
    names: dict[str, object] = {}
    for module in modules:
        names |= _names_for_checkers(sys.modules[module])
    return get_type_hints(definition, localns=names)


@cache
def _names_for_checkers(module: ModuleType) -> dict[str, object]:
    """What a module imports under ``if TYPE_CHECKING``: its annotations are read here, as a type checker does."""
    names: dict[str, object] = {}
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for line in (line for block in blocks for line in block.body if isinstance(line, ast.ImportFrom)):
        source = importlib.import_module(str(line.module))
        names |= {alias.asname or alias.name: getattr(source, alias.name) for alias in line.names}
    return names
