"""A site in Azure as ``adapters.ports.StreamTarget``: it keeps replicas, and has no machines yet.

What would make or need a machine is refused in one sentence. Plans and jobs that ask for it are refused long before, by
``Relationship.recovers``.
"""

from __future__ import annotations

from collections.abc import Callable

from adapters.azure.connection import shared
from adapters.azure.errors import translated
from adapters.ports import Beat, JudgesReplicas, ScriptResult, StreamTarget
from replication.ports import OwnReplicaStore, ReplicaStore, Report
from vault.azure_networks import subnet_of
from vault.domain import (
    Answering,
    Finding,
    MachineDescription,
    NetworkKind,
    PowerState,
    RecoveryPoint,
    Relationship,
)
from vault.errors import InvalidState, LeewardError, NotFound
from vault.inventory import AzureReplicas, Inventory

MOST_OF_AN_ACCOUNT = 5 * 2**50
"""Bytes that a storage account holds at most by default. Source: Microsoft, "Scalability and performance targets for
standard storage accounts"."""


class AzureSite(StreamTarget, JudgesReplicas):
    """One site in Azure.

    Args:
        site: the site's name in the inventory.
        settings: its storage account.
        replica_stores: opens a machine's replica store.
    """

    def __init__(
        self,
        site: str,
        inventory: Inventory,
        settings: AzureReplicas,
        replica_stores: Callable[[str], OwnReplicaStore],
    ) -> None:
        self.site = site
        self._described = inventory.sites[site]
        self._settings = settings
        self._replica_stores = replica_stores

    # --- what there is ----------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        subject, settings = f"site {self.site}", self._settings
        containers = settings.container, settings.cache_container
        try:
            service = shared(settings)
            for container in containers:
                with translated(f"{settings.account_url}/{container}"):
                    service.get_container_client(container).get_container_properties()
        except LeewardError as error:
            return [Finding.failed(subject, f"{error.what} ({error.where})", error.remedy)]
        return [Finding.passed(subject, f"the storage account answers, with containers {' and '.join(containers)}")]

    def judge(self, relationship: Relationship) -> list[Finding]:
        wanted = (
            (relationship.target_network, NetworkKind.PRODUCTION),
            (relationship.test_network, NetworkKind.ISOLATED),
        )
        findings = [finding for network, kind in wanted for finding in self._of_network(network, kind)]
        return [
            *findings,
            Finding.warned(
                f"site {self.site}",
                "it keeps replicas and recovery points; leeward makes no virtual machines of them yet",
                "test failover and failover to it are refused until then",
            ),
        ]

    def _of_network(self, network: str, wanted: NetworkKind) -> list[Finding]:
        subject = f"network {network}"
        try:
            kind = self.network_kind(network)
        except NotFound as missing:
            return [Finding.of_error(subject, missing)]
        if kind != wanted:
            what = f"is of kind {kind}, but the mapping needs kind {wanted}"
            return [Finding.failed(subject, what, "correct the network mapping in the inventory")]
        subnet = subnet_of(self._described, network)
        return [
            Finding.passed(subject, f"{kind}, {subnet}"),
            Finding.warned(
                subject,
                "whether Azure has this subnet, and free addresses in it, is not checked yet: leeward speaks to Azure "
                "Storage only",
                f"look at it: az network vnet subnet show --ids {subnet.id}",
            ),
        ]

    def discover(self) -> list[MachineDescription]:
        return []

    def describe(self, machine: str) -> MachineDescription:
        raise self._not_there(machine)

    def free_space(self) -> int:
        return MOST_OF_AN_ACCOUNT

    def network_kind(self, network: str) -> str:
        networks = self._described.networks
        if network not in networks:
            known = ", ".join(networks)
            raise NotFound(f"unknown network '{network}'", where=f"site {self.site}", remedy=f"the site has: {known}")
        return networks[network].kind

    # --- replicas ---------------------------------------------------------------------------------------------

    def replica_store(self, machine: str) -> OwnReplicaStore:
        return self._replica_stores(machine)

    def retire_into_replica(self, machine: str, store: ReplicaStore, epoch: str) -> None:
        raise self._no_machines(machine)

    def made_from(self, machine: str) -> str | None:
        raise self._not_there(machine)

    def create_from_replica(
        self, machine: str, like: str, store: ReplicaStore, point: RecoveryPoint, network: str, report: Report
    ) -> MachineDescription:
        raise self._no_machines(machine)

    # --- machines, of which there are none --------------------------------------------------------------------

    def shut_down(self, machine: str, timeout_s: float, beat: Beat) -> PowerState:
        return PowerState.OFF

    def power_off(self, machine: str) -> None:
        """Nothing runs here."""

    def remove(self, machine: str) -> None:
        """Nothing is here."""

    def start(self, machine: str) -> None:
        raise self._no_machines(machine)

    def wait_until_answering(self, machine: str, timeout_s: float, beat: Beat) -> Answering:
        raise self._no_machines(machine)

    def run_in_guest(
        self, machine: str, command: list[str], environment: dict[str, str], timeout_s: float, beat: Beat
    ) -> ScriptResult:
        raise self._no_machines(machine)

    def _not_there(self, machine: str) -> NotFound:
        return NotFound(f"there is no machine '{machine}'", where=f"site {self.site}", remedy="it has none yet")

    def _no_machines(self, machine: str) -> InvalidState:
        return InvalidState(
            f"'{machine}' cannot run in Azure: leeward makes no virtual machines there yet",
            where=f"site {self.site}",
            remedy="its recovery points are in the storage account",
        )
