"""The hosts of a site that VMM manages: VMM says which has a machine, so nobody has to be asked in turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping

from adapters.hyperv.hosts import HyperVHosts, Located, Runs
from adapters.hyperv.settings import host_name
from adapters.vmm.facts import ManagedHost
from adapters.vmm.server import VmmServer
from vault.errors import LeewardError, Recoverable, Unreachable

logger = logging.getLogger(__name__)


class SessionsOfVmm(Mapping[str, Runs]):
    """A session for each host of VMM's cloud, under its full domain name: for a site whose inventory names no hosts.

    Which hosts there are is asked when it is first needed, and is as new as :meth:`VmmServer.fabric`."""

    def __init__(self, names: Callable[[], list[str]], session: Callable[[str], Runs]) -> None:
        self._names = names
        self._session = session
        self._sessions: dict[str, Runs] = {}
        self._lock = threading.Lock()

    def __getitem__(self, host: str) -> Runs:
        with self._lock:
            if host not in self._sessions:
                self._sessions[host] = self._session(host)
            return self._sessions[host]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


class VmmHosts(HyperVHosts):
    """A machine that moved is found with one question to VMM and one to its host. While VMM is away, or behind what
    happened on the hosts, all hosts are asked: a failover does not depend on it."""

    def __init__(self, site: str, sessions: Mapping[str, Runs], server: VmmServer) -> None:
        super().__init__(site, sessions)
        self.server = server
        self._ours: dict[str, str] = {}

    def called(self, host: ManagedHost) -> str | None:
        """The name by which leeward logs in to a host that VMM knows; None: it is not one of the site's.

        A host that the inventory names otherwise (by an address, an alias) is recognized by what it says about itself.
        """
        names = {host.name.casefold(), host.computer_name.casefold()}
        for name in self.names:
            if host_name(name).casefold() in names:
                return name
        if host.name not in self._ours:
            for name in self.names:
                if self._says_its_name(name) in names:
                    self._ours[host.name] = name
        return self._ours.get(host.name)

    def known_to_vmm(self, host: str) -> ManagedHost | None:
        """The other way round: what VMM knows about one of the site's hosts."""
        return next((known for known in self.server.fabric().hosts if self.called(known) == host), None)

    def _says_its_name(self, name: str) -> str:
        try:
            return self.facts(name).fully_qualified_name.casefold()
        except Recoverable as away:
            logger.warning("site %s: host %s is not asked for its name: %s", self.site, name, away)
            return ""

    def _find_anywhere(self, name: str) -> Located:
        for host in self._where_vmm_has_it(name):
            try:
                found = self._ask_for(host, name)
            except Unreachable as away:
                logger.warning("site %s: VMM has '%s' on %s, which does not answer: %s", self.site, name, host, away)
                continue
            if len(found) == 1:
                return found[0]
        return super()._find_anywhere(name)

    def _where_vmm_has_it(self, name: str) -> list[str]:
        """Empty when VMM does not answer, or refuses, does not know the machine, or knows several of that name."""
        try:
            known = {host.name: host for host in self.server.fabric().hosts}
            machines = [one for one in self.server.machines([name]) if one.host in known]
        except LeewardError as away:
            logger.warning(
                "site %s: all hosts are asked for '%s', because VMM does not tell: %s", self.site, name, away
            )
            return []
        hosts = [ours for one in machines if (ours := self.called(known[one.host])) is not None]
        return hosts if len(hosts) == 1 else []
