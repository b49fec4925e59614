"""The hosts of a fabric as servers: each listens for WinRM on 127.0.0.1, at the port that the inventory names."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Self

from simulation.hyperv.dispatch import Dispatch
from simulation.hyperv.fabric import Fabric, host_names
from simulation.winrm.accounts import Account
from simulation.winrm.certificate import ServerCertificate, make_certificate
from simulation.winrm.server import Cut, Disturbance, WinRMServer
from vault import secrets
from vault.errors import BadInput
from vault.inventory import Inventory, Site


class Hosts:
    """Serves until :meth:`close`; a context manager.

    Raises ``BadInput`` for an inventory whose hosts are not on 127.0.0.1, ``OSError`` for a port that is taken.
    """

    def __init__(self, root: Path, inventory: Inventory, *, time_scale: float = 1.0, latency_s: float = 0.0) -> None:
        self.fabric = Fabric(root, inventory, time_scale=time_scale)
        self.dispatch = Dispatch(self.fabric)
        self.servers: dict[str, WinRMServer] = {}
        self._latency_s = latency_s
        self.certificate = certificate_of(root)
        self._root = root
        for name, site in inventory.sites.items():
            if site.hyperv is not None:
                self._serve(name, site)

    def _serve(self, site_name: str, site: Site) -> None:
        assert site.hyperv is not None
        account = Account(site.hyperv.user or "", secrets.resolve(site.credentials or ""))
        for name, address in zip(host_names(site_name, site), site.hyperv.hosts, strict=True):
            where, _, port = address.rpartition(":")
            if where != "127.0.0.1":
                raise BadInput(f"'{address}' is not on 127.0.0.1", remedy="write 127.0.0.1 and a free port")
            server = WinRMServer(
                self.dispatch,
                [account],
                folder=self.folder(name),
                host=name,
                certificate=self.certificate,
                port=int(port),
                latency_s=self._latency_s,
            )
            server.disturb = partial(self.death, site_name)
            self.servers[name] = server

    def death(self, site: str, _number: int, _verb: str) -> Disturbance | None:
        """For a server of a site: when the lab site is dead it answers nothing."""
        return Cut.BEFORE if self.fabric.ground.is_dead(site) else None

    def folder(self, name: str) -> Path:
        """For the WinRM service of a host or a VMM server."""
        return self._root / "hyperv" / "winrm" / name

    def reboot(self, host: str) -> None:
        """Power off and on again: guests and remote shells end, what was under way is not finished."""
        self.fabric.go_down(host)
        self.servers[host].reboot()
        self.fabric.come_up(host)

    def close(self) -> None:
        """The hosts stop serving and replicating; their guests run on."""
        closing = [threading.Thread(target=server.close) for server in self.servers.values()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        self.fabric.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def certificate_path(root: Path) -> Path:
    """What clients name as the authority of all hosts of a fabric (``ca``)."""
    return root / "hyperv" / "server.pem"


def certificate_of(root: Path) -> ServerCertificate:
    """The certificate that all hosts of a fabric show; made anew, because it holds for a day."""
    return make_certificate(certificate_path(root).parent)
