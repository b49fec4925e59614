"""A run that has not happened: what its steps would be told, so that every template can be tried before."""

from __future__ import annotations

from plans.context import MachineInRun, RunContext
from plans.model import Plan, PlanMachine, default_direction
from plans.steps import Direction
from vault.domain import RunType
from vault.inventory import Inventory


def sample_context(
    plan: Plan,
    inventory: Inventory,
    run_type: RunType,
    direction: Direction | None = None,
    group: str = "",
    recovered: list[PlanMachine] | None = None,
) -> RunContext:
    """What a step would be told in a run, with made-up addresses for the machines that are recovered by then.

    The addresses are from the block that is reserved for documentation (RFC 5737).

    Args:
        recovered: None: all machines of the plan.
    """
    direction = direction or default_direction(run_type)
    if recovered is None:
        recovered = [entry for group_ in plan.groups for entry in group_.machines]
    answering = {entry.machine for entry in recovered if entry.start}
    machines: dict[str, MachineInRun] = {}
    wishes = plan.targets_in("test" if run_type == "cleanup" else run_type)
    for number, name in enumerate(plan.machines, start=1):
        if name not in inventory.machines:
            continue
        machine = inventory.machines[name]
        target, test = inventory.mapped_networks(machine.site, machine.network, machine.target)
        site, production = (machine.target, target)
        if direction == "recovery-to-primary":
            site, production = machine.site, machine.network
            _, test = inventory.mapped_networks(machine.target, target, machine.site)
        in_test = run_type in ("test", "cleanup")
        wish = wishes.get(name)
        if direction == "primary-to-recovery" and wish is not None and wish.network is not None:
            test, production = (wish.network, production) if in_test else (test, wish.network)
        machines[name] = MachineInRun(
            name=f"{name}-test" if in_test else name,
            site=site,
            network=test if in_test else production,
            address=f"192.0.2.{number % 250 + 1}:7000" if name in answering else None,
        )
    return RunContext(
        plan=plan.name,
        run_id="sample",
        run_type=run_type,
        direction=direction,
        group=group,
        variables=plan.variables_in(run_type, direction),
        machines=machines,
    )
