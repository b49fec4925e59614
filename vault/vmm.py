"""What the inventory says about the VMM server of a Hyper-V site (``docs/hyperv.md``)."""

from __future__ import annotations

from pydantic import Field

from vault.domain import Value
from vault.hyperv import HOST_PATTERN, REFERENCE_PATTERN

CLOUD_PATTERN = r"^[^/]+/.+$"


class VmmSite(Value):
    """The VMM server that manages the site's hosts. The login is that of the hosts, unless this says otherwise."""

    server: str = Field(pattern=HOST_PATTERN)
    """``name`` or ``name:port``; the name that its certificate carries."""
    cloud: str = Field(min_length=1)
    """The private cloud of the site's machines, but for those that name another, and of replicas from sites whose own
    cloud it is mapped to."""
    user: str | None = None
    credentials: str | None = Field(default=None, pattern=REFERENCE_PATTERN)
    """A reference to the password of ``user``."""
    ca: str | None = None


class CloudMapping(Value):
    """``source`` and ``target`` are ``site/cloud``; it holds in both directions. The clouds that two sites name as
    their own are mapped to each other without one."""

    source: str = Field(pattern=CLOUD_PATTERN)
    target: str = Field(pattern=CLOUD_PATTERN)
