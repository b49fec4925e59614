"""A lab machine that really runs, replicated to Azure and recovered from there: what its clients were told is on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_support import AWAY, HOME, make_inventory, no_beat, no_report, running_lab
from storage_account import Account

from adapters.ports import Hypervisor
from adapters.registry import Adapters
from vault.domain import Answering, PowerState, Severity
from vault.errors import NotFound

pytestmark = pytest.mark.contract


def boot(site: Hypervisor, machine: str) -> Answering:
    site.start(machine)
    return site.wait_until_answering(machine, 20, no_beat)


def test_a_running_machine_fails_over_from_azure_and_back(account: Account, tmp_path: Path) -> None:
    inventory = make_inventory(secondary={"replica_store": account.settings.model_dump()})
    relationship = inventory.relationship("db")
    with running_lab(tmp_path / "lab", inventory) as lab:
        adapters = Adapters(inventory, tmp_path)
        home, away = adapters.hypervisor(HOME), adapters.hypervisor(AWAY)
        provider = adapters.provider(relationship)
        lab.up()
        lab.wait_for_transactions(5)

        provider.enable(relationship)
        provider.copy_initial(relationship, no_report)
        provider.finalize(relationship)
        for held in (20, 40, 60):
            lab.wait_for_transactions(held)
            provider.replicate_once(relationship, no_report, app_consistent=held == 40)
        points = provider.recovery_points(relationship)
        assert len(points) == 5
        assert [
            finding.what for finding in provider.check_target(relationship) if finding.severity != Severity.PASS
        ] == []

        seen = 0
        for point in points:
            provider.start_test(relationship, point.id, "db-test", no_report)
            transactions = boot(away, "db-test").transactions
            assert transactions is not None
            assert transactions.damaged == 0
            assert transactions.held_at_boot >= seen
            seen = transactions.held_at_boot
            provider.end_test(relationship, "db-test")
        assert seen >= 60

        assert home.shut_down("db", 10, no_beat) is PowerState.OFF
        last = provider.send_last_changes(relationship, no_report)
        assert provider.fail_over(relationship, "latest", no_report).point == last
        recovered = boot(away, "db").transactions
        assert recovered is not None
        assert (recovered.damaged, recovered.lost) == (0, 0)
        assert recovered.acknowledged_at_boot > 60
        provider.commit(relationship, last.id)
        assert provider.recovery_points(relationship) == [last]

        back = relationship.reversed("production", "isolated")
        provider.prepare_reverse(back)
        provider.enable(back)
        provider.copy_initial(back, no_report)
        provider.retire_replica(relationship)
        assert account.names() == []
        with pytest.raises(NotFound):
            provider.recovery_points(relationship)
        assert away.shut_down("db", 10, no_beat) is PowerState.OFF
        provider.send_last_changes(back, no_report)
        provider.fail_over(back, "latest", no_report)
        returned = boot(home, "db").transactions
        assert returned is not None
        assert (returned.damaged, returned.lost) == (0, 0)
        assert returned.acknowledged_at_boot > recovered.acknowledged_at_boot

        provider.commit(back, "latest")
        provider.prepare_reverse(relationship)
        assert not away.replica_store("db").state().seeded
        assert {name for name in account.names() if name.endswith(".vhd")} == {"db/data.vhd", "db/system.vhd"}
        provider.disable_target(relationship)
        assert account.names() == []
