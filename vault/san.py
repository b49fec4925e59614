"""What the inventory says about arrays and the machines on their volumes (``docs/san.md``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from vault.domain import MachineName, Value

REFERENCE_PATTERN = r"^(env|file):.+$"
POOL_PATTERN = r"^[^/]+/[^/].*$"
DiskName = str
VolumeName = str


class ArrayAccess(Value):
    """The site's array, and how its hosts reach their volumes."""

    url: str = Field(pattern=r"^https://[^/?#\s]+/?$")
    user: str
    password: str = Field(pattern=REFERENCE_PATTERN)
    """A reference."""
    ca: str | None = None
    """A PEM file with the authorities to trust instead of the usual ones, on the worker's host."""
    array: str
    """The array's name: the ElementName of its CIM_ComputerSystem, the Name of its Storage resource."""
    initiators: list[str] = Field(min_length=1)
    """The initiators of the site's hosts, which see the volumes."""
    portal: str | None = Field(default=None, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}$")
    """``host:port`` where the machines of a lab site reach the array's volumes (NBD)."""

    @property
    def ca_file(self) -> Path:
        return Path(self.ca or "")


class SmisStorage(ArrayAccess):
    """An array that is managed by an SMI-S provider."""

    kind: Literal["smis"]
    namespace: str = "root/cimv2"
    pool: str
    """The InstanceID of the pool in which replicas of other sites' volumes are made that no storage mapping places."""
    when_link_is_lost: Literal["go on", "wait"] = "go on"
    """Whether hosts of this site write on while the other array cannot be written."""


class SwordfishStorage(ArrayAccess):
    """An array that is managed by a Swordfish service. Groups are mirrored, and volumes shown to the hosts of both
    sites, by the array's own tools; leeward moves them."""

    kind: Literal["swordfish"]


Storage = Annotated[SmisStorage | SwordfishStorage, Field(discriminator="kind")]


class StorageMapping(Value):
    """``source`` and ``target`` are ``site/pool``, a pool by its InstanceID (SMI-S) or Id (Swordfish): replicas of
    volumes in the one are made in the other. It holds in both directions; the way back from a pool that several are
    mapped to needs a mapping of its own."""

    source: str = Field(pattern=POOL_PATTERN)
    target: str = Field(pattern=POOL_PATTERN)


class SanMachine(Value):
    """A machine whose disks are volumes of its site's array."""

    group: MachineName
    """Its replication group. All machines of a group are replicated and failed over as a whole."""
    mode: Literal["synchronous", "asynchronous"] = "synchronous"
    """``asynchronous``: hosts do not wait for the other array, which is the copy of an earlier moment."""
    volumes: dict[DiskName, VolumeName] = Field(min_length=1)
    """By disk, the volume's name (ElementName) on the array; the replica's volumes have the same names."""
