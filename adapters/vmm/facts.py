"""What a VMM server says about its clouds, hosts, networks and machines: the models that its scripts answer with.

Sizes are in bytes. ``id`` is VMM's own identifier; a machine's ``vm_id`` is the one that Hyper-V gave it.
"""

from __future__ import annotations

from vault.domain import Value

HYPER_V = "HyperV"
BUILT_IN_PROFILE = "Hyper-V"
"""The capability profile that every VMM server has."""
MISSING = "Missing"
"""``Status`` of a machine that VMM no longer finds on its host."""


class CapabilityProfile(Value):
    name: str
    fabric: str = ""
    """``FabricCapabilityType`` (New-SCCapabilityProfile); empty for built-in ones on some versions."""


class Cloud(Value):
    """Get-SCCloud: a private cloud."""

    id: str
    name: str
    capability_profiles: list[CapabilityProfile] = []
    host_groups: list[str] = []
    """Paths of the host groups it is made of."""
    logical_networks: list[str] = []

    @property
    def is_for_hyperv(self) -> bool:
        """Whether machines of Hyper-V may be in it: it has a capability profile for them."""
        return any(
            HYPER_V in profile.fabric or profile.name == BUILT_IN_PROFILE for profile in self.capability_profiles
        )

    def has(self, host: ManagedHost) -> bool:
        """Whether the host is in one of its host groups, or in a group below."""
        return any(host.host_group == group or host.host_group.startswith(f"{group}\\") for group in self.host_groups)


class HostGroup(Value):
    id: str
    name: str
    path: str


class ManagedHost(Value):
    """Get-SCVMHost: a host that VMM manages."""

    id: str
    name: str
    """The full domain name."""
    computer_name: str
    host_group: str
    """The path of its group."""
    cluster: str = ""
    platform: str
    """``HyperV``, or another of ``VirtualizationPlatform``."""
    state: str
    """``OverallState``: ``OK`` when VMM finds nothing wrong."""
    responding: bool
    maintenance: bool
    available_for_placement: bool
    available_memory: int
    available_storage: int
    logical_networks: list[str] = []


class LogicalNetwork(Value):
    id: str
    name: str


class VmNetwork(Value):
    """Get-SCVMNetwork: what machines are connected to; it runs on a logical network."""

    id: str
    name: str
    logical_network: str


class VmmFabric(Value):
    """Everything but machines. The lists are complete: what is not in one, the login may not see, or is not there."""

    server: str
    version: str
    clouds: list[Cloud]
    host_groups: list[HostGroup]
    hosts: list[ManagedHost]
    logical_networks: list[LogicalNetwork]
    vm_networks: list[VmNetwork]


class DiskDrive(Value):
    """``kind`` and ``format`` in VMM's words: ``DynamicallyExpanding``, ``FixedSize``, ``Differencing``; ``VHDX`` …"""

    path: str
    size: int = 0
    file_size: int = 0
    kind: str = ""
    format: str = ""
    controller: str
    pass_through: bool = False


class Adapter(Value):
    """A network adapter of a machine, and what it is connected to; empty: nothing."""

    id: str
    name: str
    vm_network: str = ""
    logical_network: str = ""
    switch: str = ""
    addresses: list[str] = []


class ManagedMachine(Value):
    """Get-SCVirtualMachine: a machine on a host, as VMM saw it when it last refreshed."""

    id: str
    vm_id: str
    name: str
    host: str
    """The full domain name of the host."""
    cloud: str = ""
    """Empty: it belongs to no cloud."""
    status: str
    generation: int
    is_primary: bool = False
    """``IsPrimaryVM``: Hyper-V Replica reads from it."""
    is_replica: bool = False
    """``IsRecoveryVM``: Hyper-V Replica writes to it."""
    highly_available: bool = False
    heartbeat: bool = True
    shutdown: bool = True
    backup: bool = True
    """Which integration services are on."""
    disks: list[DiskDrive] = []
    adapters: list[Adapter] = []


class ManagedMachines(Value):
    machines: list[ManagedMachine]


class Connected(Value):
    found: bool
    """Whether VMM has the machine, after it looked at the host again. If not, nothing was changed."""
