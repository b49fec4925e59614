"""``leeward up`` where the engine runs already: what of the inventory its workers do not know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.exits import Exit
from console.main import app
from workers.embedded import keep_inventory
from workers.engine_file import Engine, this_process, write_engine
from workers.settings import load_settings

pytestmark = pytest.mark.unit

TO_DO = (
    "to take it over: leeward down, then leeward up (machines run on, replication goes on after that); settings of a "
    "protected machine besides: leeward protect MACHINE"
)


@pytest.fixture(autouse=True)
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that loaded the lab's inventory."""
    monkeypatch.chdir(tmp_path)
    for variable in ("LEEWARD_VAULT", "LEEWARD_DATA", "LEEWARD_TIME_SCALE"):
        monkeypatch.delenv(variable, raising=False)
    assert leeward("init", "--lab").exit_code == Exit.OK
    settings = load_settings()
    settings.data.mkdir()
    keep_inventory(settings)
    write_engine(settings.engine_file, Engine("127.0.0.1:7", "ui", "default", this_process(), True, 1.0, {}))


def leeward(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def change(before: str, after: str) -> None:
    file = Path("leeward.yaml")
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_nothing_is_said_of_an_inventory_that_is_the_same() -> None:
    change("version: 1", "version: 1  # a comment is no difference")
    told = leeward("up")
    assert (told.exit_code, told.stderr) == (Exit.OK, "")


def test_the_copy_is_read_by_nobody_who_may_not_read_the_inventory() -> None:
    settings = load_settings()
    settings.vault.chmod(0o640)
    keep_inventory(settings)
    assert settings.loaded_inventory.stat().st_mode & 0o777 == 0o640


def test_what_the_workers_do_not_know_is_said_with_what_to_do() -> None:
    change("payment-db", "orders-db")
    told = leeward("up")
    assert told.exit_code == Exit.OK
    assert told.stdout.startswith("leeward runs.")
    assert told.stderr.startswith("warning: the workers run with an earlier leeward.yaml: ")
    assert "machine 'orders-db' is new" in told.stderr
    assert "machine 'payment-db' is gone" in told.stderr
    assert told.stderr.endswith(f" — {TO_DO}\n")
    assert told.stderr.count("\n") == 1

    changes = json.loads(leeward("up", "--json").stdout)["inventory_changes"]
    assert "machine 'orders-db' is new" in changes


def test_mistakes_in_the_file_are_told_though_the_engine_runs() -> None:
    change("policies:", "polices:")
    told = leeward("up")
    assert told.stdout.startswith("leeward runs.")
    assert told.exit_code == Exit.BAD_INPUT
    assert "polices" in told.stderr


def test_an_engine_that_kept_no_inventory_is_as_good_as_before() -> None:
    load_settings().loaded_inventory.unlink()
    change("payment-db", "orders-db")
    assert leeward("up").stderr == ""
