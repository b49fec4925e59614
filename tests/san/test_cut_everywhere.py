"""A group's whole life with the network cut at every order to an array in turn, before it took effect and after, and
with every step ended at each of its reports. What is recoverable is done again, as an activity is, or undone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from adapters.registry import Adapters
from adapters.san import watching
from adapters.smis import connection
from adapters.smis.connection import SmisConnection
from tests.san.house import EAST, WEST, House, house, quiet
from tests.san.pairs import MIB
from vault.domain import LATEST, Progress, RecoveredMachine, Relationship
from vault.errors import Recoverable, Unreachable

pytestmark = pytest.mark.contract


MACHINES = ("db", "web")


class Ended(BaseException):
    """As an activity is ended between two safe points."""


class Cut(NamedTuple):
    at: int
    after: bool
    """It took effect, and its answer is lost."""


class Wire:
    """Between the workers and both arrays; it breaks once. ``cut`` None: never."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.orders: list[str] = []
        self.cut: Cut | None = None
        self.reports: list[str] = []
        self.ends_at: int | None = None
        real = SmisConnection.invoke

        def invoke(connection: SmisConnection, doing: str, method: str, target: Any, **given: Any) -> Any:
            self.orders.append(doing)
            cut = self.cut if self.cut is not None and self.cut.at == len(self.orders) else None
            if cut is not None and not cut.after:
                raise Unreachable("the network is cut")
            answer = real(connection, doing, method, target, **given)
            if cut is not None:
                raise Unreachable("the network is cut")
            return answer

        monkeypatch.setattr(SmisConnection, "invoke", invoke)

    def report(self, progress: Progress) -> None:
        self.reports.append(progress.doing)
        if self.ends_at == len(self.reports):
            raise Ended

    def begin(self, cut: Cut | None = None, ends_at: int | None = None) -> None:
        self.orders, self.reports, self.cut, self.ends_at = [], [], cut, ends_at


@pytest.fixture
def san(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    """Machines in one group, off; nothing is replicated yet. By default two."""
    machines = dict.fromkeys(getattr(request, "param", MACHINES), ("log",))
    with house(tmp_path, machines) as made:
        made.define(*machines)
        yield made


@pytest.fixture
def protected(san: House) -> House:
    san.protect(*san.inventory.machines)
    return san


@pytest.fixture
def wire(protected: House, monkeypatch: pytest.MonkeyPatch) -> Wire:
    monkeypatch.setattr(connection, "POLL_S", 0.005)
    monkeypatch.setattr(watching, "LOOK_EVERY_S", 0.005)
    return Wire(monkeypatch)


def again(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (Recoverable, Ended):
        return call()


def seen(san: House) -> list[object]:
    """All that there is at both sides, by its name."""
    found: list[object] = []
    for site, array in ((EAST, san.pair.east), (WEST, san.pair.west)):
        names = {volume.id: volume.name for volume in array.state.volumes.values()}
        found.append(sorted((volume.name, sorted(volume.hosts)) for volume in array.state.volumes.values()))
        groups = array.state.groups.values()
        found.append([(one.name, [names[each] for each in one.volumes], one.state, one.active) for one in groups])
        found.append(sorted((one.name, one.network) for one in san.site(site).discover()))
    return found


Report = Callable[[Progress], None]


def with_a_test(san: House, report: Report) -> list[object]:
    way = san.relationship("db")
    again(lambda: san.provider.start_test(way, LATEST, "db-test", report))
    looks = [seen(san)]
    again(lambda: san.provider.end_test(way, "db-test"))
    return [*looks, seen(san)]


def taken_back(san: House, report: Report) -> list[object]:
    """A planned failover, undone."""
    ways = [san.relationship(machine) for machine in MACHINES]
    for way in ways:
        point = again(lambda way=way: san.provider.send_last_changes(way, report))
        again(lambda way=way, point=point: san.provider.fail_over(way, point.id, report))
    looks = [seen(san)]
    for way in ways:
        again(lambda way=way: san.provider.cancel_failover(way))
    return [*looks, seen(san)]


def there_and_back(san: House, report: Report) -> list[object]:
    """An unplanned failover, and a planned failback."""
    looks, provider = list[object](), san.provider
    forward, backward = [san.relationship("db")], [san.back("db")]
    for way in forward:
        again(lambda way=way: provider.fail_over(way, LATEST, report))
    turn_round(san, backward, report)
    looks.append(seen(san))
    for way in backward:
        point = again(lambda way=way: provider.send_last_changes(way, report))
        again(lambda way=way, point=point: provider.fail_over(way, point.id, report))
    turn_round(san, forward, report)
    return [*looks, seen(san)]


def turn_round(san: House, ways: list[Relationship], report: Report) -> None:
    for way in ways:
        again(lambda way=way: san.provider.prepare_reverse(way))
        again(lambda way=way: san.provider.enable(way))
        again(lambda way=way: san.provider.copy_initial(way, report))


@pytest.mark.parametrize(
    ("san", "life"), [(["db"], with_a_test), (MACHINES, taken_back), (["db"], there_and_back)], indirect=["san"]
)
def test_every_life_ends_as_the_undisturbed_one(
    protected: House, wire: Wire, life: Callable[[House, Report], list[object]]
) -> None:
    wire.begin()
    undisturbed = life(protected, wire.report)
    orders, reports = wire.orders, wire.reports
    assert len(orders) >= 5
    for at, doing in enumerate(orders, 1):
        for after in (True, False) if life is with_a_test else (True,):
            wire.begin(Cut(at, after))
            assert life(protected, wire.report) == undisturbed, f"{doing}, order {at}, {'after' if after else 'before'}"
    for at, doing in enumerate(reports, 1) if life is not there_and_back else ():
        wire.begin(ends_at=at)
        assert life(protected, wire.report) == undisturbed, f"ended at report {at}, {doing}"


def test_what_is_ended_anywhere_is_undone(protected: House, wire: Wire) -> None:
    provider, (db, web) = protected.provider, [protected.relationship(machine) for machine in MACHINES]
    before = seen(protected)

    def test_copy() -> None:
        provider.start_test(db, LATEST, "db-test", wire.report)

    def planned() -> None:
        for way in (db, web):
            provider.fail_over(way, provider.send_last_changes(way, wire.report).id, wire.report)

    def unplanned() -> None:
        provider.fail_over(db, LATEST, wire.report)

    def undo() -> None:
        wire.begin()
        provider.end_test(db, "db-test")
        for way in (db, web):
            provider.cancel_failover(way)

    for work in (test_copy, planned, unplanned):
        wire.begin()
        work()
        orders, reports = wire.orders, wire.reports
        undo()
        assert seen(protected) == before
        assert reports
        disturbances: list[tuple[Cut | None, int | None]] = [(None, at + 1) for at in range(len(reports))]
        disturbances += [(Cut(at + 1, after), None) for at in range(len(orders)) for after in (False, True)]
        for cut, ends_at in disturbances:
            wire.begin(cut, ends_at)
            with suppress(Unreachable, Ended):  # of a job's end, an array may tell before it is asked for
                work()
            undo()
            assert seen(protected) == before, f"{work.__name__}, {cut or reports[(ends_at or 1) - 1]}"


@pytest.mark.parametrize("choice", ["planned", LATEST])
def test_a_late_failover_hears_that_it_is_one_before_it_registers_or_moves_anything(
    protected: House, wire: Wire, choice: str
) -> None:
    """Temporal gave it to another worker, and what that did was undone: the group would move from under its machine."""
    provider, db = protected.provider, protected.relationship("db")
    point = choice
    if choice == "planned":  # the group moves with its last machine
        web = protected.relationship("web")
        point = provider.send_last_changes(web, quiet).id
        provider.fail_over(web, point, quiet)
    told: list[tuple[int, list[str]]] = []

    def report(_: Progress) -> None:
        told.append((len(wire.orders), [one.name for one in protected.site(WEST).discover()]))

    wire.begin()
    provider.fail_over(db, point, report)
    moved = next(at for at, doing in enumerate(wire.orders) if doing.startswith("failover"))
    assert moved in [orders for orders, _ in told]
    assert [machines for _, machines in told if "db" not in machines]
    if choice == LATEST:
        assert told[-1][0] == moved + 1


def test_a_late_test_hears_that_it_is_one_before_it_makes_and_registers_its_copy(protected: House, wire: Wire) -> None:
    provider, db = protected.provider, protected.relationship("db")
    told: list[int] = []
    wire.begin()
    provider.start_test(db, LATEST, "db-test", lambda _: told.append(len(wire.orders)))
    assert wire.orders == ["cloning db-log", "exposing db-test-log"]
    assert told[0] == 0
    assert told[-1] == len(wire.orders)


def test_who_waits_for_a_turn_can_be_ended(protected: House, wire: Wire) -> None:
    """A test's clones are being made, which takes a while, and the failover that waits for that is abandoned."""
    provider, waits = protected.provider, threading.Event()

    def report(progress: Progress) -> None:
        assert progress.doing == "waiting: another call changes group payments"
        waits.set()
        raise Ended

    def fail_over(_: Progress) -> None:
        if not waits.is_set():
            with ThreadPoolExecutor(1) as threads:
                late = threads.submit(provider.fail_over, protected.relationship("web"), LATEST, report)
                with pytest.raises(Ended):
                    late.result(60)

    provider.start_test(protected.relationship("db"), LATEST, "db-test", fail_over)
    assert waits.is_set()


def test_the_clones_of_large_volumes_may_take_their_time(protected: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One percent of ten terabytes is more than any array copies in five minutes."""
    waited: dict[str, int] = {}
    real = SmisConnection.await_job

    def await_job(connection: SmisConnection, doing: str, *given: Any, copies: int = 0, **more: Any) -> None:
        waited[doing] = copies
        real(connection, doing, *given, copies=copies, **more)

    monkeypatch.setattr(SmisConnection, "await_job", await_job)
    protected.provider.start_test(protected.relationship("db"), LATEST, "db-test", quiet)
    assert waited["cloning db-log"] == MIB


def test_two_unplanned_failovers_of_a_machine_at_once_make_one(protected: House, wire: Wire) -> None:
    """Temporal gave a try to another worker, and the first one goes on: each of them saw another present."""
    db, ends = protected.relationship("db"), list[RecoveredMachine]()
    other = Adapters(protected.inventory, protected.lab_root.parent).provider(db)

    def report(progress: Progress) -> None:
        if progress.doing.startswith("moving") and not ends:
            ends.append(other.fail_over(db, LATEST, quiet))

    assert protected.provider.fail_over(db, LATEST, report) == ends[0]
    for machine in MACHINES:
        protected.provider.cancel_failover(protected.relationship(machine))
