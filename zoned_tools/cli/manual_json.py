"""``zoned-json(5)``, generated from the JSON Schemas that are shipped and from what the commands say they print."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol, cast

from zoned_tools.cli.documents import schema_of
from zoned_tools.report.schemas import find_schema, schema_names, schema_text
from zoned_tools.text import roff

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME = "zoned-json.5"

_HEAD = r"""
.TH ZONED-JSON 5 "" "zoned_tools" "File Formats Manual"
.SH NAME
zoned\-json \- documents that zoned prints for programs
.SH DESCRIPTION
A command that takes
.B \-\-json
prints exactly one document on standard output, whatever happens: an object whose first key
.B schema
is its name and the number of its shape. A command that comes to no result prints the envelope alone. Sizes and places
are integers in the unit that the key names; other words are those of the text output. Things are in the order given on
the command line. A key is never taken away or given another meaning under the same number.
.B zoned schema
.I NAME
prints the JSON Schema of a document.
.SS The envelope
Every document ends with these keys.
.TP
\fBexit_status\fR (integer or null)
What the shell is told; null while a server runs.
.TP
\fBerrors\fR (list of objects)
A line of standard error each.
.RS
.TP
\fBid\fR (string)
The kind:
.B usage
(the command line),
.B device
(it cannot be opened, read or written),
.B busy
(somebody uses it),
.B sidecar
(the zone table beside an image),
.B geometry
(the drive cannot carry the layout),
.B content
(there is something already),
.B metadata
(none that can be used),
.B refused
(it would lose data, and was not asked for),
.B layout
(a fault of an installed layout),
.B memory
or
.B internal
(a bug).
.TP
\fBmessage\fR (string)
.TP
\fBdevice\fR (string or null)
.TP
\fBhint\fR (string or null)
What to do.
.TP
\fBerrno\fR (integer or null)
The operating system's number.
.RE
.SS Lines
.B zoned report \-\-format jsonl
prints an object a line, each a zone as in
.B zoned.report
with its
.BR device .
.B zoned check \-\-jsonl
prints
.B zoned.check.line
for each target as soon as it is done.
""".strip()

_TAIL = r"""
.SH EXAMPLES
.nf
zoned check \-\-json /dev/sda /dev/sdb | jq \-r \(aq.devices[] | select(.verdict == "errors") | .devices[0]\(aq
zoned report \-\-json drive.img | jq \(aq[.drives[].zones[] | select(.condition == "full")] | length\(aq
zoned probe \-\-json none.img | jq \-r \(aq.errors[].message\(aq
.fi
.SH SEE ALSO
.BR zoned (8),
.BR zoned\-schema (8),
.BR zoned\-check (8)
""".strip()


class _Group(Protocol):
    def list_commands(self, ctx: object) -> list[str]: ...

    def get_command(self, ctx: object, cmd_name: str) -> object: ...


def _printed_by(group: _Group, name: str) -> Iterator[tuple[str, str]]:
    """``(schema name, command)`` of a group and everything below."""
    for word in group.list_commands(None):
        command = group.get_command(None, word)
        words = f"{name} {word}"
        if hasattr(command, "list_commands"):
            yield from _printed_by(cast("_Group", command), words)
        elif schema_of(command):
            yield find_schema(schema_of(command), schema_names()) or "", words


def json_page(commands: _Group) -> str:
    """The whole page.

    Args:
        commands: the click group of ``zoned``.
    """
    printed: dict[str, list[str]] = defaultdict(list)
    for schema, words in _printed_by(commands, "zoned"):
        printed[schema].append(words)
    lines = [_HEAD, ".SH DOCUMENTS"]
    for name in schema_names():
        lines += _Page(json.loads(schema_text(name))).lines(name, printed[name])
    return "\n".join([*lines, _TAIL, ""])


class _Page:
    """The part of one schema."""

    def __init__(self, schema: Mapping[str, object]) -> None:
        self._schema = schema
        self._parts = cast("Mapping[str, Mapping[str, object]]", schema["$defs"])

    def lines(self, name: str, commands: Sequence[str]) -> Iterator[str]:
        yield f".SS {roff(name)}"
        if commands:
            yield f"Printed by {roff(', '.join(commands))}."
        forms = cast("Sequence[Mapping[str, object]]", self._schema.get("anyOf"))
        for form in forms[:-1] if forms else [self._schema]:  # the last one is the envelope alone
            body = self._resolve(form)
            about = str(body["description"]).removeprefix(name).lstrip(".;: ")
            if about:
                yield ".P"
                yield roff(about[:1].upper() + about[1:])
            yield from self._keys(body, ())

    def _resolve(self, schema: Mapping[str, object]) -> Mapping[str, object]:
        reference = schema.get("$ref")
        return schema if reference is None else self._parts[str(reference).rpartition("/")[2]]

    def _keys(self, body: Mapping[str, object], above: tuple[str, ...]) -> Iterator[str]:
        """Each key with its type, and the keys of the objects in it."""
        for key, kind in cast("Mapping[str, Mapping[str, object]]", body["properties"]).items():
            if not above and key in ("schema", "exit_status", "errors"):
                continue
            words, part = self._type(kind)
            yield ".TP"
            yield f"\\fB{roff(key)}\\fR ({roff(words)})"
            if not part or part in above:
                continue
            found = self._parts[part]
            yield roff(str(found["description"]))
            yield ".RS"
            yield from self._keys(found, (*above, part))
            yield ".RE"

    def _type(self, schema: Mapping[str, object]) -> tuple[str, str]:
        """A type in words, and the name of the object that is in it."""
        if "$ref" in schema:
            return "object", str(schema["$ref"]).rpartition("/")[2]
        if "anyOf" in schema:
            kinds = [self._type(one) for one in cast("Sequence[Mapping[str, object]]", schema["anyOf"])]
            return " or ".join(words for words, _ in kinds), next((part for _, part in kinds if part), "")
        if "const" in schema or "enum" in schema:
            values = cast("Sequence[object]", schema.get("enum") or [schema["const"]])
            return " or ".join(json.dumps(value) for value in values), ""
        match schema.get("type"):
            case "array":
                words, part = self._type(cast("Mapping[str, object]", schema["items"]))
                return f"list of {'lists' if words.startswith('list') else _plural(words)}", part
            case "object":
                words, part = self._type(cast("Mapping[str, object]", schema.get("additionalProperties") or {}))
                return f"object of {_plural(words)} by name", part
            case None:
                return "anything", ""
            case other:
                return str(other), ""


def _plural(words: str) -> str:
    return " or ".join(w if w in ("null", "anything") or w.startswith('"') else f"{w}s" for w in words.split(" or "))
