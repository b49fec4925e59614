"""What an operator reads, and the exit code, when files, folders or ports are not as a command needs them."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from console.exits import Exit, guarded
from console.main import app

pytestmark = pytest.mark.unit


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in ("LEEWARD_VAULT", "LEEWARD_DATA", "LEEWARD_TEMPORAL_PORT", "TEMPORAL_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def lab(here: Path) -> Path:
    assert leeward("init", "--lab").exit_code == Exit.OK
    return here


def leeward(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_without_an_inventory_it_says_where_one_comes_from(here: Path) -> None:
    told = leeward("status")
    assert (told.exit_code, told.stderr) == (
        Exit.REFUSED,
        "error: leeward.yaml: there is no inventory — name it with --vault or LEEWARD_VAULT, or write one: "
        "leeward init --lab\n",
    )


def test_a_folder_that_does_not_exist(lab: Path) -> None:
    told = leeward("plan", "graph", "payments", "--out", "nowhere/payments.svg")
    assert (told.exit_code, told.stderr) == (
        Exit.REFUSED,
        "error: nowhere/payments.svg: there is no such file or folder — check the path\n",
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [("y.png", "a picture is written as SVG, not as '.png' — name it y.svg"), ("y", "a picture is written as SVG — ")],
)
def test_a_picture_of_another_kind(lab: Path, name: str, says: str) -> None:
    """It wrote SVG into a .png, which no program shows."""
    told = leeward("plan", "graph", "payments", "--out", name)
    assert told.exit_code == Exit.BAD_INPUT
    assert told.stderr.startswith(f"error: --out {name}: {says}")
    assert not (lab / name).exists()
    assert leeward("plan", "graph", "payments", "--out", "y.SVG").exit_code == Exit.OK


def test_a_data_directory_that_is_a_file(lab: Path) -> None:
    told = leeward("up", "--data", "leeward.yaml")
    assert told.exit_code == Exit.BAD_INPUT
    assert "leeward.yaml" in told.stderr
    assert "check the path" in told.stderr


def test_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write tells it: without the file's name

    with pytest.raises(typer.Exit) as told:
        guarded(work)
    assert told.value.exit_code == Exit.FAILED
    assert capsys.readouterr().err == (
        "error: No space left on device — free some space, then give the command again\n"
    )


def test_what_is_no_file_is_not_hidden() -> None:
    def work() -> None:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        guarded(work)


def test_a_port_in_use_is_told_by_up_itself(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("LEEWARD_TEMPORAL_PORT", str(port))
        told = leeward("up")
    assert (told.exit_code, told.stderr) == (
        Exit.REFUSED,
        f"error: LEEWARD_TEMPORAL_PORT: port {port} is taken — free it, or name another one\n",
    )


def test_what_is_no_port_is_bad_input(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEEWARD_TEMPORAL_PORT", "http")
    told = leeward("up")
    assert (told.exit_code, told.stderr) == (
        Exit.BAD_INPUT,
        "error: LEEWARD_TEMPORAL_PORT: 'http' is not a port — give a number up to 64535\n",
    )
