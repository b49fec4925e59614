"""What a Hyper-V host says about itself and its machines: the models that its scripts answer with.

Sizes are in bytes, moments in UTC. Identifiers are GUIDs as text; a machine has the same one on both sides of a
relationship and keeps it when it is renamed or moved, its name may change at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import AwareDatetime

from adapters.hyperv.states import (
    GroupState,
    ReplicationHealth,
    ReplicationMode,
    ReplicationState,
    RoleState,
    VmState,
)
from vault.domain import Value

Authentication = Literal["Kerberos", "Certificate"]
"""How hosts authenticate to each other (``-AuthenticationType`` of Enable-VMReplication)."""


class Authorization(Value):
    """Get-VMReplicationAuthorizationEntry: a primary server (``*`` stands for any label) and where its replicas go."""

    server: str
    storage: str


class ReplicaServer(Value):
    """Get-VMReplicationServer: whether, how and from whom the host accepts replicas."""

    enabled: bool
    kerberos_port: int
    certificate_port: int
    authentication: Literal["Kerberos", "Certificate", "CertificateAndKerberos"]
    certificate_thumbprint: str = ""
    from_any_server: bool
    storage: str = ""
    """Where replicas are kept when ``from_any_server``."""
    authorizations: list[Authorization] = []


class Volume(Value):
    path: str
    """``D:`` or the folder of a mounted or cluster shared volume."""
    free: int
    size: int


class Switch(Value):
    name: str
    kind: Literal["Private", "Internal", "External"]


class Certificate(Value):
    """A certificate with a private key in the host's own store that could serve replication."""

    thumbprint: str
    subject: str
    not_after: AwareDatetime
    dns_names: list[str] = []
    usages: list[str] = []
    """The object identifiers of its extended key usage; none: it may be used for everything."""


class HostFacts(Value):
    """A host as the login that asked sees it."""

    computer_name: str
    fully_qualified_name: str
    time: AwareDatetime
    """The host's clock."""
    os_version: str
    powershell_version: str
    hyperv_module_version: str = ""
    """Empty: the module is not installed."""
    administrator: bool
    """The login may manage Hyper-V: it is in Administrators or Hyper-V Administrators."""
    cluster: str = ""
    """Empty: not a cluster node."""
    replica_broker: str = ""
    """The network name of the cluster's Hyper-V Replica Broker; empty: there is none."""
    broker_online: bool = True
    replica_server: ReplicaServer | None = None
    """None: the module is missing, or the login may not ask."""
    replica_firewall_open: bool = False
    """At least one of the firewall's inbound rules for Hyper-V Replica is enabled."""
    virtual_disk_path: str = ""
    volumes: list[Volume] = []
    switches: list[Switch] = []
    certificates: list[Certificate] = []


class VirtualDisk(Value):
    """A hard disk of a machine. ``path`` is the file that is written now, or the name of a physical disk."""

    path: str
    size: int = 0
    file_size: int = 0
    kind: Literal["Fixed", "Dynamic", "Differencing", "Unknown"] = "Unknown"
    format: Literal["VHD", "VHDX", "VHDSet", "Unknown"] = "Unknown"
    parent_path: str = ""
    base_path: str = ""
    """The file at the bottom of checkpoints, by which people know the disk; empty: there are none, or nobody tells."""
    controller: str
    """``SCSI 0:1``: kind, number and location."""
    pass_through: bool = False
    """A physical disk given to the machine."""
    shared: bool = False
    """Other machines may write to it too."""
    problem: str = ""
    """Why the host could not read the file's header; sizes and kind are unknown then."""

    def is_among(self, paths: Iterable[str]) -> bool:
        """Whether one of the paths means this disk."""
        return not {self.path.casefold(), self.base_path.casefold()}.isdisjoint(path.casefold() for path in paths)


class Checkpoint(Value):
    id: str
    name: str
    kind: str
    """``SnapshotType`` of Get-VMSnapshot."""
    time: AwareDatetime


class IntegrationService(Value):
    """``name`` is in the host's language; ``component`` is the last part of its identifier, the same everywhere."""

    name: str
    component: str
    enabled: bool
    ok: bool


class NetworkAdapter(Value):
    id: str
    name: str
    switch: str = ""
    addresses: list[str] = []


class Replication(Value):
    """Get-VMReplication of one machine, seen from the host that was asked."""

    state: ReplicationState
    health: ReplicationHealth
    mode: ReplicationMode
    primary_server: str = ""
    replica_server: str = ""
    replica_port: int = 0
    authentication: str = ""
    frequency_s: int = 0
    recovery_history: int = 0
    vss_frequency_h: int = 0
    last_replication: AwareDatetime | None = None
    replicated_disks: list[str] = []
    test_vm_id: str = ""
    """On a replica: the copy that a test failover made; empty: none runs."""
    extended_to: str = ""
    """On a replica: the server of a replica of its own (extended replication); empty: it has none."""


class VirtualMachine(Value):
    id: str
    name: str
    state: VmState
    status: str = ""
    """What the host says about it, in the host's language."""
    generation: int
    version: str
    notes: str = ""
    clustered: bool = False
    """It is a role of its host's cluster."""
    automatic_start: str = ""
    """Whether its host starts it by itself when that was restarted (``-AutomaticStartAction`` of Set-VM)."""
    automatic_start_delay_s: int = 0
    disks: list[VirtualDisk] = []
    checkpoints: list[Checkpoint] = []
    integration_services: list[IntegrationService] = []
    network_adapters: list[NetworkAdapter] = []
    replication: Replication | None = None
    """None: the machine is not replicated."""

    def disks_without(self, excluded: list[str]) -> list[VirtualDisk]:
        """``excluded``: paths of disks, as the inventory's ``excluded_disks`` names them."""
        return [disk for disk in self.disks if not disk.is_among(excluded)]


class HostInventory(Value):
    machines: list[VirtualMachine]
    uptime_s: float | None = None
    """Since the host was started."""
    cluster_service: str = ""
    """``Status`` of its cluster service; empty: the host is no node of a cluster."""


class ClusterRole(Value):
    """A machine as its cluster sees it: the resource of type "Virtual Machine" and the group that it is in.

    ``state`` is what the cluster wants it to be, or is about to make it: an ``Offline`` one is left off, also when its
    node dies or the cluster is started ("PersistentState", failover cluster reference)."""

    name: str
    group: str
    vm_id: str
    state: RoleState
    group_state: GroupState
    owner: str
    """The node that has it, by its short name."""


class ClusterRoles(Value):
    node: str
    """Who was asked, by its short name."""
    roles: list[ClusterRole]
    vm_state: VmState | None = None
    """Of the machine that was asked for, on this node, looked at after the cluster; None: all were asked for."""


class Measurement(Value):
    """Measure-VMReplication of one machine."""

    vm_id: str
    name: str
    vm_state: VmState
    state: ReplicationState
    health: ReplicationHealth
    mode: ReplicationMode
    health_details: list[str] = []
    """Sentences of the host about why the health is what it is, in its language."""
    last_replication: AwareDatetime | None = None
    last_was_application_consistent: bool = False
    last_was_planned: bool = False
    """The last changes of a planned failover have arrived."""
    failed_over_planned: bool = False
    """A failed-over replica was made from those."""
    pending_bytes: int = 0
    """What the source has and the replica does not have yet."""
    average_bytes: int = 0
    """Of one replication cycle."""
    average_latency_s: float = 0
    errors: int = 0
    missed: int = 0
    """Replication cycles since the monitoring interval began."""
    percent: int | None = None
    """How far a running initial replication or resynchronization is; None: none runs."""


class Measurements(Value):
    time: AwareDatetime
    machines: list[Measurement]


class ReplicaPoint(Value):
    """A recovery checkpoint of a replica."""

    id: str
    name: str
    time: AwareDatetime
    application_consistent: bool


class ReplicaPoints(Value):
    """``latest`` is the moment of the replica's disks themselves; ``points`` is oldest first."""

    latest: AwareDatetime | None
    points: list[ReplicaPoint]


class GuestStatus(Value):
    """What the integration services tell about the guest."""

    vm_state: VmState
    uptime_s: float
    heartbeat: str
    """``VMHeartbeatStatus`` of Get-VM, such as ``OkApplicationsHealthy`` or ``NoContact``."""
    addresses: list[str]
    published: dict[str, str]
    """Data exchange: the pairs that software in the guest offers to the host."""


class GuestResult(Value):
    exit_code: int
    output: str


class ReferencePoint(Value):
    """Resilient change tracking of a machine's disks begins here.

    ``disks`` maps the WMI instance id of a disk's setting data, which names its controller and location, to the
    tracking id that GetVirtualDiskChanges takes ("Msvm_VirtualSystemReferencePoint class", Microsoft's reference)."""

    id: str
    application_consistent: bool
    disks: dict[str, str]


class ChangedRange(Value):
    offset: int
    length: int


class ChangedRanges(Value):
    """Ascending. Everything before ``processed_until`` was looked at; what is behind it has to be asked for."""

    processed_until: int
    ranges: list[ChangedRange]


class TrackedDisk(Value):
    """A hard disk of a machine as change tracking sees it."""

    controller: str
    """``SCSI 0:1``: the same for the machine and all of its checkpoints."""
    instance_id: str
    path: str
    """The file that is written now."""
    parent_path: str = ""
    """The file of the newest checkpoint, which that one leans on; empty: there is no checkpoint."""
    base_path: str = ""
    """The file at the bottom, which leans on none."""
    size: int = 0
    file_size: int = 0
    pass_through: bool = False


class CheckpointDisk(Value):
    controller: str
    path: str


class RecoveryCheckpoint(Value):
    """A checkpoint without memory, as backups make it; its files are not written to any more."""

    name: str
    disks: list[CheckpointDisk]


class HostItem(Value):
    """A pair that the host keeps with the machine and does not show to its guest."""

    name: str
    value: str


class Tracked(Value):
    """All that change tracking of one machine goes by, seen at once."""

    disks: list[TrackedDisk]
    checkpoints: list[RecoveryCheckpoint]
    reference_points: list[ReferencePoint]
    items: list[HostItem]
    """Leeward's own."""


class TestMachine(Value):
    """The copy that a test failover made."""

    __test__ = False

    vm_id: str
    name: str
