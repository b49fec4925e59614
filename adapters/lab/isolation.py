"""Isolated networks that tests get for themselves. In the lab a network is a name that guests and reports tell."""

from __future__ import annotations

from adapters.lab.definition import MachineDefinition
from adapters.lab.documents import read_document, write_document
from adapters.lab.layout import SiteFolder
from vault.errors import NotFound

FORMAT, VERSION = "leeward-lab-network", 1


class TestNetworks:
    """Those of one site. Names are safe: they are made of a network's name and a run's id."""

    __test__ = False

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder

    def make(self, like: str, run_id: str) -> str:
        name = f"{like}-{run_id}"
        file = self._folder.test_network(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_document(file, FORMAT, VERSION, {"name": name, "like": like, "run": run_id})
        return name

    def has(self, name: str) -> bool:
        try:
            return bool(read_document(self._folder.test_network(name), FORMAT, VERSION)["name"] == name)
        except NotFound:
            return False

    def remove(self, run_id: str) -> None:
        """Those of the run that no machine is connected to."""
        used = {MachineDefinition.load(folder).network for folder in self._folder.registered()}
        for file in self._folder.test_networks.glob("*.json"):
            body = read_document(file, FORMAT, VERSION)
            if body["run"] == run_id and body["name"] not in used:
                file.unlink(missing_ok=True)
