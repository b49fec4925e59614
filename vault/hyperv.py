"""What the inventory says about Hyper-V sites and their machines (``docs/hyperv.md``)."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from vault.domain import Value

HOST_PATTERN = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+)(:[0-9]{1,5})?$"
REFERENCE_PATTERN = r"^(env|file):.+$"

FREQUENCIES_S = (30, 300, 900)
"""The replication frequencies of Hyper-V Replica (``-ReplicationFrequencySec`` of Enable-VMReplication)."""
MOST_RECOVERY_POINTS = 24
"""Hourly recovery points besides the latest (``-RecoveryHistory`` of Enable-VMReplication)."""
APP_CONSISTENT_HOURS = (1, 12)
"""Least and most hours between two app-consistent points (``-VSSSnapshotFrequencyHour`` of Enable-VMReplication)."""


class HyperVReplicaServer(Value):
    """How hosts of other sites replicate to this one."""

    server: str | None = None
    """The name that primary servers connect to; None: the first host. For a cluster it has to be that of its Hyper-V
    Replica Broker."""
    authentication: Literal["kerberos", "certificate"] = "kerberos"
    port: int | None = Field(default=None, ge=1, le=65535)
    """None: 80 for Kerberos, 443 for certificates, which replica servers are set up with by default."""
    certificate_thumbprint: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{40}$")
    """The certificate that this site's hosts show when they replicate to others; None: the one that a host is
    configured with as a replica server."""
    storage: str | None = None
    """The folder in which replicas are kept, to say whether they fit; None: the one that a host is configured with."""
    compression: bool = True

    @property
    def listens_on(self) -> int:
        return self.port or (80 if self.authentication == "kerberos" else 443)


class DiskFolder(Value):
    """Where workers of the site find files of its hosts' virtual disks: a mounted share, a cluster's volume."""

    path: str = Field(pattern=r"^([A-Za-z]:\\|\\\\)")
    """On the host, such as ``D:\\VMs`` or ``C:\\ClusterStorage``."""
    folder: str = Field(pattern=r"^/")
    """The same folder on the worker."""
    host: str | None = None
    """As in ``hosts``; None: on all of them."""


class HyperVSite(Value):
    """The site's hosts and how leeward logs in to them by WinRM; ``credentials`` of the site is the password."""

    hosts: list[str] = []
    """``name`` or ``name:port``; the names that the hosts' certificates carry. Empty: those that the site's VMM
    server has in the site's cloud."""
    authentication: Literal["kerberos", "ntlm", "credssp", "certificate", "basic"] = "kerberos"
    user: str | None = None
    """``DOMAIN\\user`` or ``user@domain``."""
    certificate: str | None = None
    certificate_key: str | None = None
    """PEM files on the worker's host, for ``certificate``."""
    ca: str | None = None
    """A PEM file with the authorities to trust instead of the usual ones."""
    replica: HyperVReplicaServer = HyperVReplicaServer()
    disk_folders: list[DiskFolder] = []
    """Needed only for machines that leeward replicates itself, such as those to Azure."""

    @model_validator(mode="after")
    def _hosts_are_addresses(self) -> HyperVSite:
        for host in self.hosts:
            if not re.match(HOST_PATTERN, host):
                raise ValueError(f"'{host[:60]}' is not a host; write its name, or name:port")
        if len(set(self.hosts)) < len(self.hosts):
            raise ValueError("a host is named twice; keep one of them")
        for folder in self.disk_folders:
            if folder.host is not None and folder.host not in self.hosts:
                raise ValueError(f"'disk_folders' names '{folder.host}'; name a host that is among 'hosts', or none")
        return self

    @model_validator(mode="after")
    def _has_what_the_login_needs(self) -> HyperVSite:
        if self.authentication == "certificate" and not (self.certificate and self.certificate_key):
            raise ValueError("authentication 'certificate' needs more; add 'certificate' and 'certificate_key'")
        if self.authentication in ("ntlm", "credssp", "basic") and not self.user:
            raise ValueError(
                f"authentication '{self.authentication}' needs more; add 'user', and 'credentials' to the site"
            )
        return self


class HyperVMachine(Value):
    """What leeward has to know about a virtual machine besides its name."""

    name: str | None = None
    """Its name in Hyper-V, when that is not the machine's name in the vault."""
    cloud: str | None = None
    """Its private cloud in VMM at its own site, when that is not the site's."""
    excluded_disks: list[str] = []
    """Paths of virtual disks that are not replicated."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """The TCP port where the machine answers; None: its heartbeat is enough."""
    guest_user: str | None = None
    guest_password: str | None = Field(default=None, pattern=REFERENCE_PATTERN)
    """A reference. Scripts in the guest run as ``guest_user``, by PowerShell Direct."""
