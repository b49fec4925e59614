"""Tables on a terminal of eighty columns: what somebody has to copy is whole."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence

import pytest

from console.output import Output

pytestmark = pytest.mark.unit

RUN_IDS = ["20260314T020000-ab12", "20260314T020500-cd34"]
FINDING = "the machines run at the recovery site, and replication to the primary site has not begun yet"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Shown = Callable[[Sequence[str], Sequence[Sequence[str]]], list[str]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """The lines of a table on such a terminal."""

    def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        terminal = Terminal()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", terminal)
            patched.setenv("COLUMNS", "80")
            patched.setenv("TERM", "dumb")
            Output().table(columns, rows)
        return terminal.getvalue().splitlines()

    return show


def test_identifiers_and_times_are_neither_cut_nor_broken(shown: Shown) -> None:
    rows = [
        [f"job/payment-app-1/{n}-ReverseReplication", "payment-app-1", run, "2026-03-14 02:00:00Z", "127.0.0.1:40329"]
        for n, run in enumerate(RUN_IDS)
    ]
    lines = shown(["job", "machine", "run", "started", "address"], rows)
    assert [line.split("  ") for line in lines[1:]] == [[cell.strip() for cell in row] for row in rows]


def test_sentences_wrap_within_their_column(shown: Shown) -> None:
    lines = shown(["result", "what", "finding", "to do"], [["fail", "payments", FINDING, "leeward plan failback x"]])
    assert max(map(len, lines)) <= 80
    assert len(lines) > 2
    finding = lines[0].index("finding")
    assert " ".join(line[finding : lines[0].index("to do")].strip() for line in lines[1:]) == FINDING


def test_no_line_ends_in_spaces(shown: Shown) -> None:
    lines = shown(["machine", "now"], [["web", ""], ["payment-db", "waits for a worker at the site"]])
    assert lines == [line.rstrip() for line in lines]


def test_a_table_without_rows_shows_its_columns(shown: Shown) -> None:
    assert shown(["machine", "now"], []) == ["machine  now"]


def test_a_table_without_rows_says_what_to_do_when_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["machine"], [], empty="no machines yet; make them: leeward lab up")
    Output().table(["machine"], [["db"]], empty="no machines yet")
    Output(as_json=True).table(["machine"], [], empty="no machines yet")
    assert capsys.readouterr().out.splitlines() == ["no machines yet; make them: leeward lab up", "machine", "db"]
