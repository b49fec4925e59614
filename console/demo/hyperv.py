"""The demo on two simulated Hyper-V sites, with VMM and without: the lab's inventory with another fabric, and the hosts
that serve it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from adapters.lab import labctl
from vault.inventory import Inventory
from workers.settings import Settings

USER, VMM_USER, GUEST_USER = "LAB\\leeward", "LAB\\vmm-operator", ".\\leeward"
CYCLE_SCALE = 0.2
"""A replication frequency of 30 s takes 6 s, an hour between recovery points 12 minutes."""
POLICY = {"frequency": "30s", "app_consistent_every": "1h"}
"""What Hyper-V Replica can do at the least."""


CLOUDS = {"primary": "Gold", "recovery": "Recovery"}
VM_NETWORKS = {"production": "Production VMs", "isolated": "Isolated VMs"}
HOSTS_OF_A_SITE_WITH_VMM = 2


def inventory(folder: Path) -> str:
    """The lab's inventory, with hosts on free ports of 127.0.0.1 and passwords in files below ``folder``."""
    return json.dumps(as_data(folder), indent=2) + "\n"


def inventory_with_vmm(folder: Path) -> str:
    """The same with two hosts a site, and a VMM server at each that places replicas and connects networks."""
    from simulation.free_ports import free_ports

    document = as_data(folder)
    for name, site in document["sites"].items():
        *hosts, vmm = (f"127.0.0.1:{port}" for port in free_ports(HOSTS_OF_A_SITE_WITH_VMM + 1))
        site["hyperv"] |= {"hosts": hosts, "replica": {}}
        password = _secret(folder, f"{name}-vmm")
        site["vmm"] = {"server": vmm, "cloud": CLOUDS[name], "user": VMM_USER, "credentials": password}
        for network, described in site["networks"].items():
            described["vm_network"] = VM_NETWORKS[network]
    return json.dumps(document, indent=2) + "\n"


def as_data(folder: Path) -> dict[str, Any]:
    """As :func:`inventory`, before it is written down."""
    from ruamel.yaml import YAML

    from simulation.free_ports import free_ports
    from simulation.hyperv.hosts import certificate_path
    from vault.template import LAB_INVENTORY

    document: dict[str, Any] = YAML(typ="safe").load(LAB_INVENTORY)
    ports = free_ports(len(document["sites"]))
    for (name, site), port in zip(document["sites"].items(), ports, strict=True):
        site["fabric"] = "hyperv"
        site["credentials"] = _secret(folder, name)
        site["hyperv"] = {
            "hosts": [f"127.0.0.1:{port}"],
            "authentication": "ntlm",
            "user": USER,
            "ca": str(certificate_path(folder / "data")),
            "replica": {"server": f"{name}-hv1"},
        }
    for policy in document["policies"].values():
        policy.update(POLICY)
    guest_password = _secret(folder, "guest")
    for machine in document["machines"].values():
        machine["hyperv"] = {"guest_user": GUEST_USER, "guest_password": guest_password}
    return document


def _secret(folder: Path, name: str) -> str:
    """A new password, as a reference."""
    file = folder / f"{name}.password"
    file.touch(mode=0o600)
    file.write_text(secrets.token_urlsafe(24))
    return f"file:{file}"


def begin(settings: Settings, _: Inventory) -> list[str]:
    from simulation.hyperv import process

    return process.start(settings.data, settings.vault, time_scale=CYCLE_SCALE)


def end(settings: Settings) -> None:
    from simulation.hyperv import process

    process.stop(settings.data)
    labctl.kill_all(settings.lab_root)


def ended_by(settings: Settings) -> str:
    return (
        f"python -m simulation.hyperv --root {settings.data} --stop; "
        f"leeward lab down --vault {settings.vault} --data {settings.data}"
    )
