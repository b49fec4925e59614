"""A Hyper-V machine on real VHDX files, followed by change tracking, replicated to Azure's page blobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_support import no_beat, no_report
from storage_account import Account
from tracked_host import TrackedHost

from adapters.hyperv.states import VmState
from adapters.ports import ReplicationProvider
from adapters.registry import Adapters
from adapters.stream import StreamProvider
from replication.ports import ReplicaStore
from vault.domain import ConsistencyKind, PowerState, RecoveryPoint, Relationship, Severity
from vault.errors import BadInput, InvalidState, ResynchronizationRequired, Unreachable
from vault.inventory import Inventory

pytestmark = pytest.mark.contract

MIB = 1 << 20
DISKS = {"SCSI 0:0": "scsi-0-0", "SCSI 0:1": "scsi-0-1"}


class Replicated:
    """The machine, and the two ends of its replication as workers see them."""

    def __init__(self, account: Account, folder: Path) -> None:
        self.host = TrackedHost(folder / "host", {"SCSI 0:0": 3 * MIB, "SCSI 0:1": 2 * MIB})
        self.folder = folder
        self.settings = account.settings
        disk_folders = [{"path": "D:\\VMs", "folder": str(self.host.folder)}]
        networks = {"production": {}, "isolated": {"kind": "isolated"}}
        subnets = {
            "production": {"azure": {"virtual_network": "recovery", "subnet": "servers"}},
            "isolated": {"kind": "isolated", "azure": {"virtual_network": "bubble", "subnet": "servers"}},
        }
        mapping = {"source": "east/production", "target": "azure/production"}
        mapping |= {"test": "azure/isolated", "source_test": "east/isolated"}
        self.inventory = Inventory.model_validate(
            {
                "version": 1,
                "sites": {
                    "east": {
                        "fabric": "hyperv",
                        "networks": networks,
                        "hyperv": {"hosts": ["hv1"], "disk_folders": disk_folders},
                    },
                    "azure": {
                        "fabric": "azure",
                        "networks": subnets,
                        "azure": {"subscription": "00000000-1111-2222-3333-444444444444", "resource_group": "dr"},
                        "replica_store": account.settings.model_dump(),
                    },
                },
                "policies": {"gold": {"frequency": "1m"}},
                "network_mappings": [mapping],
                "machines": {"db": {"site": "east", "target": "azure", "network": "production", "policy": "gold"}},
            }
        )
        self.relationship: Relationship = self.inventory.relationship("db")
        self.contents: dict[str, dict[str, bytes]] = {}
        """What the disks held at each recovery point."""

    @property
    def adapters(self) -> Adapters:
        """Those of a worker that just started."""
        site = self.inventory.sites["azure"].model_copy(update={"replica_store": self.settings})
        sites = {"sites": {**self.inventory.sites, "azure": site}}
        return Adapters(self.inventory.model_copy(update=sites), self.folder / "data")

    @property
    def provider(self) -> ReplicationProvider:
        return self.adapters.provider(self.relationship)

    @property
    def store(self) -> ReplicaStore:
        return self.adapters.store_across("east", "azure", "db")

    def now(self) -> dict[str, bytes]:
        return {DISKS[at]: bytes(raw) for at, raw in self.host.content.items()}

    def made(self, point: RecoveryPoint) -> RecoveryPoint:
        """``point`` is of what the disks hold now."""
        self.contents[point.id] = self.now()
        return point

    def check_points(self) -> None:
        for point in self.provider.recovery_points(self.relationship):
            if point.id in self.contents:
                folder = self.folder / f"at-{point.id}"
                self.store.materialise(point, folder, no_report)
                held = {name: (folder / f"{name}.raw").read_bytes() for name in DISKS.values()}
                assert held == self.contents[point.id]


@pytest.fixture
def db(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replicated]:
    replicated = Replicated(account, tmp_path)
    monkeypatch.setattr("adapters.hyperv.fabrics.sessions", lambda site: {"hv1": replicated.host})
    yield replicated
    replicated.host.disks.close()


def test_a_machine_is_protected_followed_resynchronized_and_its_points_are_what_it_was(db: Replicated) -> None:
    host, forward = db.host, db.relationship
    assert isinstance(db.provider, StreamProvider)
    host.write("SCSI 0:0", 0, b"system--" * (MIB // 8))
    host.write("SCSI 0:1", MIB + 512, b"data----" * 64)
    checked = [*db.provider.check_source(forward), *db.provider.check_target(forward)]
    assert [finding for finding in checked if finding.severity is Severity.FAIL] == []
    told = [str(finding) for finding in checked if finding.severity is Severity.WARN]
    assert any(
        "whether Azure has this subnet" in line and "/virtualNetworks/bubble/subnets/servers" in line for line in told
    )
    assert any("leeward makes no virtual machines of them yet" in line for line in told)

    db.provider.enable(forward)
    host.write("SCSI 0:1", 0, b"meanwhil" * 64)
    db.made(db.provider.copy_initial(forward, no_report))
    db.provider.finalize(forward)
    for number, app_consistent in enumerate((False, True, False)):
        host.write("SCSI 0:0", number * MIB, bytes([number + 1]) * 8192)
        host.write("SCSI 0:1", number * 4096, bytes([number + 1]) * 512)
        point = db.made(db.provider.replicate_once(forward, no_report, app_consistent=app_consistent))
        assert point.bytes == 8192 + 512
        assert (point.kind is ConsistencyKind.APPLICATION) == app_consistent

    host.write("SCSI 0:0", 2 * MIB, b"unknown-" * 512)
    for lost in host.disks.read_tracking().reference_points:
        host.disks.destroy_reference_point(lost.id)
    with pytest.raises(ResynchronizationRequired):
        db.provider.replicate_once(forward, no_report, app_consistent=False)
    resynchronized = db.made(db.provider.resynchronize(forward, no_report))
    host.write("SCSI 0:1", 0, b"after---" * 64)
    db.made(db.provider.replicate_once(forward, no_report, app_consistent=False))

    points = db.provider.recovery_points(forward)
    assert len(points) == 8
    assert resynchronized in points
    db.check_points()

    with pytest.raises(InvalidState, match="still runs"):
        db.provider.send_last_changes(forward, no_report)
    host.write("SCSI 0:0", 0, b"lastly--" * 64)
    host.state = VmState.OFF
    last = db.made(db.provider.send_last_changes(forward, no_report))
    assert db.provider.resolve_point(forward, "latest") == last
    db.check_points()

    db.provider.disable_source(forward)
    db.provider.disable_target(forward)
    tracked = host.disks.read_tracking()
    assert (tracked.checkpoints, tracked.reference_points) == ([], [])


def test_a_worker_that_dies_at_any_call_of_a_delta_loses_nothing(db: Replicated) -> None:
    host, forward = db.host, db.relationship
    db.provider.enable(forward)
    db.provider.copy_initial(forward, no_report)
    db.provider.finalize(forward)
    host.ran.clear()
    db.provider.replicate_once(forward, no_report, app_consistent=False)
    calls = len(host.ran)
    assert calls > 5
    for dies_at in range(0, calls, 5):
        host.write("SCSI 0:0", dies_at * 8192, b"written-" * 64)
        host.lose, host.takes_effect = dies_at, dies_at % 2 == 0
        with pytest.raises(Unreachable):
            db.provider.replicate_once(forward, no_report, app_consistent=False)
        host.lose = None
        db.made(db.provider.replicate_once(forward, no_report, app_consistent=False))
    db.check_points()
    assert host.disks.read_tracking().checkpoints == []


def test_nothing_leads_back_yet_and_that_is_said(db: Replicated) -> None:
    with pytest.raises(BadInput, match="cannot be replicated from a site of fabric 'azure' to one of 'hyperv'"):
        db.adapters.provider(db.relationship.reversed("production", "isolated"))


def test_a_site_in_azure_says_whether_its_account_answers_and_makes_no_machines(db: Replicated) -> None:
    azure = db.adapters.hypervisor("azure")
    assert [str(finding) for finding in azure.check()] == [
        f"site azure: the storage account answers, with containers {db.settings.container} and "
        f"{db.settings.cache_container}"
    ]
    db.provider.enable(db.relationship)
    db.provider.copy_initial(db.relationship, no_report)
    with pytest.raises(InvalidState, match="'db' cannot run in Azure: leeward makes no virtual machines there yet"):
        db.provider.fail_over(db.relationship, "latest", no_report)
    assert azure.shut_down("db", 1, no_beat) is PowerState.OFF
    db.settings = db.settings.model_copy(update={"container": "not-there"})
    missing = db.adapters.hypervisor("azure").check()
    assert [(finding.severity, "the container does not exist" in finding.what) for finding in missing] == [
        (Severity.FAIL, True)
    ]
