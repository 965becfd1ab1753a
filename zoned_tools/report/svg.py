"""As much of SVG as the diagrams need."""

from __future__ import annotations

from html import escape

from zoned_tools.text import visible


class Svg:
    """A drawing of rectangles and text; sizes in pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._parts: list[str] = []

    def rectangle(self, x: int, y: int, width: int, height: int, colour: str) -> None:
        self._parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}"/>')

    def text(self, x: int, y: int, content: str) -> None:
        self._parts.append(
            f'<text x="{x}" y="{y}" font-family="sans-serif" font-size="12">{escape(visible(content))}</text>'
        )

    def document(self) -> str:
        width, height = self._size
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        return "\n".join([head, *self._parts, "</svg>", ""])
