"""How much may be recovered at the same time: what keeps a site from starting more machines than it can carry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vault.domain import Value

AtOnce = Annotated[int, Field(ge=1, le=10_000)]


class SiteLimits(Value):
    """What a site can carry. ``failovers_at_once``: machines failed over to it, or tested at it, at the same time; of
    all plans together. None: as many as are asked for."""

    failovers_at_once: AtOnce | None = None


class PlanLimits(Value):
    """What one plan's runs allow themselves: ``machines_at_once`` are worked on at the same time. None: no limit."""

    machines_at_once: AtOnce | None = None


class FailoverLimits(Value):
    """The limits of sites, for the machines of one plan.

    Attributes:
        at_once: by site; sites without a limit are not there.
        sites: by machine, its own site and its recovery site; only when one of them has a limit.
    """

    at_once: dict[str, AtOnce] = {}
    sites: dict[str, tuple[str, str]] = {}

    def limited_site(self, machine: str, *, backwards: bool) -> str | None:
        """The site with a limit that the machine is failed over to; ``backwards``: to its own site."""
        own, recovery = self.sites.get(machine, ("", ""))
        site = own if backwards else recovery
        return site if site in self.at_once else None
