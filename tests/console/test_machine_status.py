"""What ``leeward status`` says of a machine in one line."""

from __future__ import annotations

import pytest

from activities.contracts import WATCH_OLD_COPY
from console.cmd_machines import WATCH, _now
from console.machine_status import MachineStatus, PendingActivity
from vault.domain import Relationship
from vault.inventory import Policy
from vault.lifecycle import Phase
from workflows.model import Health, MachineState, OldCopy, Timings

pytestmark = pytest.mark.unit

FORWARD = Relationship(
    machine="db",
    source_site="primary",
    target_site="recovery",
    target_network="production",
    test_network="isolated",
    frequency_s=60,
)


def status(health: Health, *activities: PendingActivity) -> MachineStatus:
    state = MachineState(
        name="db",
        forward=FORWARD,
        backward=FORWARD.reversed("production", "isolated"),
        policy=Policy(frequency="60s"),
        timings=Timings(),
        phase=Phase.COMMIT_PENDING,
        health=health,
        old_copy=OldCopy(site="primary", machine="db"),
    )
    return MachineStatus(state=state, activities=list(activities))


def test_a_dead_site_is_waited_for_on_purpose_and_said_so_after_worse_news() -> None:
    waits = PendingActivity(name=WATCH, attempt=1, waiting_for_worker=True)
    assert WATCH_OLD_COPY.name == WATCH
    assert _now(status(Health(), waits)) == "no worker at primary yet that keeps the old copy off"
    assert _now(status(Health(level="warning", reason="web does not answer"), waits)) == "web does not answer"
    assert _now(status(Health())) == ""
    other = PendingActivity(name="commit", attempt=1, waiting_for_worker=True)
    assert _now(status(Health(), other)) == "commit waits for a worker"
