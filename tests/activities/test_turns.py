"""Who wants a machine's last changes does not wait for a heartbeat, and lets a running cycle end."""

from __future__ import annotations

import pytest

from activities import turns
from activities.running import Running, Stopped
from activities.turns import Turns, when_free
from vault.errors import Busy, NoSpace

pytestmark = pytest.mark.unit


async def test_the_machines_own_replication_is_asked_to_make_way() -> None:
    replicating = Turns()
    replicating.make_way("db")
    with replicating.of("db") as asked, replicating.of("app") as other:
        assert not asked.is_set()
        replicating.make_way("db")
        assert asked.is_set()
        assert not other.is_set()


async def test_a_new_turn_of_a_machine_is_not_ended_by_the_old_one() -> None:
    replicating = Turns()
    with replicating.of("db"):
        second = replicating.of("db")
        asked = second.__enter__()
    replicating.make_way("db")
    assert asked.is_set()
    second.__exit__(None, None, None)


class Replica:
    def __init__(self, *busy: Exception) -> None:
        self.errors = list(busy)

    def send(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "sent"


def test_a_writer_that_is_about_to_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK_AGAIN_S", 0.001)
    replica, running = Replica(Busy("held"), Busy("held")), Running()
    assert when_free(running, replica.send) == "sent"
    assert running.pulse is not None
    assert "cycle to end" in running.pulse.model_dump_json()


def test_a_writer_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FREE_WITHIN_S", 0.0)
    with pytest.raises(Busy, match="held"):
        when_free(Running(), Replica(Busy("held"), Busy("held")).send)


def test_other_errors_are_not_waited_for() -> None:
    with pytest.raises(NoSpace):
        when_free(Running(), Replica(NoSpace("full")).send)


def test_the_waiting_can_be_stopped() -> None:
    running = Running()
    running.stop()
    with pytest.raises(Stopped):
        when_free(running, Replica(Busy("held")).send)
