"""Isolated networks that tests get for themselves. In the lab a network is a name that guests and reports tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.lab.definition import MachineDefinition
from adapters.lab.documents import locked_file, read_document, write_document
from adapters.lab.layout import SiteFolder
from vault.errors import NotFound

FORMAT, VERSION = "leeward-lab-network", 1


class TestNetworks:
    """Those of one site. Names are safe: they are made of a network's name and a run's id.

    A network names the copies that need it, those in the making too, so that one copy's end never takes the network
    from another. Networks of before they did so are needed by the copies on them."""

    __test__ = False

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder

    def join(self, like: str, run_id: str, copy: str) -> str:
        """The name of the run's network, made when it is not there yet."""
        name = f"{like}-{run_id}"
        file = self._folder.test_network(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(self._lock):
            copies = self._needed_by(read_document(file, FORMAT, VERSION)) if file.exists() else set()
            self._write(file, {"name": name, "like": like, "run": run_id}, copies | {copy})
        return name

    def has(self, name: str) -> bool:
        try:
            return bool(read_document(self._folder.test_network(name), FORMAT, VERSION)["name"] == name)
        except NotFound:
            return False

    def leave(self, run_id: str, copy: str) -> None:
        """The run's networks do without the copy; one that nobody needs is removed."""
        if not self._folder.test_networks.is_dir():
            return
        with locked_file(self._lock):
            for file in self._folder.test_networks.glob("*.json"):
                body = read_document(file, FORMAT, VERSION)
                if body["run"] != run_id:
                    continue
                copies = self._needed_by(body) - {copy}
                if copies:
                    self._write(file, body, copies)
                else:
                    file.unlink()

    @property
    def _lock(self) -> Path:
        return self._folder.test_networks / ".lock"

    def _needed_by(self, body: dict[str, Any]) -> set[str]:
        if "copies" in body:
            return set(body["copies"])
        definitions = map(MachineDefinition.load, self._folder.registered())
        return {each.name for each in definitions if each.network == body["name"]}

    @staticmethod
    def _write(file: Path, body: dict[str, Any], copies: set[str]) -> None:
        write_document(file, FORMAT, VERSION, {**body, "copies": sorted(copies)})
