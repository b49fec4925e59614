from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.exits import Exit
from console.main import app


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's inventory and plans in the working directory, and nothing of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for variable in ("LEEWARD_VAULT", "LEEWARD_DATA", "LEEWARD_TEMPORAL_PORT", "TEMPORAL_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    assert CliRunner().invoke(app, ["init", "--lab"]).exit_code == Exit.OK
