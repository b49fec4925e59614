"""Commands that are started without one of the standard streams, as some schedulers do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from console.exits import Exit

pytestmark = pytest.mark.unit

CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-"}


def leeward(folder: Path, words: str, *closed: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path))}
    script = f"exec '{sys.executable}' -m console {words} {' '.join(CLOSED[name] for name in closed)}"
    return subprocess.run(
        ["sh", "-c", script], check=False, cwd=folder, env=kept, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    assert leeward(folder, "init --lab").returncode == Exit.OK
    return folder


def test_a_question_without_an_input_is_a_refusal(lab: Path) -> None:
    """It was a traceback, as was the question whether a terminal is there before a failover."""
    asked = leeward(lab, "disable web", "stdin")
    assert asked.returncode == Exit.REFUSED
    assert asked.stderr.endswith("nobody answered the question; nothing was changed — say yes beforehand with --yes\n")
    failover = leeward(lab, "plan failover payments --planned --without web", "stdin")
    assert failover.returncode == Exit.BAD_INPUT
    assert "a note is required" in failover.stderr


@pytest.mark.parametrize("closed", [("stdout",), ("stdin", "stdout", "stderr")])
def test_what_nobody_reads_is_no_trouble(lab: Path, closed: tuple[str, ...]) -> None:
    told = leeward(lab, "vault check", *closed)
    assert told.returncode == Exit.OK, told.stderr
    assert "Traceback" not in told.stderr
