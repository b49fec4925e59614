"""The VMM servers of a simulated fabric: each manages the hosts of its site and listens on 127.0.0.1."""

from __future__ import annotations

from functools import partial
from typing import Self

from simulation.hyperv.hosts import Hosts
from simulation.vmm.estate import estate_of
from simulation.vmm.server import SimulatedVmm
from simulation.winrm.accounts import Account
from simulation.winrm.answering import Answer, Request, Result
from simulation.winrm.server import WinRMServer
from vault import secrets
from vault.errors import BadInput
from vault.inventory import Inventory, Site
from vault.vmm import VmmSite


class VmmServers:
    """Serves until :meth:`close`; a context manager. What was changed on a server is forgotten then.

    Raises ``BadInput`` for a server that is not on 127.0.0.1, ``OSError`` for a port that is taken.
    """

    def __init__(self, hosts: Hosts, inventory: Inventory) -> None:
        self.simulated: dict[str, SimulatedVmm] = {}
        self.servers: dict[str, WinRMServer] = {}
        self._hosts = hosts
        for name, site in inventory.sites.items():
            if site.vmm is not None:
                self._serve(inventory, name, site, site.vmm)

    def _serve(self, inventory: Inventory, name: str, site: Site, vmm: VmmSite) -> None:
        where, _, port = vmm.server.rpartition(":")
        if where != "127.0.0.1":
            raise BadInput(f"'{vmm.server}' is not on 127.0.0.1", remedy="write 127.0.0.1 and a free port")
        login = (vmm.user or (site.hyperv.user if site.hyperv else None)) or ""
        managed = {host.full_name: host.name for host in self._hosts.fabric.state.hosts.values() if host.site == name}
        answers = {full_name: self._agent(host, login) for full_name, host in managed.items()}
        server_name = f"{name}-vmm"
        self.simulated[name] = SimulatedVmm(server_name, answers, estate_of(inventory, name, managed))
        account = Account(login, secrets.resolve(vmm.credentials or site.credentials or ""))
        server = WinRMServer(
            self.simulated[name].answer,
            [account],
            folder=self._hosts.folder(server_name),
            host=server_name,
            certificate=self._hosts.certificate,
            port=int(port),
        )
        server.disturb = partial(self._hosts.death, name)
        self.servers[name] = server

    def _agent(self, host: str, login: str) -> Answer:
        """What VMM's agent on a host answers it: the host itself, as for an administrator."""

        def answer(request: Request) -> Result:
            return self._hosts.dispatch(request._replace(host=host, user=login))

        return answer

    def close(self) -> None:
        for server in self.servers.values():
            server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
