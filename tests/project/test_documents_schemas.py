"""The JSON Schemas that are shipped are those of the typed definitions, and ``zoned schema`` prints them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import pytest
from jsonschema import Draft202012Validator

from tests.programs import Program
from zoned_tools.report import schemas
from zoned_tools.report.documents import layout_adds_keys
from zoned_tools.report.schemas import __main__ as writer
from zoned_tools.report.schemas import generator

DIRECTORY = Path(schemas.__file__).parent


def test_files_are_current() -> None:
    """Regenerate with: python -m zoned_tools.report.schemas zoned_tools/report/schemas"""
    assert {path.name: path.read_text() for path in DIRECTORY.glob("*.json")} == generator.files()


def test_the_writer_removes_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone-1.json").write_text("{}")
    writer.main(str(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == generator.files()


@pytest.mark.parametrize("name", schemas.schema_names())
def test_a_schema_is_one(name: str) -> None:
    schema = json.loads(schemas.schema_text(name))
    Draft202012Validator.check_schema(schema)
    assert schema["title"] == name
    forms = (
        {"whole": schema} if "anyOf" not in schema else {f"form {n}": form for n, form in enumerate(schema["anyOf"])}
    )
    closed = {key: part.get("additionalProperties", False) for key, part in {**schema["$defs"], **forms}.items()}
    open_ones = {key for key, value in closed.items() if value is not False}
    completed = {"zoned.inspect/1": "form 0", "zoned.dump/1": "DumpFile", "zoned.map/1": "OwnerRow"}
    assert open_ones == ({completed[name]} if name in completed else set())


class _Inner(TypedDict, total=False):
    number: int


class _Outer(_Inner):
    """``A`` thing."""

    schema: Literal["zoned.test/1"]
    either: list[str | None]
    table: dict[str, float]
    inner: _Inner
    anything: object


@layout_adds_keys
class _Open(TypedDict):
    words: Literal["a", "b"]


class _Recursive(TypedDict):
    below: list[_Recursive]


def _schema(kind: type) -> dict[str, object]:
    parts = generator.Parts()
    top = generator._schema_of(kind, parts)
    return {**top, "$defs": parts}


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        (
            _Outer,
            {"schema": "zoned.test/1", "either": ["a", None], "table": {"x": 1.5}, "inner": {}, "anything": []},
            True,
        ),
        (_Outer, {"schema": "zoned.test/2", "either": [], "table": {}, "inner": {}, "anything": 1}, False),
        (_Outer, {"schema": "zoned.test/1", "either": [1], "table": {}, "inner": {}, "anything": 1}, False),
        (_Outer, {"schema": "zoned.test/1", "either": [], "table": {"x": "y"}, "inner": {}, "anything": 1}, False),
        (_Outer, {"schema": "zoned.test/1", "either": [], "table": {}, "inner": {"more": 1}, "anything": 1}, False),
        (_Outer, {"schema": "zoned.test/1", "either": [], "table": {}, "inner": {}}, False),
        (_Inner, {}, True),
        (_Inner, {"number": 1}, True),
        (_Inner, {"number": True}, False),
        (_Inner, {"other": 1}, False),
        (_Open, {"words": "a", "more": 1}, True),
        (_Open, {"words": "c"}, False),
        (_Recursive, {"below": [{"below": []}]}, True),
        (_Recursive, {"below": [{"beneath": []}]}, False),
    ],
)
def test_what_fits_a_definition(kind: type, value: object, fits: bool) -> None:
    assert Draft202012Validator(_schema(kind)).is_valid(value) == fits


def test_types_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(TypeError, match="no JSON Schema of"):
        _schema(bytes)
    with pytest.raises(TypeError, match="no JSON Schema of"):
        generator._schema_of(dict[int, str], generator.Parts())
    with pytest.raises(TypeError, match="no JSON Schema of"):
        generator._schema_of(Annotated[int, 1], generator.Parts())


def test_two_types_of_one_name_are_refused() -> None:
    """The schema of one would stand for both."""
    one, other = (TypedDict("Row", {"a": kind}) for kind in (int, str))  # type: ignore[operator]
    with pytest.raises(TypeError, match="two types of a document are named Row"):
        generator._schema_of(one | other, generator.Parts())


# -- the command


def test_without_a_name_all_are_listed(zoned: Program) -> None:
    listed = zoned("schema")
    assert (listed.status, listed.err) == (0, "")
    assert listed.out.splitlines() == sorted(generator.definitions(), key=lambda name: name.split("/"))


@pytest.mark.parametrize("name", ["zoned.check/1", "check/1", "zoned.check", "check"])
def test_a_schema_is_printed_by_its_name(zoned: Program, name: str) -> None:
    printed = zoned("schema", name)
    assert (printed.status, printed.err) == (0, "")
    assert printed.out == (DIRECTORY / "check-1.json").read_text()


def test_without_a_number_it_is_the_newest() -> None:
    names = ["zoned.map/9", "zoned.map/10", "zoned.mapper/11"]
    assert schemas.find_schema("map", names) == "zoned.map/10"
    assert schemas.find_schema("map/9", names) == "zoned.map/9"
    assert schemas.find_schema("map/8", names) is None
    assert schemas.find_schema("", names) is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("chek", "possible schemas: zoned.check/1"),
        ("check/7", "possible schemas: zoned.check/1"),
        ("zonefs.ls/", "possible schemas: zoned.zonefs.ls/1"),
        ("../../../etc/passwd", "zoned schema lists them all"),
        ("", "zoned schema lists them all"),
    ],
)
def test_an_unknown_name_is_a_usage_error(zoned: Program, name: str, hint: str) -> None:
    refused = zoned("schema", name)
    assert (refused.status, refused.out) == (16, "")
    assert refused.err.startswith(f"zoned: there is no schema '{name}' (")
    assert hint in refused.err
    assert refused.err.count("\n") == 1
