"""The hypervisor port: machines come from recovery points and go back into replicas, whatever crashes in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_support import AWAY, HOME, Lab, lab_machine, make_inventory, no_beat, no_report, running_lab

from adapters.lab.hypervisor import LabHypervisor
from adapters.lab.layout import MachineFolder
from adapters.ports import Hypervisor
from replication.ports import Extent, ReplicaStore
from vault.domain import ConsistencyKind, MachineDescription, PowerState, RecoveryPoint, Severity
from vault.errors import AuthenticationRefused, BadInput, Damaged, InvalidState, NoSpace, NotFound

pytestmark = pytest.mark.contract


def seed(lab: Lab, store: ReplicaStore, machine: str = "db") -> RecoveryPoint:
    """A replica of the machine as it is now, copied by hand."""
    source = lab.site().change_source(machine)
    epoch = source.start_tracking()
    moment = source.take_snapshot()
    store.create(source.disks(), epoch)
    with store.lock("seeding"):
        store.begin_seed(moment)
        for disk in source.disks():
            reader = source.open_snapshot(disk.name)
            for start, length in reader.allocated():
                for offset in range(start, start + length, 2**20):
                    store.write_base(
                        disk.name, Extent(offset, reader.read(offset, min(2**20, start + length - offset)))
                    )
            store.checkpoint_base(disk.name, disk.size)
            reader.close()
        point = store.complete_seed(moment, ConsistencyKind.CRASH)
    source.delete_snapshot()
    return point


@pytest.fixture
def replicated(lab: Lab) -> tuple[Lab, ReplicaStore, RecoveryPoint]:
    """A machine that wrote something and was shut down; its replica at the other site."""
    lab.up()
    lab.wait_for_transactions(5)
    lab.site().shut_down("db", 10, no_beat)
    store = lab.site(AWAY).replica_store("db")
    return lab, store, seed(lab, store)


def make(lab: Lab, store: ReplicaStore, point: RecoveryPoint, name: str = "db", network: str = "production") -> object:
    return lab.site(AWAY).create_from_replica(name, "db", store, point, network, no_report)


def test_it_implements_the_port(lab: Lab) -> None:
    hypervisor: Hypervisor = lab.site()
    assert hypervisor.site == HOME
    with pytest.raises(NotFound, match="no site 'moon'"):
        LabHypervisor(lab.root, "moon", lab.inventory)
    findings = hypervisor.check()
    assert [finding.severity for finding in findings] == [Severity.PASS, Severity.PASS]
    assert hypervisor.network_kind("isolated") == "isolated"
    with pytest.raises(NotFound) as error:
        hypervisor.network_kind("prod")
    assert error.value.remedy == "the site has: production, isolated"
    for call in (hypervisor.describe, hypervisor.start, hypervisor.change_source, hypervisor.define):
        with pytest.raises(NotFound, match="no machine 'web'"):
            call("web")
    assert hypervisor.shut_down("web", 1, no_beat) is PowerState.OFF
    hypervisor.power_off("web")
    hypervisor.remove("web")


def test_a_defined_machine_is_kept(lab: Lab) -> None:
    first = lab.site().define("db")
    image = lab.folder().image("data").stat().st_ino
    assert lab.site().define("db") == first
    assert lab.folder().image("data").stat().st_ino == image
    assert [disk.size for disk in first.disks] == [2 * 2**20, 16 * 2**20]
    assert lab.site().discover() == [first]


def test_disks_too_small_leave_nothing_behind(tmp_path: Path) -> None:
    with running_lab(tmp_path, make_inventory({"db": lab_machine(disks={"only": "64KiB"})})) as lab:
        with pytest.raises(BadInput, match="room for"):
            lab.site().define("db")
        assert lab.site().discover() == []


def test_credentials_are_resolved_for_every_call(tmp_path: Path) -> None:
    inventory = make_inventory(primary={"credentials": "env:LAB_SECRET"})

    def refuse(reference: str) -> str:
        raise AuthenticationRefused(f"no secret for {reference}")

    with pytest.raises(AuthenticationRefused, match="env:LAB_SECRET"):
        LabHypervisor(tmp_path, HOME, inventory, resolve_secret=refuse).discover()
    assert LabHypervisor(tmp_path, HOME, inventory, resolve_secret=lambda _: "x").discover() == []


def test_a_machine_made_from_a_point_runs_with_what_the_point_holds(
    replicated: tuple[Lab, ReplicaStore, RecoveryPoint],
) -> None:
    lab, store, point = replicated
    made = make(lab, store, point)
    assert isinstance(made, MachineDescription) and made.power is PowerState.OFF and made.site == AWAY
    for disk in made.disks:
        assert lab.folder(site=AWAY).image(disk.name).read_bytes() == lab.folder().image(disk.name).read_bytes()
    lab.site(AWAY).start("db")
    held = lab.site(AWAY).wait_until_answering("db", 10, no_beat).transactions
    assert held is not None and (held.lost, held.damaged) == (0, 0) and held.held_at_boot > 0


def test_an_isolated_copy_runs_beside_production_and_tells_what_it_misses(
    replicated: tuple[Lab, ReplicaStore, RecoveryPoint],
) -> None:
    lab, store, point = replicated
    lab.up()
    before = lab.site().wait_until_answering("db", 10, no_beat).transactions
    make(lab, store, point, "db-test", "isolated")
    lab.site(AWAY).start("db-test")
    copy = lab.site(AWAY).wait_until_answering("db-test", 10, no_beat).transactions
    assert before and copy and copy.held_at_boot <= before.last <= copy.acknowledged_at_boot
    assert copy.lost == copy.acknowledged_at_boot - copy.held_at_boot
    after = lab.site().wait_until_answering("db", 10, no_beat).transactions
    assert after is not None and after.held_at_boot == before.held_at_boot
    lab.site(AWAY).remove("db-test")
    lab.site(AWAY).remove("db-test")
    assert lab.site(AWAY).discover() == []


def test_a_copy_made_twice_is_kept_and_another_one_is_refused(
    replicated: tuple[Lab, ReplicaStore, RecoveryPoint],
) -> None:
    lab, store, point = replicated
    make(lab, store, point)
    inode = lab.folder(site=AWAY).image("data").stat().st_ino
    make(lab, store, point)
    assert lab.folder(site=AWAY).image("data").stat().st_ino == inode
    with pytest.raises(InvalidState, match="exists: a copy of 'db' on network 'production'"):
        make(lab, store, point, network="isolated")
    other = point.model_copy(update={"id": "another"})
    with pytest.raises(InvalidState, match="not from another"):
        make(lab, store, other)
    with pytest.raises(InvalidState, match="made from no recovery point"):
        lab.site().create_from_replica("db", "db", store, point, "production", no_report)
    assert lab.folder(site=AWAY).image("data").stat().st_ino == inode


def test_a_half_made_machine_is_replaced(replicated: tuple[Lab, ReplicaStore, RecoveryPoint]) -> None:
    lab, store, point = replicated
    half = lab.folder(site=AWAY).path.with_name(".making-db")
    half.mkdir(parents=True)
    (half / "data.raw").write_bytes(b"half")
    assert lab.site(AWAY).discover() == []

    class Stop(Exception):
        pass

    def stop(_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        lab.site(AWAY).create_from_replica("db", "db", store, point, "production", stop)
    assert lab.site(AWAY).discover() == [] and not half.exists()
    make(lab, store, point)
    assert lab.folder(site=AWAY).image("data").read_bytes() == lab.folder().image("data").read_bytes()


def test_a_machine_that_does_not_fit_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    inventory = make_inventory({"db": lab_machine(rate=2000)}, secondary={"capacity": "1MiB"})
    roomy = make_inventory({"db": lab_machine(rate=2000)})
    with running_lab(tmp_path, roomy) as lab:
        lab.up()
        lab.wait_for_transactions(400)
        lab.site().shut_down("db", 10, no_beat)
        store = lab.site(AWAY).replica_store("db")
        point = seed(lab, store)
        tight = LabHypervisor(tmp_path, AWAY, inventory)
        assert tight.free_space() == 0
        with pytest.raises(NoSpace, match=r"do not fit, \d+\.\d MiB are missing") as error:
            tight.create_from_replica("db", "db", store, point, "production", no_report)
        assert "capacity" in error.value.remedy and error.value.recoverable
        assert tight.discover() == []
        with pytest.raises(NoSpace):
            tight.define("db")
        assert store.state().points == [point]


def test_disks_that_are_not_the_replicas_are_refused(replicated: tuple[Lab, ReplicaStore, RecoveryPoint]) -> None:
    lab, store, point = replicated
    other = make_inventory({"db": lab_machine(disks={"system": "2MiB", "data": "32MiB"})})
    with pytest.raises(InvalidState, match="the replica has the disks"):
        LabHypervisor(lab.root, AWAY, other).create_from_replica("db", "db", store, point, "production", no_report)


def test_a_running_machine_is_not_retired(lab: Lab) -> None:
    lab.up()
    store = lab.site().replica_store("db")
    with pytest.raises(InvalidState, match="'db' runs"):
        lab.site().retire_into_replica("db", store, "e1")
    assert not store.exists()


def test_a_retired_machine_is_gone_and_its_disks_are_a_replica(lab: Lab) -> None:
    lab.up()
    lab.site().shut_down("db", 10, no_beat)
    inode = lab.folder().image("data").stat().st_ino
    store = lab.site().replica_store("db")
    lab.site().retire_into_replica("db", store, "e1")
    lab.site().retire_into_replica("db", store, "e1")
    state = store.state()
    assert (state.seeded, state.epoch) == (False, "e1") and [disk.name for disk in state.disks] == ["system", "data"]
    with pytest.raises(NotFound):
        lab.site().start("db")
    kept = [path for path in (lab.layout.site(HOME).replicas / "db").rglob("*") if path.stat().st_ino == inode]
    assert len(kept) == 1, "the image was not moved"
    assert not list(lab.layout.site(HOME).machines.glob("*/"))


def test_retiring_goes_on_after_a_crash_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        pass

    def crash_at(step: int) -> Callable[[], None]:
        left = step

        def tick() -> None:
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1

        return tick

    finished = False
    for step in range(20):
        root = tmp_path / str(step)
        lab = Lab(root, make_inventory())
        lab.site().define("db")
        content = lab.folder().image("data").read_bytes()
        store = lab.site().replica_store("db")
        tick = crash_at(step)

        def interrupted(real: Callable[..., object], tick: Callable[[], None] = tick) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                tick()
                result = real(*arguments, **options)
                tick()
                return result

            return call

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", interrupted(Path.rename))
            patch.setattr(os, "rename", interrupted(os.rename))
            patch.setattr(shutil, "rmtree", interrupted(shutil.rmtree))
            patch.setattr(os, "replace", interrupted(os.replace))
            try:
                lab.site().retire_into_replica("db", store, "e1")
                finished = True
            except Crash:
                finished = False
        again = lab.site().replica_store("db")
        lab.site().retire_into_replica("db", again, "e1")
        assert again.state().epoch == "e1"
        assert lab.site().discover() == []
        bases = [
            p
            for p in (lab.layout.site(HOME).replicas / "db").rglob("*")
            if p.is_file() and p.stat().st_size == len(content)
        ]
        assert [path.read_bytes() for path in bases] == [content], f"the disk was lost by a crash at step {step}"
        if finished:
            break
    assert finished and step > 3, "the crashes did not reach every step"


def test_a_lost_site_starts_an_empty_replica(lab: Lab) -> None:
    store = lab.site().replica_store("db")
    lab.site().retire_into_replica("db", store, "e1")
    assert (store.state().seeded, store.state().epoch) == (False, "e1")


def test_a_machine_made_after_a_retirement_is_retired_itself(lab: Lab) -> None:
    lab.site().define("db")
    stale = MachineFolder(lab.folder().path.with_name(".retired-db"))
    stale.path.mkdir()
    stale.image("data").write_bytes(b"stale")
    store = lab.site().replica_store("db")
    lab.site().retire_into_replica("db", store, "e2")
    assert not stale.path.exists() and lab.site().discover() == []


def test_a_definition_that_was_tampered_with_is_refused(lab: Lab) -> None:
    lab.site().define("db")
    path = lab.folder().definition
    path.write_text(path.read_text().replace("production", "isolated"))
    with pytest.raises(Damaged, match="does not match its checksum"):
        lab.site().describe("db")
