"""``leeward seed export|import`` at the command line, without Temporal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab_support import AWAY, HOME, lab_machine, make_inventory
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from adapters.lab.hypervisor import LabHypervisor
from console.main import app

pytestmark = pytest.mark.contract


class Console:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        inventory = make_inventory({"db": lab_machine(), "web": lab_machine()})
        self.home = LabHypervisor(folder / "data" / "lab", HOME, inventory)
        self.away = LabHypervisor(folder / "data" / "lab", AWAY, inventory)
        for machine in inventory.machines:
            self.home.define(machine)
        with (folder / "leeward.yaml").open("w") as file:
            YAML().dump(inventory.model_dump(mode="json", exclude_none=True), file)

    def run(self, *words: str) -> Result:
        where = ["--vault", str(self.folder / "leeward.yaml"), "--data", str(self.folder / "data")]
        return CliRunner().invoke(app, [*words, *where])

    def json(self, *words: str) -> dict[str, Any]:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        return document


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path)


def test_export_and_import_tell_what_they_do_and_what_comes_next(console: Console) -> None:
    medium = str(console.folder / "medium")
    exported = console.run("seed", "export", "db", "--to", medium)
    assert exported.exit_code == 0, exported.output
    assert "db: exporting system of db, 0% of 18.0 MiB" in exported.stdout
    assert f"carry it to {AWAY}, then there: leeward seed import db --from FOLDER" in exported.stdout
    imported = console.run("seed", "import", "db", "--from", medium)
    assert imported.exit_code == 0, imported.output
    assert "db: verified and imported; recovery point rp-000001-" in imported.stdout
    (point,) = console.away.replica_store("db").state().points
    assert point.id in imported.stdout
    assert console.json("seed", "import", "db", "--from", medium)["id"] == point.id


def test_what_goes_wrong_has_its_exit_code_and_its_remedy(console: Console) -> None:
    medium = console.folder / "medium"
    for words, code, text in [
        (["seed", "export", "nobody", "--to", str(medium)], 3, "known machines: db, web"),
        (["seed", "import", "db", "--from", str(medium)], 3, "there is no seed here"),
    ]:
        result = console.run(*words)
        assert (result.exit_code, text in result.stderr) == (code, True), result.output
    console.json("seed", "export", "db", "--to", str(medium))
    wrong = console.run("seed", "import", "web", "--from", str(medium))
    assert (wrong.exit_code, "the seed of 'db', not of 'web'" in wrong.stderr) == (2, True)
    foreign = console.run("seed", "export", "web", "--to", str(medium))
    assert (foreign.exit_code, "nothing was written" in foreign.stderr) == (2, True)
    part = next(medium.rglob("*.seg"))
    part.write_bytes(part.read_bytes()[:-1])
    damaged = console.run("seed", "import", "db", "--from", str(medium))
    assert (damaged.exit_code, str(part) in damaged.stderr) == (1, True)
    assert "export it again" in damaged.stderr
    assert not console.away.replica_store("db").exists()
