"""Scenario ``san``: the demo's application on volumes that two simulated arrays mirror (``docs/san.md``)."""

from __future__ import annotations

import secrets
from pathlib import Path

from adapters.lab import labctl
from simulation.arrays import process
from simulation.arrays.settings import ArraySettings, VolumeSettings, pair
from vault.inventory import Inventory
from workers.settings import Settings

PRIMARY, RECOVERY = "primary", "recovery"
MIB = 2**20
SECOND_POOL = {"web"}
"""Machines whose volumes are not in the first pool of the array, but in the second."""
MACHINES: dict[str, tuple[str, dict[str, int], int]] = {
    "payment-db": ("payments", {"log": 32, "data": 64}, 80),
    "payment-app-1": ("payments", {"system": 48}, 40),
    "payment-app-2": ("payments", {"system": 48}, 40),
    "web": ("shop", {"system": 48}, 40),
}
"""By machine: its replication group, its disks in MiB, its guest's transactions a second."""


def inventory(folder: Path) -> str:
    """The inventory for arrays in ``folder``, whose ports and password are chosen here."""
    arrays = _arrays(folder)
    for settings in arrays.values():
        settings.save()
    password = folder / "array-password"
    password.touch(mode=0o600)
    password.write_text(arrays[PRIMARY].password)
    sites = "".join(_site(site, arrays[site], password) for site in (PRIMARY, RECOVERY))
    machines = "".join(_machine(name) for name in MACHINES)
    second = {site: arrays[site].pool("silver") for site in (PRIMARY, RECOVERY)}
    return _INVENTORY.format(sites=sites, machines=machines, **second)


def begin(settings: Settings, inventory: Inventory) -> list[str]:
    """Both arrays, as a process each, and the machines on them."""
    for folder in _folders(settings):
        process.start(ArraySettings.load(folder))
    return labctl.up(inventory, settings.lab_root)


def end(settings: Settings) -> None:
    labctl.kill_all(settings.lab_root)
    for folder in _folders(settings):
        process.stop(folder)


def ended_by(settings: Settings) -> str:
    arrays = "; ".join(f"python -m simulation.arrays {folder} --stop" for folder in _folders(settings))
    return f"leeward lab down --vault {settings.vault} --data {settings.data}; {arrays}"


def _folders(settings: Settings) -> list[Path]:
    return [settings.vault.parent / "arrays" / site for site in (PRIMARY, RECOVERY)]


def _arrays(folder: Path) -> dict[str, ArraySettings]:
    arrays = pair(folder / "arrays", folder / "data" / "lab", (PRIMARY, RECOVERY), secrets.token_urlsafe(16))
    arrays[PRIMARY].volumes = [
        VolumeSettings(
            name=f"{machine}-{disk}",
            size=size * MIB,
            host=_host(PRIMARY),
            pool="silver" if machine in SECOND_POOL else "gold",
        )
        for machine, (_, disks, _) in MACHINES.items()
        for disk, size in disks.items()
    ]
    return arrays


def _host(site: str) -> str:
    return f"{site}-host"


def _site(site: str, settings: ArraySettings, password: Path) -> str:
    return f"""\
  {site}:
    fabric: lab
    storage:
      kind: smis
      url: {settings.url}
      user: {settings.user}
      password: file:{password}
      ca: {settings.certificate}
      array: {settings.name}
      pool: "{settings.pool("gold")}"
      initiators: [{_host(site)}]
      portal: {settings.portal}
    networks:
      production: {{kind: production}}
      isolated: {{kind: isolated}}
"""


def _machine(name: str) -> str:
    group, disks, rate = MACHINES[name]
    volumes = ", ".join(f"{disk}: {name}-{disk}" for disk in disks)
    sizes = ", ".join(f"{{name: {disk}, size: {size}MiB}}" for disk, size in disks.items())
    return f"""\
  {name}:
    site: {PRIMARY}
    target: {RECOVERY}
    network: production
    policy: mirrored
    lab: {{disks: [{sizes}], transactions_per_second: {rate}, transaction_size: 4KiB}}
    san: {{group: {group}, volumes: {{{volumes}}}}}
"""


_INVENTORY = """\
# The application on the volumes of two arrays, which mirror them synchronously.
version: 1
sites:
{sites}
policies:
  mirrored:
    frequency: 5s     # how often leeward looks at the mirror; the arrays mirror every write at once
network_mappings:
  - source: primary/production
    target: recovery/production
    test: recovery/isolated
    source_test: primary/isolated
storage_mappings:     # replicas of volumes in any other pool are made in the 'pool' of the target's storage
  - source: "primary/{primary}"
    target: "recovery/{recovery}"
machines:
{machines}"""
