"""Just enough SVG for pictures that open anywhere: no script, no style sheet, no font that has to be fetched."""

from __future__ import annotations

from html import escape

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK = "#1d2733"
QUIET = "#5d6b7a"
LINE = "#d9e0e7"
GOOD = "#1b7f4d"
BAD = "#b3261e"
CALM = "#2f6fb2"
AMBER = "#b7791f"
PAPER = "#ffffff"

_WIDTH_OF_A_LETTER = 0.54
"""Of the font's size, on average: nobody can ask a font that only the reader's computer knows."""


def text_width(text: str, size: float) -> float:
    """About how wide ``text`` is; wide scripts (CJK) count double."""
    letters = sum(2 if ord(letter) > 0x2E7F else 1 for letter in text)
    return letters * size * _WIDTH_OF_A_LETTER


def fitted(text: str, width: float, size: float) -> str:
    """``text``, its end replaced by an ellipsis when it is wider than ``width``."""
    if text_width(text, size) <= width:
        return text
    shorter = text
    while shorter and text_width(shorter + "…", size) > width:
        shorter = shorter[:-1]
    return shorter.rstrip() + "…"


def wrapped(text: str, width: float, size: float, lines: int) -> list[str]:
    """``text`` in at most so many lines, broken between words; the last one shortened when it does not fit."""
    found: list[str] = []
    words = text.split()
    while words and len(found) < lines - 1:
        count = len(words)
        while count > 1 and text_width(" ".join(words[:count]), size) > width:
            count -= 1
        found.append(fitted(" ".join(words[:count]), width, size))
        words = words[count:]
    return [*found, fitted(" ".join(words), width, size)] if words else found


def printable(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(letter if _is_xml(ord(letter)) else "\ufffd" for letter in text)


def _is_xml(code: int) -> bool:
    return code in (0x9, 0xA, 0xD) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code > 0xFFFF


class Drawing:
    """Collects shapes; :meth:`svg` is the picture. Coordinates are pixels from the top left corner."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "none",
        stroke: str | None = None,
        radius: float = 0,
        hint: str = "",
        dash: str = "",
    ) -> None:
        """``hint`` is what a viewer shows when the pointer rests on the shape."""
        border = f' stroke="{stroke}"' if stroke else ""
        border += f' stroke-dasharray="{dash}"' if dash else ""
        body = f"><title>{_escaped(hint)}</title></rect>" if hint else "/>"
        self._parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="{_n(radius)}"'
            f' fill="{fill}"{border}{body}'
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, stroke: str = LINE, width: float = 1, dash: str = ""
    ) -> None:
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" stroke="{stroke}"'
            f' stroke-width="{_n(width)}"{dashed}/>'
        )

    def path(
        self, commands: str, *, stroke: str = QUIET, fill: str = "none", width: float = 1.2, dash: str = ""
    ) -> None:
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(f'<path d="{commands}" stroke="{stroke}" fill="{fill}" stroke-width="{_n(width)}"{dashed}/>')

    def circle(self, x: float, y: float, radius: float, *, fill: str, hint: str = "") -> None:
        body = f"><title>{_escaped(hint)}</title></circle>" if hint else "/>"
        self._parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{fill}"{body}')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        fill: str = INK,
        bold: bool = False,
        anchor: str = "start",
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        place = f' text-anchor="{anchor}"' if anchor != "start" else ""
        self._parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{fill}"{weight}{place}>{_escaped(text)}</text>'
        )

    def svg(self, width: float, height: float) -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}"'
            f' height="{_n(height)}" role="img" font-family="{FONT}">\n<title>{_escaped(self._title)}</title>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _escaped(text: str) -> str:
    return escape(printable(text))
