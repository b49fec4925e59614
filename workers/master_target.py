"""The master target's process: it keeps the replicas of one site, and serves them to process servers of others."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading

from adapters.registry import Adapters
from replication.local import LocalReplicaStore
from replication.transport.pki import Identity, Pki
from replication.transport.server import MasterTarget, only_sites
from vault.errors import BadInput, LeewardError
from vault.inventory import Inventory
from vault.loading import load_inventory
from workers.logs import tell
from workers.memory import keep_freed_memory
from workers.settings import Settings, load_settings

EXIT_BAD_INPUT = 2
EXIT_UNREACHABLE = 4

log = logging.getLogger(__name__)


class CurrentVault:
    """The inventory as the file says now: a machine or site taken out of it loses its access at once. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._read = self._stamp()
        self.inventory = load_inventory(settings.vault)
        self._adapters = Adapters(self.inventory, settings.data)

    def sites_of(self, machine: str) -> tuple[str, str] | None:
        """The machine's own site and its target; None for an unknown machine."""
        self._refresh()
        found = self.inventory.machines.get(machine)
        return (found.site, found.target) if found else None

    def store(self, site: str, machine: str) -> LocalReplicaStore:
        with self._lock:
            return self._adapters.master_target_store(site, machine)

    def _refresh(self) -> None:
        with self._lock:
            stamp = self._stamp()
            if stamp == self._read:
                return
            self._read = stamp
            try:
                self.inventory = load_inventory(self._settings.vault)
            except LeewardError as error:
                log.error("the changed inventory is not used, the one before it is: %s", error)
            else:
                self._adapters = Adapters(self.inventory, self._settings.data)
                log.info("the inventory was read again")

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._settings.vault.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size


def serve(site: str, settings: Settings, listen: str | None = None) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        listen: ``host:port``; None: where the inventory says that the site's master target is.

    Raises:
        BadInput: the inventory does not say enough about the site.
        LeewardError: as :meth:`MasterTarget.start`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    keep_freed_memory()
    vault = CurrentVault(settings)
    address, pki = _described(site, vault.inventory)
    server = MasterTarget(
        Identity(Pki.at(pki), site),
        lambda machine: vault.store(site, machine),
        only_sites(site, vault.sites_of),
        listen or address,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("master target of site '%s' listens at %s", site, server.start())
    stop.wait()
    log.info("master target is stopping: sessions come to their end")
    server.stop()


def main(arguments: list[str] | None = None) -> int:
    """How the supervisor starts one; the exit code says how it ended."""
    parser = argparse.ArgumentParser(prog="leeward master-target")
    parser.add_argument("--site", required=True)
    given = parser.parse_args(arguments)
    try:
        serve(given.site, load_settings())
    except LeewardError as error:
        tell(error)
        return EXIT_UNREACHABLE if error.recoverable else EXIT_BAD_INPUT
    return 0


def _described(site: str, inventory: Inventory) -> tuple[str, str]:
    if site not in inventory.sites:
        known = ", ".join(sorted(inventory.sites))
        raise BadInput(f"unknown site '{site}'", where="--site", remedy=f"the inventory knows: {known}")
    described = inventory.sites[site]
    if described.master_target is None or described.pki is None:
        raise BadInput(
            f"the inventory names no master target of site '{site}'",
            where=f"sites.{site}",
            remedy="set its 'master_target' to host:port, and 'pki' to the folder of: leeward pki issue",
        )
    return described.master_target, described.pki


if __name__ == "__main__":
    sys.exit(main())
