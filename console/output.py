"""Everything a command prints goes through here: tables for people, plain lines when piped, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vault.words import counted, seconds, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.tree import Tree

__all__ = ["STYLES", "Output", "counted", "outcome", "seconds", "size"]

PIPED_WIDTH = 1000
COLUMN_GAP = 2
WORDS_OF_A_SENTENCE = 4
"""From so many words on a cell may wrap."""
NARROWEST_SENTENCE = 24
STYLES = {
    "ok": "green",
    "pass": "green",
    "done": "green",
    "completed": "green",
    "running": "cyan",
    "protected": "green",
    "warning": "yellow",
    "warn": "yellow",
    "waiting": "yellow",
    "not known": "yellow",
    "held": "yellow",
    "commit-pending": "yellow",
    "resync-required": "yellow",
    "skipped": "yellow",
    "critical": "bold red",
    "fail": "bold red",
    "failed": "bold red",
    "refused": "bold red",
    "cancelled": "magenta",
    "pending": "dim",
}
"""Colour by what a cell says, so that one word looks the same in every table."""


def outcome(state: str) -> str:
    """How a job, a run or a change ended, in one word for all tables. ``--json`` keeps the word of whoever knows it."""
    return "completed" if state == "done" else state


class Output:
    """Writes one command's results.

    Args:
        as_json: write one JSON document to stdout and nothing else.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    @property
    def console(self) -> Console:
        from rich.console import Console

        return Console(highlight=False, soft_wrap=not sys.stdout.isatty())

    def tree(self, tree: Tree) -> None:
        """A tree in full: without a terminal no line is cut to a width that nobody has."""
        console = self.console
        if not sys.stdout.isatty():
            console.width = PIPED_WIDTH
        console.print(tree)

    @property
    def is_live(self) -> bool:
        return sys.stdout.isatty() and not self.as_json

    def say(self, text: str) -> None:
        """A sentence for people; machines don't get it."""
        if not self.as_json:
            self.console.print(text, markup=False)

    def document(self, value: Any) -> None:
        """The result for machines; people don't get it."""
        if self.as_json:
            print(json.dumps(_plain(value), indent=2))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str = "") -> None:
        """A row each; without rows the sentence ``empty``, when there is one.

        On a terminal sentences wrap within their column; names, ids, times and addresses never do, nor is anything cut:
        somebody copies them. Rows that do not fit then are wrapped by the terminal itself."""
        if self.as_json:
            return
        if empty and not rows:
            self.say(empty)
            return
        console = self.console
        if not console.is_terminal:
            self._plain_table(columns, rows)
            return
        from rich.table import Table
        from rich.text import Text

        texts = [[str(cell) for cell in row] for row in rows]
        table = Table(box=None, header_style="bold", pad_edge=False)
        needed = COLUMN_GAP * (len(columns) - 1)
        for name, cells in zip(columns, zip(*texts, strict=True) if texts else [()] * len(columns), strict=True):
            longest = max(map(len, (name, *cells)))
            wraps = any(cell.count(" ") >= WORDS_OF_A_SENTENCE - 1 for cell in cells)
            narrowest = min(longest, NARROWEST_SENTENCE) if wraps else longest
            table.add_column(name, no_wrap=not wraps, min_width=narrowest, overflow="fold")
            needed += narrowest
        for row in texts:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        _print_without_trailing_spaces(table, console, max(console.width, needed))

    def _plain_table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [[str(cell) for cell in row] for row in (columns, *rows)]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_without_trailing_spaces(table: Table, console: Console, width: int) -> None:
    """Spaces at the end of a line that is longer than the terminal would become empty lines."""
    from rich.segment import Segment, Segments

    for line in console.render_lines(table, console.options.update(width=width), pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        console.print(Segments([*line, Segment.line()]), end="", crop=False, soft_wrap=True)


def _plain(value: Any) -> Any:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
