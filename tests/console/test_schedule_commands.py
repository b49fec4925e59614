"""Where ``leeward schedule set`` lets reports be brought: what cannot work is refused before anything is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.cmd_schedule import _deliveries
from plans.timetables import Calendar, Times
from vault.errors import BadInput

pytestmark = pytest.mark.unit


def test_reports_go_to_a_folder_to_a_webhook_or_to_both() -> None:
    folder, webhook = _deliveries(Path("/evidence"), "https://dr.example.com/reports", "env:HOOK_SECRET")
    assert (folder.where, webhook.where) == ("/evidence", "https://dr.example.com/reports")
    assert webhook.webhook is not None and webhook.webhook.secret == "env:HOOK_SECRET"
    assert _deliveries(None, None, None) == []


@pytest.mark.parametrize(
    ("folder", "webhook", "secret", "where"),
    [
        (Path("evidence"), None, None, "--report-folder"),
        (None, "dr.example.com", None, "--report-webhook"),
        (None, "https://dr.example.com", "hunter2", "--report-webhook"),
        (Path("/evidence"), None, "env:HOOK_SECRET", "--webhook-secret"),
    ],
)
def test_what_cannot_be_delivered_to_is_bad_input(
    folder: Path | None, webhook: str | None, secret: str | None, where: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        _deliveries(folder, webhook, secret)
    assert refusal.value.where == where
    assert "hunter2" not in str(refusal.value)


def when(**parts: str) -> list[Times]:
    return Calendar.model_validate(parts).times()


def test_a_calendar_says_when() -> None:
    every = ([(0, 6)], [(1, 31)], [(1, 12)])
    assert when(at="04:00") == [(4, 0, *every)]
    assert when(at="4:05, 16:30") == [(4, 5, *every), (16, 30, *every)]
    assert when(at="04:00", weekdays="Sunday,tue-thu", days="1-7,15", months="jan,4,Oct-dec") == [
        (4, 0, [(0, 0), (2, 4)], [(1, 7), (15, 15)], [(1, 1), (4, 4), (10, 12)])
    ]


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ({"at": "24:00"}, "--at"),
        ({"at": "four"}, "--at"),
        ({"at": "04:00", "weekdays": "someday"}, "--weekdays"),
        ({"at": "04:00", "weekdays": "fri-mon"}, "--weekdays"),
        ({"at": "04:00", "weekdays": "7"}, "--weekdays"),
        ({"at": "04:00", "days": "0"}, "--days"),
        ({"at": "04:00", "days": "1-"}, "--days"),
        ({"at": "04:00", "months": "13"}, "--months"),
    ],
)
def test_what_is_no_day_and_no_time_is_bad_input(parts: dict[str, str], where: str) -> None:
    with pytest.raises(BadInput) as refusal:
        when(**parts)
    assert refusal.value.where == where
