"""Reading documents that anybody may have written: every access says what it expects.

All complaints are one :class:`~zoned_tools.errors.MetadataError` that names the place.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from zoned_tools.errors import MetadataError

MAX_ITEMS = 1 << 26
"""Items of a list in a document, unless a caller knows better."""


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """A JSON object inside an untrusted document.

    Attributes:
        path: device or file that complaints name.
        place: where the object is (``sets[1].chunks``).
    """

    values: Mapping[str, object]
    path: str = ""
    place: str = ""

    @classmethod
    def of(cls, value: object, path: str = "", place: str = "") -> DocumentPart:
        """The object ``value``.

        Raises:
            MetadataError: it is none.
        """
        if not isinstance(value, Mapping):
            raise MetadataError(f"{place or 'the document'} is not an object", device=path)
        return cls(value, path, place)

    def damaged(self, name: str, expected: str) -> MetadataError:
        """The complaint about a value."""
        where = f"{self.place}.{name}" if self.place else name
        return MetadataError(f"damaged document: {where} is not {expected}", device=self.path)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def number(self, name: str, limit: int, minimum: int = 0) -> int:
        """A whole number from ``minimum`` to below ``limit``."""
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value < limit:
            raise self.damaged(name, f"a number from {minimum} to {limit - 1}")
        return value

    def flag(self, name: str) -> bool:
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise self.damaged(name, "true or false")
        return value

    def text(self, name: str, max_bytes: int = 1 << 16) -> str:
        """A string of at most ``max_bytes`` as UTF-8 (surrogates stand for the bytes that they escape)."""
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) > max_bytes:
            raise self.damaged(name, f"a text of at most {max_bytes} bytes")
        try:
            size = len(value.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            raise self.damaged(name, "a text") from None
        if size > max_bytes:
            raise self.damaged(name, f"a text of at most {max_bytes} bytes")
        return value

    def hex_bytes(self, name: str, length: int) -> bytes:
        """``length`` bytes as hexadecimal digits."""
        value = self.text(name, 2 * length)
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raw = b""
        if len(raw) != length:
            raise self.damaged(name, f"{length} bytes in hexadecimal")
        return raw

    def uuid(self, name: str) -> uuid.UUID:
        value = self.text(name, 64)
        try:
            return uuid.UUID(value)
        except ValueError:
            raise self.damaged(name, "a UUID") from None

    def part(self, name: str) -> DocumentPart:
        """An object inside this one."""
        value = self.values.get(name)
        if not isinstance(value, Mapping):
            raise self.damaged(name, "an object")
        return DocumentPart(value, self.path, f"{self.place}.{name}" if self.place else name)

    def items(self, name: str, limit: int = MAX_ITEMS) -> list[object]:
        """A list of at most ``limit`` items."""
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > limit:
            raise self.damaged(name, f"a list of at most {limit} items")
        return value

    def parts(self, name: str, limit: int = MAX_ITEMS) -> Iterator[DocumentPart]:
        """The objects of a list."""
        base = f"{self.place}.{name}" if self.place else name
        for number, value in enumerate(self.items(name, limit)):
            yield DocumentPart.of(value, self.path, f"{base}[{number}]")

    def numbers(self, name: str, limit: int, count: int | None = None, most: int = MAX_ITEMS) -> list[int]:
        """A list of whole numbers from 0 to below ``limit``, ``count`` of them if given."""
        values = self.items(name, most)
        if count is not None and len(values) != count:
            raise self.damaged(name, f"a list of {count} numbers")
        if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < limit for v in values):
            raise self.damaged(name, f"a list of numbers from 0 to {limit - 1}")
        return [v for v in values if isinstance(v, int)]

    def require_version(self, key: str, version: int) -> None:
        """Refuse a document of another version."""
        if self.values.get(key) != version:
            raise MetadataError(f"not a document of version {version}", device=self.path)
