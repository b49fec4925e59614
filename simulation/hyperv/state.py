"""What the hosts of a fabric remember: machines, their disks, their end of a replication; one document."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import IntEnum
from pathlib import Path

from pydantic import BaseModel

from adapters.hyperv.facts import Authorization, IntegrationService, VirtualDisk
from adapters.hyperv.states import GroupState, ReplicationHealth, ReplicationMode, ReplicationState, RoleState
from adapters.lab.documents import read_document, write_document

FORMAT, VERSION = "leeward-simulated-hyperv", 1


class Kind(IntEnum):
    """``LastReplicationType`` and ``FailedOverReplicationType`` of ``Msvm_ReplicationRelationship``."""

    NONE = 0
    REGULAR = 1
    APPLICATION_CONSISTENT = 2
    PLANNED = 3


class KeptPoint(BaseModel):
    """A recovery checkpoint of a replica. ``stored`` is the point of the lab's replica that it stands for."""

    id: str
    name: str
    stored: str
    time: datetime
    application_consistent: bool


class Replication(BaseModel):
    """One end of a relationship, as its host sees it."""

    mode: ReplicationMode
    state: ReplicationState
    health: ReplicationHealth = ReplicationHealth.NORMAL
    details: list[str] = []
    primary_server: str
    replica_server: str
    """As it was given: a host's name or a cluster's broker."""
    replica_port: int = 0
    authentication: str = "Kerberos"
    frequency_s: int = 300
    recovery_history: int = 0
    vss_frequency_h: int = 0
    last: datetime | None = None
    last_kind: Kind = Kind.NONE
    newest: str = ""
    """The point of the lab's replica that is the replica's disks."""
    failed_over_to: str = ""
    failed_over_kind: Kind = Kind.NONE
    points: list[KeptPoint] = []
    replicated_disks: list[str] = []
    """Their paths; empty on the replica's side."""
    test_vm_id: str = ""
    resumes_as: ReplicationState = ReplicationState.REPLICATING
    """What an error stopped, and what it is again once it is resumed."""
    awaits_first_cycle: bool = False
    """It was turned round after a planned failover, and nothing was sent in the new direction yet."""
    cycles: int = 0
    errors: int = 0
    missed: int = 0


class TrackedPoint(BaseModel):
    """A reference point: what was written later is marked with a later generation than this in the lab's block maps.

    ``disks``: the tracking id of each disk, by its instance id."""

    generation: int
    application_consistent: bool
    disks: dict[str, str]


class FrozenDisks(BaseModel):
    """A recovery checkpoint. ``snapshot`` is the lab's; ``files``: by controller, what the disks held then."""

    snapshot: str
    files: dict[str, str]


class ChangeTracking(BaseModel):
    points: dict[str, TrackedPoint] = {}
    checkpoints: dict[str, FrozenDisks] = {}
    items: dict[str, str] = {}
    """Pairs that leeward keeps with the machine."""
    files: int = 0
    """How many files were made for checkpoints."""


class Vm(BaseModel):
    """``machine`` is its folder at the lab site, which stays when the machine is renamed or moved."""

    id: str
    name: str
    machine: str
    switch: str = ""
    notes: str = ""
    generation: int = 2
    disks: list[VirtualDisk] = []
    services: list[IntegrationService] = []
    replication: Replication | None = None
    tracking: ChangeTracking = ChangeTracking()
    role: RoleState = RoleState.OFFLINE
    """On a node of a cluster: what the cluster does with it. Its group is where it is."""
    starts_with_host: bool = False
    """It ran when its host went down (``AutomaticStartAction`` StartIfRunning, the default)."""

    @property
    def group(self) -> GroupState:
        """The configuration's resource, which is in the group too, stays online."""
        known = {
            RoleState.ONLINE: GroupState.ONLINE,
            RoleState.OFFLINE: GroupState.PARTIAL_ONLINE,
            RoleState.FAILED: GroupState.FAILED,
        }
        return known.get(self.role, GroupState.PENDING)

    @property
    def mode(self) -> ReplicationMode:
        return self.replication.mode if self.replication else ReplicationMode.NONE

    @property
    def state(self) -> ReplicationState:
        return self.replication.state if self.replication else ReplicationState.DISABLED


class Host(BaseModel):
    """A host and its settings as a replica server (Set-VMReplicationServer)."""

    name: str
    site: str
    cluster: str = ""
    broker: str = ""
    cluster_service: str = "Running"
    """``Status`` of the service, on a node of a cluster."""
    accepts_replicas: bool = True
    port: int = 80
    authentication: str = "Kerberos"
    from_any_server: bool = True
    authorizations: list[Authorization] = []
    vms: dict[str, Vm] = {}
    private_switches: list[str] = []
    """Those that were made by New-VMSwitch; the others are the networks of the site."""
    reboots: int = 0
    is_down: bool = False
    """It lost power and did not come up yet: it replicates nothing by itself."""
    up_since: datetime | None = None
    """None: for long."""

    @property
    def full_name(self) -> str:
        return f"{self.name}.{DOMAIN}"


DOMAIN = "hyperv.example"


class FabricState(BaseModel):
    hosts: dict[str, Host] = {}

    def save(self, path: Path) -> None:
        write_document(path, FORMAT, VERSION, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> FabricState | None:
        """None: the fabric was never there. Raises ``Damaged``."""
        return cls.model_validate(read_document(path, FORMAT, VERSION)) if path.exists() else None


def new_id() -> str:
    return str(uuid.uuid4())
