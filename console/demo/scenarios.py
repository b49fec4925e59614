"""The demo's scenarios: which inventory, which plan, what the machines run on. The phases are the same for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from adapters.lab import labctl
from console.demo import hyperv, san
from vault.inventory import Inventory
from workers.settings import Settings


class Scenario(NamedTuple):
    name: str
    title: str
    inventory: Callable[[Path], str]
    """The text of ``leeward.yaml`` in the demo's folder."""
    plan: Callable[[], str]
    begin: Callable[[Settings, Inventory], list[str]]
    """Bring fabric and machines to life; the ``site/machine`` that run."""
    end: Callable[[Settings], None]
    """End all that ``begin`` started, and every guest. Repeatable, and possible when nothing was begun."""
    ended_by: Callable[[Settings], str]
    """The command that does so by hand."""
    loses_nothing: bool = False
    """Not even an unplanned failover may lose a transaction."""


def _lab_inventory(_: Path) -> str:
    from vault.template import LAB_INVENTORY

    return LAB_INVENTORY


def _plan() -> str:
    from plans.template import LAB_PLAN

    return LAB_PLAN


def _begin_lab(settings: Settings, inventory: Inventory) -> list[str]:
    return labctl.up(inventory, settings.lab_root)


def _end_lab(settings: Settings) -> None:
    labctl.kill_all(settings.lab_root)


def _lab_ended_by(settings: Settings) -> str:
    return f"leeward lab down --vault {settings.vault} --data {settings.data}"


LAB = Scenario(
    "lab", "two lab sites, leeward's own replication", _lab_inventory, _plan, _begin_lab, _end_lab, _lab_ended_by
)
HYPERV = Scenario(
    "hyperv",
    "two simulated Hyper-V sites, Hyper-V Replica between their hosts",
    hyperv.inventory,
    _plan,
    hyperv.begin,
    hyperv.end,
    hyperv.ended_by,
)
HYPERV_VMM = HYPERV._replace(
    name="hyperv-vmm",
    title="two simulated Hyper-V sites with a VMM server each, Hyper-V Replica between their hosts",
    inventory=hyperv.inventory_with_vmm,
)
SAN = Scenario(
    "san",
    "two lab sites, volumes mirrored synchronously by two simulated arrays (SMI-S)",
    san.inventory,
    _plan,
    san.begin,
    san.end,
    san.ended_by,
    loses_nothing=True,
)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (LAB, HYPERV, HYPERV_VMM, SAN)}
