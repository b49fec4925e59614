"""What an array's process is told, and a pair of arrays for two lab sites."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from pydantic import BaseModel

from vault.errors import Unreachable

GIB = 2**30
STARTS_WITHIN_S = 20.0


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
    pool: str = "gold"
    pool_size: int = 4 * GIB

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.cim_port}"

    @property
    def portal(self) -> str:
        return f"127.0.0.1:{self.data_port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def ready(self) -> Path:
        return self.folder / "ready"


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


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def start(settings: ArraySettings) -> subprocess.Popen[bytes]:
    """The array's process; it ends with its parent. Raises ``Unreachable`` when it does not come up."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    settings.ready.unlink(missing_ok=True)
    document = settings.folder / "settings.json"
    document.touch(mode=0o600)
    document.write_text(settings.model_dump_json())
    with (settings.folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "simulation.arrays", str(document)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not settings.ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise Unreachable(f"the simulated array {settings.name} did not start", where=str(settings.folder / "log"))
        time.sleep(0.02)
    return process
