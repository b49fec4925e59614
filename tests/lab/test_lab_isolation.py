"""Networks that tests get for themselves, with real copies on them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from lab_support import AWAY, counted_on, make_inventory, no_beat, no_report, running_lab
from temporalio.testing import ActivityEnvironment

from activities.contracts import EndTest, StartTest
from activities.running import BlockingRunner
from activities.testing import TestingActivities
from adapters.lab.definition import MachineDefinition
from adapters.lab.documents import write_document
from adapters.lab.isolation import FORMAT, VERSION
from adapters.registry import Adapters
from vault.domain import LATEST, NetworkKind
from vault.errors import InvalidState, NotFound

pytestmark = pytest.mark.contract


async def test_two_runs_test_one_machine_at_once_on_networks_of_their_own(tmp_path: Path) -> None:
    inventory = make_inventory()
    adapters, env = Adapters(inventory, tmp_path), ActivityEnvironment()
    relationship = inventory.relationship("db")
    provider = adapters.provider(relationship)
    with running_lab(tmp_path / "lab", inventory) as lab, ThreadPoolExecutor(2) as threads:
        lab.up()
        provider.enable(relationship)
        provider.copy_initial(relationship, no_report)
        testing, away = TestingActivities(adapters, BlockingRunner(threads, asking=counted_on)), lab.site(AWAY)
        for run_id in ("run-1", "run-2"):
            name = f"db-{run_id}"
            made = await env.run(
                testing.start_test, StartTest(relationship=relationship, choice=LATEST, name=name, run_id=run_id)
            )
            assert made.network == f"{relationship.test_network}-{run_id}"
            assert away.network_kind(made.network) == NetworkKind.ISOLATED
            away.start(name)
        for run_id in ("run-1", "run-2"):
            found = away.wait_until_answering(f"db-{run_id}", 20, no_beat).transactions
            assert found is not None and found.damaged == 0

        away.leave_test_networks("run-1", "web-run-1")
        assert away.network_kind(f"{relationship.test_network}-run-1") == NetworkKind.ISOLATED  # it is in use
        await env.run(testing.end_test, EndTest(relationship=relationship, name="db-run-1", run_id="run-1"))
        with pytest.raises(NotFound):
            away.network_kind(f"{relationship.test_network}-run-1")
        assert away.describe("db-run-2").network == f"{relationship.test_network}-run-2"
        await env.run(testing.end_test, EndTest(relationship=relationship, name="db-run-2", run_id="run-2"))
        assert not list(lab.layout.site(AWAY).test_networks.glob("*.json"))
        with pytest.raises(InvalidState, match="is not isolated"):
            away.make_test_network(relationship.target_network, "run-3", "db-run-3")


async def test_a_copy_that_fails_takes_its_network_along_unless_another_one_joined_it(tmp_path: Path) -> None:
    inventory = make_inventory()
    adapters, env = Adapters(inventory, tmp_path), ActivityEnvironment()
    relationship = inventory.relationship("db")
    with running_lab(tmp_path / "lab", inventory) as lab, ThreadPoolExecutor(2) as threads:
        away = lab.site(AWAY)
        testing = TestingActivities(adapters, BlockingRunner(threads, asking=counted_on))
        network = away.make_test_network(relationship.test_network, "run-1", "web-run-1")
        unseeded = StartTest(relationship=relationship, choice=LATEST, name="db-run-1", run_id="run-1")
        with pytest.raises(Exception, match="no replica"):
            await env.run(testing.start_test, unseeded)
        await env.run(testing.end_test, EndTest(relationship=relationship, name="db-run-1", run_id="run-1"))
        assert away.network_kind(network) == NetworkKind.ISOLATED, "web's copy is about to be made on it"
        away.leave_test_networks("run-1", "web-run-1")
        assert not list(lab.layout.site(AWAY).test_networks.glob("*.json"))


def test_networks_of_before_they_named_their_copies_are_kept_for_those_on_them(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab:
        away, file = lab.site(AWAY), lab.layout.site(AWAY).test_network("isolated-run-1")
        file.parent.mkdir(parents=True)
        old = {"name": "isolated-run-1", "like": "isolated", "run": "run-1"}
        write_document(file, FORMAT, VERSION, old)
        lab.up()
        away.define("db")
        definition = MachineDefinition.load(lab.folder(site=AWAY))
        replace(definition, network="isolated-run-1").save(lab.folder(site=AWAY))
        away.leave_test_networks("run-1", "web-run-1")
        assert file.exists()
        away.leave_test_networks("run-1", "db")
        assert not file.exists()
