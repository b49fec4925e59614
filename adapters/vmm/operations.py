"""Everything that leeward asks of a VMM server, typed: one :class:`Operation` for each ``scripts/<name>.ps1``.

Two calls tell all about a server, however many hosts it manages: :data:`VMM_FABRIC` and :data:`VMM_MACHINES`.
"""

from __future__ import annotations

from typing import Any

from adapters.hyperv.operation import Operation
from adapters.hyperv.operations import Nothing
from adapters.vmm.facts import Connected, ManagedMachines, VmmFabric
from vault.domain import Value


class MachinesRequest(Value):
    names: list[str] | None = None
    """Only these machines, exactly by name; None: all that are on hosts."""


class ConnectMachine(Value):
    """Identifiers are VMM's, but for ``vm_id``: the machine's in Hyper-V."""

    host: str
    """The full domain name of the host that has the machine."""
    vm_id: str
    vm_network_id: str
    switch: str | None = None
    """The virtual switch to use; None: VMM chooses one that carries the network."""
    cloud_id: str | None = None
    """The cloud that the machine is put into; None: it stays where it is."""


VMM_FABRIC = Operation("vmm_fabric", Nothing, VmmFabric)
VMM_MACHINES = Operation("vmm_machines", MachinesRequest, ManagedMachines)
VMM_CONNECT = Operation("vmm_connect", ConnectMachine, Connected)
"""Lets VMM look at the host, connects all of the machine's network adapters, puts it into its cloud, and lets VMM look
at the machine. Each part may be repeated."""

OPERATIONS: dict[str, Operation[Any, Any]] = {
    operation.script: operation for operation in list(globals().values()) if isinstance(operation, Operation)
}
"""All of them by the name of their script."""
