"""The vault's inventory: what ``leeward.yaml`` says. Models only; reading the file is :mod:`vault.loading`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, PlainSerializer, model_validator

from vault.access import Access, AccessSection
from vault.azure import AzureNetwork, AzureSettings
from vault.domain import MachineName, NetworkKind, Relationship, Retention, Value
from vault.hyperv import HyperVMachine, HyperVSite
from vault.limits import FailoverLimits, SiteLimits
from vault.notifications import Webhook
from vault.san import SanMachine, Storage, StorageMapping, SwordfishStorage
from vault.vmm import CloudMapping, VmmSite

_DURATION = re.compile(r"^(?P<number>\d{1,12}(\.\d{1,24})?)\s*(?P<unit>ms|s|m|min|h|d)$", re.ASCII)
DURATION_PATTERN = r"^ *[0-9]+(\.[0-9]+)? *(ms|s|m|min|h|d) *$"
"""For editors; :func:`parse_duration` decides."""
SIZE_PATTERN = r"^ *[0-9]+(\.[0-9]+)? *(B|KiB|MiB|GiB|TiB) *$"
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"^(?P<number>\d{1,18}(\.\d{1,18})?)\s*(?P<unit>B|KiB|MiB|GiB|TiB)$", re.ASCII)
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_duration(value: Any) -> Any:
    """``30s``, ``5m``, ``1.5h``, ``2d`` → seconds; a bare number is refused, because its unit would be a guess."""
    if isinstance(value, str):
        match = _DURATION.match(value.strip())
        if match:
            return float(match["number"]) * _SECONDS[match["unit"]]
        raise ValueError(f"'{value[:60]}' is not a duration; write a number with a unit, like 30s, 5m or 2h")
    raise ValueError(f"'{str(value)[:60]}' has no unit; write a duration like 30s, 5m or 2h")


def parse_size(value: Any) -> Any:
    """``64MiB``, ``1.5GiB`` → bytes."""
    if isinstance(value, str):
        match = _SIZE.match(value.strip())
        if match:
            return int(Decimal(match["number"]) * _BYTES[match["unit"]])
    raise ValueError(f"'{str(value)[:60]}' is not a size; write a number with a unit, like 64MiB or 20GiB")


def format_duration(seconds: float) -> str:
    """Seconds in the notation that :func:`parse_duration` reads, exactly: ``90s``."""
    return f"{Decimal(repr(seconds)):f}s".replace(".0s", "s")


def format_size(size: int) -> str:
    """Bytes in the notation that :func:`parse_size` reads, exactly: ``4096B``."""
    return f"{size}B"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=Annotated[str, Field(pattern=DURATION_PATTERN)]),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
"""Seconds; written with a unit in YAML and JSON, so that what was written can be read again."""
Size = Annotated[
    int,
    BeforeValidator(parse_size, json_schema_input_type=Annotated[str, Field(pattern=SIZE_PATTERN)]),
    PlainSerializer(format_size, return_type=str, when_used="json"),
]
"""Bytes; written with a unit in YAML and JSON, so that what was written can be read again."""
PositiveDuration = Annotated[Duration, Field(gt=0)]
PositiveSize = Annotated[Size, Field(gt=0)]
TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class Network(Value):
    kind: NetworkKind = NetworkKind.PRODUCTION
    description: str = ""
    switch: str | None = None
    """The virtual switch in Hyper-V; None: it has the network's name, or VMM chooses it."""
    vm_network: str | None = None
    """The VM network in VMM; None: it has the network's name."""
    azure: AzureNetwork | None = None
    """The subnet in Azure."""


class AzureReplicas(Value):
    """Replicas in an Azure Storage account (``docs/azure.md``), instead of the site's own files."""

    kind: Literal["azure"]
    account_url: str = Field(pattern=r"^https://[^/?#\s]+(/[^?#\s]*)?$")
    container: str = Field(default="replicas", pattern=r"^[a-z0-9](-?[a-z0-9]){2,62}$")
    """Holds the replicas' page blobs and manifests."""
    cache_container: str = Field(default="replica-cache", pattern=r"^[a-z0-9](-?[a-z0-9]){2,62}$")
    """Deltas wait here until they are applied."""
    credential: str | None = Field(default=None, pattern=r"^(env|file):.+$")
    """A reference to a connection string or a shared access signature; None: the worker's own identity in Azure."""
    ca_file: str | None = None
    """Certificates to trust instead of the system's, as a PEM file on the worker's host."""


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class BandwidthWindow(Value):
    """On these days between these times (UTC) another limit holds; ``until`` before ``from`` is on the next day."""

    days: list[Weekday] = Field(default=list(_WEEK), min_length=1)
    start: TimeOfDay = Field(validation_alias=AliasChoices("from", "start"))
    until: TimeOfDay
    limit: PositiveSize | None = None
    """Bytes a second; None: no limit in this window."""

    def holds(self, moment: datetime) -> bool:
        time, today = moment.strftime("%H:%M"), _WEEK[moment.weekday()]
        if self.start < self.until:
            return today in self.days and self.start <= time < self.until
        yesterday = _WEEK[moment.weekday() - 1]
        return (today in self.days and time >= self.start) or (yesterday in self.days and time < self.until)


class Bandwidth(Value):
    """What a worker of a site may send to other sites, for all of its machines together. Sizes are bytes a second."""

    limit: PositiveSize | None = None
    """Outside of all windows; None: no limit."""
    windows: list[BandwidthWindow] = []
    """The first one that holds decides."""

    def at(self, moment: datetime) -> int | None:
        """Bytes a second that may be sent at ``moment`` (UTC); None: as fast as it goes."""
        for window in self.windows:
            if window.holds(moment):
                return window.limit
        return self.limit


MAKES_MACHINES = frozenset({"lab", "hyperv"})
"""Fabrics that leeward can make machines at. In Azure it only keeps replicas yet."""


class Site(Value):
    """A place with one fabric. ``credentials`` is a reference (``env:NAME`` or ``file:PATH``), never a secret."""

    fabric: Literal["lab", "hyperv", "azure"]
    description: str = ""
    networks: dict[MachineName, Network] = Field(min_length=1)
    credentials: str | None = Field(default=None, pattern=r"^(env|file):.+$")
    capacity: Size | None = None
    """Bytes that images, logs and replicas of this site may use in all; None: as much as the disk has."""
    replica_store: AzureReplicas | None = None
    """Where replicas of other sites' machines are kept; None: in files of the site."""
    master_target: str | None = Field(default=None, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}$")
    """``host:port`` where process servers reach the site's master target; None: they write to its files themselves."""
    pki: str | None = Field(default=None, pattern=r"^(env|file):.+$")
    """A reference to the folder with this site's certificate (``leeward pki``), on the hosts of the site."""
    replica_key: str | None = Field(default=None, pattern=r"^(env|file):.+$")
    """A reference to the key that wraps the keys of the machines replicated to this site; None: no encryption."""
    bandwidth: Bandwidth | None = None
    limits: SiteLimits = SiteLimits()
    cache: Size = 2**30
    """Bytes of changes that may wait on this site's disk while a target does not take them; 0B: none do."""
    hyperv: HyperVSite | None = None
    vmm: VmmSite | None = None
    azure: AzureSettings | None = None
    storage: Storage | None = None
    """The site's array, for machines whose disks are its volumes."""

    @model_validator(mode="after")
    def _a_master_target_has_a_certificate(self) -> Site:
        if self.master_target and not self.pki:
            raise ValueError("'master_target' needs 'pki', the folder with the site's certificate")
        return self


class ResyncWindow(Value):
    """When an automatic resynchronization may start, in UTC: outside business hours by default."""

    start: str = Field(
        default="18:00", validation_alias=AliasChoices("from", "start"), pattern=r"^([01]\d|2[0-3]):[0-5]\d$"
    )
    until: str = Field(default="06:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")


class InitialReplication(Value):
    """``media``: the first copy is carried to the target by people (``leeward seed``), then the rest is sent.
    ``existing``: a copy of the machine was restored at the target; what differs is sent."""

    method: Literal["network", "media", "existing"] = "network"
    start: str = "immediately"
    """``immediately`` or a daily UTC time ``HH:MM`` at which the copy starts."""

    @model_validator(mode="after")
    def _start_is_known(self) -> InitialReplication:
        if self.start != "immediately" and not re.match(r"^([01]\d|2[0-3]):[0-5]\d$", self.start):
            raise ValueError(f"'{self.start[:60]}' is neither 'immediately' nor a time like 22:00")
        return self


class Policy(Value):
    """How a machine is replicated (requirements §C)."""

    frequency: PositiveDuration
    retention: Retention = Retention()
    app_consistent_every: PositiveDuration | None = None
    resync: Literal["window", "at-once", "manual"] = "window"
    resync_window: ResyncWindow = ResyncWindow.model_validate({})
    initial_replication: InitialReplication = InitialReplication()


class NetworkMapping(Value):
    """``source`` and ``target`` are ``site/network``; it holds in both directions.

    ``test`` / ``source_test`` are the isolated networks that a test failover uses at the target / at the source side
    (the latter after a failover, when the direction is reversed).
    """

    source: str = Field(pattern=r"^[^/]+/[^/]+$")
    target: str = Field(pattern=r"^[^/]+/[^/]+$")
    test: str = Field(pattern=r"^[^/]+/[^/]+$")
    source_test: str = Field(pattern=r"^[^/]+/[^/]+$")


class LabDisk(Value):
    name: str = Field(pattern=r"^[a-z0-9-]+$")
    size: PositiveSize


class LabMachine(Value):
    """What the lab's fabric makes for a machine: its disks and the load of its guest."""

    disks: list[LabDisk] = Field(min_length=1)
    transactions_per_second: float = Field(default=50, gt=0, le=10000)
    transaction_size: PositiveSize = 4096
    tracking: Literal["log", "bitmap"] = "log"
    """How changes are known: every write in a log beside the disk, or a map of changed blocks."""


class Machine(Value):
    site: str
    target: str
    network: str
    """The production network at ``site`` that the machine is connected to."""
    policy: str
    description: str = ""
    lab: LabMachine | None = None
    hyperv: HyperVMachine | None = None
    san: SanMachine | None = None
    """Its disks are volumes of an array, which replicates them; None: they are not."""


class Inventory(Value):
    """The whole file. References between its parts are checked by :func:`vault.loading.load_inventory`."""

    version: Literal[1]
    sites: dict[MachineName, Site] = Field(min_length=1)
    policies: dict[MachineName, Policy] = Field(min_length=1)
    network_mappings: list[NetworkMapping] = []
    cloud_mappings: list[CloudMapping] = []
    storage_mappings: list[StorageMapping] = []
    machines: dict[MachineName, Machine] = {}
    consistency_groups: dict[MachineName, list[MachineName]] = {}
    """Machines that are also recovered to common moments: what one knows of another is never from its future."""
    access: AccessSection | None = None
    """Who may do what; without it everybody may do everything."""
    notifications: list[Webhook] = []

    @property
    def authorizer(self) -> Access | None:
        """Who may do what, as it is asked and travels with requests; None: everybody may do everything."""
        return self.access.resolved() if self.access is not None else None

    def group_of(self, machine: str) -> str:
        """The consistency group that a machine belongs to; empty when to none."""
        return next((name for name, members in self.consistency_groups.items() if machine in members), "")

    def relationship(self, name: str) -> Relationship:
        """The machine's replication in its forward direction.

        Raises:
            KeyError: when the machine is unknown.
            LookupError: when no network mapping leads from its network to its target site.
        """
        machine = self.machines[name]
        policy = self.policies[machine.policy]
        target, test = self.mapped_networks(machine.site, machine.network, machine.target)
        group = self.group_of(name)
        return Relationship(
            machine=name,
            source_site=machine.site,
            target_site=machine.target,
            target_network=target,
            test_network=test,
            frequency_s=policy.frequency,
            retention=policy.retention,
            app_consistent_every_s=policy.app_consistent_every,
            group=group,
            group_members=sorted(self.consistency_groups.get(group, [])),
            recovers=self.sites[machine.target].fabric in MAKES_MACHINES,
            existing_replica=policy.initial_replication.method == "existing",
            replication_group=machine.san.group if machine.san is not None else "",
            only_moves=machine.san is not None and isinstance(self.sites[machine.target].storage, SwordfishStorage),
        )

    def failover_limits(self, machines: Iterable[str]) -> FailoverLimits:
        """What the sites of these machines allow."""
        at_once = {
            name: site.limits.failovers_at_once
            for name, site in self.sites.items()
            if site.limits.failovers_at_once is not None
        }
        sites = {name: (self.machines[name].site, self.machines[name].target) for name in machines}
        return FailoverLimits(
            at_once=at_once, sites={name: both for name, both in sites.items() if not at_once.keys().isdisjoint(both)}
        )

    def mapped_networks(self, site: str, network: str, target_site: str) -> tuple[str, str]:
        """``(production, test)`` networks at ``target_site`` for a network at ``site``, in either direction."""
        here = f"{site}/{network}"
        for mapping in self.network_mappings:
            for source, target, test in (
                (mapping.source, mapping.target, mapping.test),
                (mapping.target, mapping.source, mapping.source_test),
            ):
                if source == here and target.startswith(f"{target_site}/"):
                    return target.split("/", 1)[1], test.split("/", 1)[1]
        raise LookupError(f"no network mapping leads from {here} to site '{target_site}'")
