"""What an array's process is told, and a pair of arrays for two lab sites."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from simulation.free_ports import free_ports

GIB = 2**30
DOCUMENT = "settings.json"


class VolumeSettings(BaseModel):
    """A volume that the array has from the start, and the host that sees it."""

    name: str
    size: int
    host: str
    pool: str = "gold"


class ArraySettings(BaseModel):
    name: str
    folder: Path
    site: str
    peer: str
    peer_site: str
    lab_root: Path
    cim_port: int
    data_port: int
    link_port: int
    peer_link_port: int
    user: str = "leeward"
    password: str
    pools: dict[str, int] = {"gold": 4 * GIB, "silver": 4 * GIB}
    volumes: list[VolumeSettings] = []

    def save(self) -> None:
        """In the array's folder, readable by its owner only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.document.touch(mode=0o600)
        self.document.write_text(self.model_dump_json())

    @classmethod
    def load(cls, folder: Path) -> ArraySettings:
        return cls.model_validate_json((folder / DOCUMENT).read_text())

    @property
    def document(self) -> Path:
        return self.folder / DOCUMENT

    def pool(self, name: str) -> str:
        """Its InstanceID."""
        return f"{self.name}:{name}"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.cim_port}"

    @property
    def portal(self) -> str:
        return f"127.0.0.1:{self.data_port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"


def pair(folder: Path, lab_root: Path, sites: tuple[str, str], password: str) -> dict[str, ArraySettings]:
    """An array for each of two sites, on free ports; by site."""
    ports = free_ports(6)
    found = {}
    for index, (site, other) in enumerate((sites, sites[::-1])):
        found[site] = ArraySettings(
            name=f"array-{site}",
            folder=folder / site,
            site=site,
            peer=f"array-{other}",
            peer_site=other,
            lab_root=lab_root,
            cim_port=ports[3 * index],
            data_port=ports[3 * index + 1],
            link_port=ports[3 * index + 2],
            peer_link_port=ports[5 - 3 * index],
            password=password,
        )
    return found
