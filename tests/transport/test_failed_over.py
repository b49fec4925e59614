"""A source that nobody could tell of a failover goes on replicating over the wire: its target does not let it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab_support import AWAY, HOME, no_report
from transport_sites import Sites
from transport_wire import KEEPALIVE_MS, until_free

from adapters.ports import ReplicationProvider
from replication.local import LocalReplicaStore
from replication.transport.pki import Identity, Pki
from replication.transport.server import MasterTarget, only_sites
from vault.domain import RecoveryPoint, Retention
from vault.errors import InvalidState, Unreachable

pytestmark = pytest.mark.contract


class Protected(Sites):
    """A machine with four recovery points, of which the policy keeps two; the master target runs in this process."""

    def __init__(self, folder: Path, open: ExitStack) -> None:
        super().__init__(folder, disks={"system": "1MiB", "data": "2MiB"})
        open.callback(self.log.close)
        self.rng = random.Random(3)
        server = MasterTarget(
            Identity(Pki(folder / "pki"), AWAY),
            lambda machine: self.adapters.master_target_store(AWAY, machine),
            only_sites(AWAY, lambda _: (HOME, AWAY)),
            self.address,
            keepalive_ms=KEEPALIVE_MS,
            evict_every_s=0.05,
        )
        server.start()
        open.callback(server.stop, 0.5)
        self.provider: ReplicationProvider = self.adapters.provider(self.relationship)
        self.keeps_two = self.relationship.model_copy(update={"retention": Retention(count=2, hours=1000)})
        self.provider.enable(self.relationship)
        self.provider.copy_initial(self.relationship, no_report)
        self.provider.finalize(self.relationship)
        for _ in range(2):
            self.write_some()
            self.provider.replicate_once(self.relationship, no_report, app_consistent=False)

    def write_some(self) -> None:
        self.write("data", self.rng.randrange(1 << 20), self.rng.randbytes(5000))

    def cycle(self) -> RecoveryPoint:
        """As the old source's worker does it, that nobody could tell to stop."""
        self.write_some()
        return self.provider.replicate_once(self.keeps_two, no_report, app_consistent=False)

    def points(self) -> list[RecoveryPoint]:
        return self.provider.recovery_points(self.relationship)


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[Protected]:
    with ExitStack() as open:
        yield Protected(tmp_path, open)


def test_an_old_source_makes_and_drops_no_point_after_a_failover(protected: Protected) -> None:
    before = protected.points()
    chosen = before[1]
    protected.provider.fail_over(protected.relationship, chosen.id, no_report)
    for _ in range(3):
        with pytest.raises(InvalidState, match="failed over") as refused:
            protected.cycle()
        assert refused.value.where
        assert refused.value.remedy
    assert protected.points() == before
    until_free(lambda: protected.provider.commit(protected.relationship, chosen.id))
    assert protected.points() == [chosen]
    with pytest.raises(InvalidState, match="failed over"):
        protected.provider.resynchronize(protected.relationship, no_report)
    assert protected.points() == [chosen]


def test_a_silent_session_of_an_old_source_does_not_keep_the_failover_from_its_commit(protected: Protected) -> None:
    """Such as one that compares the disks of a machine for hours."""
    chosen = protected.points()[1]
    with pytest.raises(Unreachable), protected.store.lock("an old source's resynchronization"):
        protected.provider.fail_over(protected.relationship, chosen.id, no_report)
        until_free(lambda: protected.provider.commit(protected.relationship, chosen.id))
        protected.store.state()
    assert protected.points() == [chosen]


def test_after_a_cancelled_failover_replication_goes_on_without_a_resynchronization(protected: Protected) -> None:
    before, epoch = protected.points(), protected.lab.site().change_source("db").tracking().epoch
    protected.provider.fail_over(protected.relationship, before[1].id, no_report)
    with pytest.raises(InvalidState):
        protected.cycle()
    with pytest.raises(InvalidState):
        protected.provider.resynchronize(protected.relationship, no_report)
    for _ in range(2):
        protected.provider.cancel_failover(protected.relationship)
    point = protected.cycle()
    assert protected.points() == [before[-1], point]
    assert protected.lab.site().change_source("db").tracking().epoch == epoch
    for disk in ("system", "data"):
        assert protected.replica(disk) == protected.image(disk)


class Killed(BaseException):
    """The worker that makes the machine ends in the middle of it."""


def test_an_interrupted_failover_goes_on_with_the_point_it_began_with(
    protected: Protected, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, relationship = protected.points()[-1], protected.relationship
    late: list[RecoveryPoint] = []
    begin = LocalReplicaStore.fail_over_to

    def after_one_more_cycle(store: LocalReplicaStore, point: RecoveryPoint) -> None:
        if not late:
            late.append(protected.cycle())
        begin(store, point)

    def killed(*_: object) -> None:
        if late:
            raise Killed

    monkeypatch.setattr(LocalReplicaStore, "fail_over_to", after_one_more_cycle)
    with pytest.raises(Killed):
        protected.provider.fail_over(relationship, "latest", killed)
    assert protected.points()[-1] == late[0] != chosen
    assert protected.provider.fail_over(relationship, "latest", no_report).point == chosen
    assert protected.provider.fail_over(relationship, "latest", no_report).point == chosen
    with pytest.raises(InvalidState, match="cancel that failover"):
        protected.provider.fail_over(relationship, late[0].id, no_report)
    protected.provider.cancel_failover(relationship)
    assert protected.provider.fail_over(relationship, late[0].id, no_report).point == late[0]
    protected.provider.commit(relationship, late[0].id)
    assert protected.points() == late


def test_test_failovers_stop_nothing(protected: Protected) -> None:
    protected.provider.start_test(protected.relationship, "latest", "db-test", no_report)
    point = protected.cycle()
    protected.provider.end_test(protected.relationship, "db-test")
    assert protected.points()[-1] == point


def test_a_machine_that_is_protected_anew_is_replicated_again(protected: Protected) -> None:
    """Its replica was left behind when the protection ended while the target could not be reached."""
    chosen = protected.points()[1]
    protected.provider.fail_over(protected.relationship, chosen.id, no_report)
    protected.provider.commit(protected.relationship, chosen.id)
    protected.provider.disable_source(protected.relationship)
    protected.lab.site(AWAY).remove("db")
    protected.provider.enable(protected.relationship)
    protected.write_some()
    protected.provider.copy_initial(protected.relationship, no_report)
    protected.cycle()
    for disk in ("system", "data"):
        assert protected.replica(disk) == protected.image(disk)
    protected.provider.fail_over(protected.relationship, "latest", no_report)
    protected.provider.disable_target(protected.relationship)
    assert not protected.store.exists()
