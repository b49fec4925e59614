"""What the ``lab`` command drives: up, status, down; and never two copies of one machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_support import AWAY, HOME, Lab, lab_machine, make_inventory, no_beat, running_lab

from adapters.lab import labctl
from adapters.lab.faults import Fault, SiteFaults
from adapters.lab.making import make_empty
from vault.domain import PowerState
from vault.errors import Unreachable

pytestmark = pytest.mark.contract


def power(lab: Lab) -> dict[str, PowerState]:
    return {f"{row.site}/{row.machine}": row.power for row in labctl.status(lab.root)}


def test_up_status_down(tmp_path: Path) -> None:
    inventory = make_inventory({"db": lab_machine(), "web": lab_machine(disks={"only": "4MiB"})})
    with running_lab(tmp_path, inventory) as lab:
        assert labctl.status(lab.root) == []
        assert lab.up() == lab.up() == ["primary/db", "primary/web"]
        lab.site().change_source("db").start_tracking()
        lab.wait_for_transactions(5)
        db, web = labctl.status(lab.root)
        assert (db.site, db.machine, db.identity, db.network) == (HOME, "db", "db", "production")
        assert db.transactions is not None and db.rate is not None and db.address
        assert db.log_bytes > 0 and web.log_bytes == 0 and 0 < db.disk_bytes < 18 * 2**20
        assert labctl.down(inventory, lab.root) == ["primary/db", "primary/web"]
        assert labctl.down(inventory, lab.root) == []
        assert set(power(lab).values()) == {PowerState.OFF}
        assert lab.up() == ["primary/db", "primary/web"]
        held = labctl.status(lab.root)[0].transactions
        assert held is not None and (held.lost, held.damaged) == (0, 0) and held.held_at_boot > 0


def make_copy(lab: Lab, name: str, network: str) -> None:
    """A copy of db at the other site, as a failover makes it."""
    from adapters.lab.making import definition_like

    definition = definition_like(lab.inventory, AWAY, name, "db", network, made_from="point")
    make_empty(lab.layout.site(AWAY).machine(name), definition)


def test_up_starts_a_machine_where_it_was_last_active(lab: Lab) -> None:
    lab.up()
    make_copy(lab, "db", "production")
    make_copy(lab, "db-test", "isolated")
    assert lab.up() == ["primary/db"]
    lab.site().shut_down("db", 10, no_beat)
    lab.site(AWAY).start("db")
    lab.site(AWAY).wait_until_answering("db", 10, no_beat)
    assert lab.up() == ["secondary/db"]
    labctl.down(lab.inventory, lab.root)
    assert lab.up() == ["secondary/db"]
    assert power(lab) == {
        "primary/db": PowerState.OFF,
        "secondary/db": PowerState.RUNNING,
        "secondary/db-test": PowerState.OFF,
    }


def test_a_copy_that_never_ran_does_not_replace_the_machine_at_home(lab: Lab) -> None:
    lab.site().define("db")
    make_copy(lab, "db", "production")
    assert lab.up() == ["primary/db"]


def test_up_at_a_dead_site_says_so(lab: Lab) -> None:
    SiteFaults(lab.root, HOME).set(Fault.HOST_DEAD)
    with pytest.raises(Unreachable, match="host does not answer"):
        lab.up()
    assert labctl.status(lab.root) == []


def test_kill_all_leaves_nothing_running(lab: Lab) -> None:
    lab.up()
    labctl.kill_all(lab.root)
    assert power(lab) == {"primary/db": PowerState.OFF}
