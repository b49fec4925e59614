"""The page on performance says what was measured, and nothing else."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from bench.measuring import RESULTS, Result
from bench.page import CHART, PAGE, chart, page, what

pytestmark = pytest.mark.unit
ROWS = json.loads(RESULTS.read_text())


def test_page_and_chart_are_made_from_the_results() -> None:
    hint = "run: python -m bench.page"
    assert PAGE.read_text() == page(ROWS), hint
    assert CHART.read_text() == chart(ROWS), hint


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['bench']}/{row['peer']}")
def test_every_row_is_a_ratio_with_words(row: dict[str, object]) -> None:
    assert list(row) == ["bench", "peer", "ours_s", "peer_s", "ratio", "goal", "machine", "date"]
    result = Result(str(row["bench"]), str(row["peer"]), float(str(row["ours_s"])), float(str(row["peer_s"])), None)
    assert float(str(row["ratio"])) == pytest.approx(result.ratio, rel=0.02)
    assert what(str(row["bench"]))


def test_a_missed_goal_is_told() -> None:
    row = {**ROWS[0], "ratio": 0.5, "goal": 2, "ours_s": 2.0, "peer_s": 1.0}
    assert "| 0.5 | 2 | **missed** |" in page([row])
    assert "| 2.5 | 2 | met |" in page([{**row, "ratio": 2.5}])


def test_the_chart_is_a_picture() -> None:
    assert ET.fromstring(chart(ROWS)).tag.endswith("svg")
