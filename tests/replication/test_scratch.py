"""Scratch folders: whoever is killed leaves one, and the next process clears it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from replication.scratch import PREFIX, scratch_folder
from vault.errors import NotFound

pytestmark = pytest.mark.unit

HOLDER = """
import time
from replication.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "segment").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(3600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_the_folder_of_a_killed_process_is_cleared_and_that_of_a_living_one_stays(temporary: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        theirs = Path(holder.stdout.readline().strip())
        with scratch_folder() as mine:
            assert (theirs / "segment").is_file()
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            assert theirs.is_dir()
            with scratch_folder() as another:
                assert {mine, another} == set(temporary.iterdir())
    assert list(temporary.iterdir()) == []


def test_nothing_else_is_touched(temporary: Path) -> None:
    """Neither other programs' folders nor what a link with such a name points to."""
    other = temporary / "leeward-payments"
    other.mkdir()
    kept = other / "kept"
    kept.write_bytes(b"x")
    (temporary / f"{PREFIX}link").symlink_to(other)
    (temporary / f"{PREFIX}file").write_bytes(b"x")
    with scratch_folder() as mine:
        assert mine.stat().st_mode & 0o777 == 0o700
    assert kept.is_file()


def test_a_folder_that_is_taken_for_a_leftover_before_it_is_locked_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tempfile.mkdtemp
    made: list[str] = []

    def swept_at_once(prefix: str) -> str:
        made.append(make(prefix=prefix))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept_at_once)
    with scratch_folder() as mine:
        assert str(mine) == made[1]
        assert mine.is_dir()


def test_a_folder_for_temporary_files_that_is_not_there_is_named(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "lost"))
    with pytest.raises(NotFound) as found, scratch_folder():
        pass
    assert str(temporary / "lost") in found.value.where
