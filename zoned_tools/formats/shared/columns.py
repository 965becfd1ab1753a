"""Rows of small values kept as columns, with one sentence for all of them.

A damaged drive has a finding for each of a million chunks. They differ in numbers alone, so the numbers
are kept as numpy columns and the sentence as one template: objects are made when somebody iterates,
and JSON is formatted in C (:func:`json_rows`).
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeAlias, overload

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Column: TypeAlias = npt.NDArray[np.generic] | Sequence[object]
    """Values of one name, one for each row: a 1-D array, or a sequence of small JSON values."""

BATCH_ROWS = 4096
"""Rows that are Python objects at a time."""


@dataclass(frozen=True, slots=True)
class Words:
    """A column of few different texts: ``texts[indexes[row]]``; for words in a sentence."""

    indexes: npt.NDArray[np.integer]
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.indexes)

    def __getitem__(self, part: slice) -> list[str]:
        texts = self.texts
        return [texts[i] for i in self.indexes[part].tolist()]


@dataclass(frozen=True, slots=True)
class Computed(Sequence[object]):
    """A column whose values are made when somebody looks: ``make`` gives those of some rows."""

    length: int
    make: Callable[[range], list[object]]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> object: ...
    @overload
    def __getitem__(self, index: slice) -> list[object]: ...
    def __getitem__(self, index: int | slice) -> object | list[object]:
        rows = range(self.length)[index]
        return self.make(rows) if isinstance(rows, range) else self.make(range(rows, rows + 1))[0]


@dataclass(frozen=True, slots=True)
class Rows:
    """What many rows say, and where.

    Attributes:
        sentence: template with the columns' names in braces (``chunk {chunk}: zone {zone} ...``);
            format specifications are not understood.
        places: columns that are shown as a row's place, all of one length.
        words: further columns, for the sentence alone.
        length: number of rows.
    """

    sentence: str
    places: Mapping[str, Column] = field(default_factory=dict)
    words: Mapping[str, Column | Words] = field(default_factory=dict)
    length: int = 1

    @classmethod
    def single(cls, sentence: str, places: Mapping[str, object] | None = None) -> Rows:
        """One row; ``sentence`` is taken as it is."""
        literal = sentence.replace("{", "{{").replace("}", "}}")
        return cls(literal, {name: (value,) for name, value in (places or {}).items()})

    @classmethod
    def of(cls, sentence: str, places: Mapping[str, Column], words: Mapping[str, Column | Words] | None = None) -> Rows:
        """As many rows as the columns have.

        Raises:
            ValueError: the columns differ in length, or there is none.
        """
        lengths = {len(column) for column in (*places.values(), *(words or {}).values())}
        if len(lengths) != 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        return cls(sentence, places, words or {}, lengths.pop())

    def batches(self, most: int | None = None) -> Iterator[dict[str, list[object]]]:
        """The columns as lists, :data:`BATCH_ROWS` rows at a time; only the first ``most`` rows if given."""
        end = self.length if most is None else min(most, self.length)
        for start in range(0, end, BATCH_ROWS):
            part = slice(start, min(start + BATCH_ROWS, end))
            yield {name: _values(column, part) for name, column in (*self.places.items(), *self.words.items())}

    def items(self, most: int | None = None) -> Iterator[tuple[str, dict[str, object]]]:
        """``(sentence, place)`` of the rows."""
        for batch in self.batches(most):
            for row in range(_row_count(batch, self.length)):
                values = {name: column[row] for name, column in batch.items()}
                yield self.sentence.format_map(values), {name: values[name] for name in self.places}

    def sentences(self, most: int | None = None) -> Iterator[str]:
        """The sentence of each row."""
        return (sentence for sentence, _ in self.items(most))


def _row_count(batch: Mapping[str, Sequence[object]], without_columns: int) -> int:
    return len(next(iter(batch.values()))) if batch else without_columns


def _values(column: Column | Words, part: slice) -> list[object]:
    chosen = column[part]
    return chosen.tolist() if hasattr(chosen, "tolist") else list(chosen)


@cache
def _pieces(sentence: str) -> tuple[tuple[str, str | None], ...]:
    """``(literal text, column name or None)`` parts of a template."""
    return tuple((text, name) for text, name, _, _ in string.Formatter().parse(sentence))


def json_rows(rows: Rows, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    """JSON objects of all rows, joined by commas, a batch at a time.

    Each object has the keys of ``before``, then ``where`` and ``message``, then the keys of ``after``.
    The constant parts and the texts are encoded by the json module, the rest is one ``%`` operation
    for a batch.
    """
    names: list[tuple[str, bool]] = []
    template = _constant(before, opening=True) + '"where": {'
    for number, name in enumerate(rows.places):
        template += (", " if number else "") + _escape(json.dumps(name)) + ": %s"
        names.append((name, False))
    template += '}, "message": "'
    for text, column in _pieces(rows.sentence):
        template += _escape(json.dumps(text)[1:-1])
        if column is not None:
            template += "%s"
            names.append((column, True))
    template += '"' + _constant(after, opening=False) + "}"
    many = ",\n".join([template] * BATCH_ROWS)
    encoded = Rows(rows.sentence, rows.places, {n: _encoded_words(c) for n, c in rows.words.items()}, rows.length)
    for batch in encoded.batches():
        count = _row_count(batch, rows.length)
        columns = [
            batch[name] if isinstance(rows.words.get(name), Words) else _encoded(batch[name], in_text=in_text)
            for name, in_text in names
        ]
        values = tuple(value for row in zip(*columns, strict=True) for value in row)
        yield (many if count == BATCH_ROWS else ",\n".join([template] * count)) % values


def _encoded_words(column: Column | Words) -> Column | Words:
    """Few texts are encoded once, not in every row."""
    return Words(column.indexes, [json.dumps(t)[1:-1] for t in column.texts]) if isinstance(column, Words) else column


def _constant(keys: Mapping[str, object], *, opening: bool) -> str:
    text = _escape(json.dumps(keys, default=str)[1:-1])
    if opening:
        return "{" + text + (", " if text else "")
    return (", " if text else "") + text


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _encoded(values: Sequence[object], *, in_text: bool) -> Sequence[object]:
    """Values for ``%s``: integers print themselves, everything else is encoded."""
    first = values[0] if values else 0
    if type(first) is int and all(type(value) is int for value in values):
        return values
    if in_text:
        return [json.dumps(str(value))[1:-1] for value in values]
    return [json.dumps(value, default=str) for value in values]
