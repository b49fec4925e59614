"""Where ``leeward schedule set`` lets reports be brought: what cannot work is refused before anything is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.cmd_schedule import _deliveries
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
