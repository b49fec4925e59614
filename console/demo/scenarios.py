"""The demo's scenarios: which inventory, which plan, what the machines run on, which phases of their life are shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from adapters.lab import labctl
from console.demo import hyperv, hyperv_azure, san
from console.demo.azure_phases import AzurePhases
from console.demo.model import PhaseResult
from console.demo.phases import Phases, Stage
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
    phases: Callable[[Stage], AsyncIterator[PhaseResult]]
    verdict: str
    """What was shown, when nothing went wrong."""


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


def _whole_life(stage: Stage) -> AsyncIterator[PhaseResult]:
    return Phases(stage).all()


def _whole_life_without_loss(stage: Stage) -> AsyncIterator[PhaseResult]:
    """Not even an unplanned failover may lose a transaction."""
    return Phases(stage, loses_nothing=True).all()


def _to_page_blobs(stage: Stage) -> AsyncIterator[PhaseResult]:
    return AzurePhases(stage).all()


NOTHING_LOST = (
    "Nothing was lost that must not be: planned failover and failback lost 0 transactions, the others hold every "
    "transaction of their recovery point. Never two copies in production."
)
NOT_EVEN_UNPLANNED = "Every failover lost 0 transactions, the unplanned one too. Never two copies in production."

LAB = Scenario(
    "lab",
    "two lab sites, leeward's own replication",
    _lab_inventory,
    _plan,
    _begin_lab,
    _end_lab,
    _lab_ended_by,
    _whole_life,
    NOTHING_LOST,
)
HYPERV = Scenario(
    "hyperv",
    "two simulated Hyper-V sites, Hyper-V Replica between their hosts",
    hyperv.inventory,
    _plan,
    hyperv.begin,
    hyperv.end,
    hyperv.ended_by,
    _whole_life,
    NOTHING_LOST,
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
    _whole_life_without_loss,
    NOT_EVEN_UNPLANNED,
)
HYPERV_AZURE = Scenario(
    "hyperv-azure",
    "one simulated Hyper-V site, replicated by change tracking to page blobs (Azurite); no machine is made in Azure",
    hyperv_azure.inventory,
    _plan,
    hyperv_azure.begin,
    hyperv_azure.end,
    hyperv_azure.ended_by,
    _to_page_blobs,
    "Every recovery point that was read holds all that was acknowledged before its moment; the page blobs are fixed "
    "VHDs and equal the disks byte for byte.\nNot shown: test failover, failover, commit, reverse replication and "
    "failback, because leeward makes no virtual machines in Azure yet. It refused them before anything changed.",
)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (LAB, HYPERV, HYPERV_VMM, HYPERV_AZURE, SAN)}
