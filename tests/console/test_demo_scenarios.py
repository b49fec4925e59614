"""Each scenario of the demo has an inventory that leeward accepts, with the demo's plan unchanged."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.demo.scenarios import SCENARIOS
from console.main import app
from plans.loading import load_plan_source
from simulation.azure import azurite
from vault.errors import NotFound
from vault.loading import load_inventory

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _as_if_azurite_were_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azurite, "require_installed", lambda: "node")


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_inventory_and_the_plan_are_accepted(name: str, tmp_path: Path) -> None:
    scenario, vault = SCENARIOS[name], tmp_path / "leeward.yaml"
    vault.write_text(scenario.inventory(tmp_path))
    plan = tmp_path / "payments.plan.yaml"
    plan.write_text(scenario.plan())
    assert scenario.plan() == SCENARIOS["lab"].plan()
    assert len(load_plan_source(plan, load_inventory(vault)).model.machines) == 4


def test_secrets_are_files_of_their_owner_and_not_in_the_inventory(tmp_path: Path) -> None:
    text = SCENARIOS["hyperv-azure"].inventory(tmp_path)
    account = azurite.Azurite(tmp_path / "azurite")
    assert account.url in text
    assert account.key not in text
    secret = [path for path in tmp_path.rglob("*") if path.is_file() and account.key in path.read_text()]
    assert len(secret) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secret)


def test_what_is_missing_is_said_before_anything_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> str:
        raise NotFound("Azurite is not installed", where="node", remedy="make demo SCENARIO=hyperv-azure")

    monkeypatch.setattr(azurite, "require_installed", missing)
    result = CliRunner().invoke(app, ["demo", "--scenario", "hyperv-azure", "--folder", str(tmp_path / "demo")])
    assert result.exit_code != 0
    assert "Azurite is not installed" in result.output
    assert not (tmp_path / "demo" / "data" / "hyperv").exists()


def test_the_vault_shows_what_each_network_is_at_both_ends(tmp_path: Path) -> None:
    vault = tmp_path / "leeward.yaml"
    vault.write_text(SCENARIOS["hyperv-azure"].inventory(tmp_path))
    result = CliRunner().invoke(app, ["vault", "show", "--vault", str(vault)], env={"COLUMNS": "250"})
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if "azure/production" in line)
    assert "switch 'production'" in line
    assert "subnet 'servers' of virtual network 'recovery-vnet', group 'recovery'" in line
