"""What a run of a plan does, in order: one pure function that the workflow, ``plan show`` and a dry run all use."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from plans.model import Group, Plan, PlanMachine, default_direction
from plans.steps import Direction, Step
from vault.domain import MachineName, RunType, Value


class StageKind(StrEnum):
    BEGIN = "begin"
    """The plan's own ``before`` steps; no machines."""
    SHUT_DOWN = "shut down"
    RECOVER = "recover"
    """Make and start the machines: for real, or isolated copies in a test."""
    CLEAN_UP = "clean up"
    COMMIT = "commit"
    REVERSE = "reverse replication of"
    END = "end"
    """The plan's own ``after`` steps; no machines."""


class Stage(Value):
    """One part of a run: ``before`` steps, then what ``kind`` says with ``machines``, then ``after`` steps.

    ``run_type`` is the run that the stage's steps were chosen for: in a planned run with automatic commit, the commit
    stages carry the steps for ``commit``.
    """

    kind: StageKind
    run_type: RunType
    group: str = ""
    """Empty for the plan's own steps."""
    machines: list[PlanMachine] = []
    left_out: list[MachineName] = []
    """Machines of the group that this run passes over."""
    before: list[Step] = []
    after: list[Step] = []

    @property
    def title(self) -> str:
        """``shut down database``; what operators see."""
        return f"{self.kind} {self.group}".rstrip()

    @property
    def waves(self) -> list[list[PlanMachine]]:
        """The machines in the order of their priorities and dependencies: each wave may run at once, after the one
        before it.

        Shutting down and cleaning up go the other way round.
        """
        forward = start_waves(self.machines)
        return forward[::-1] if self.kind in (StageKind.SHUT_DOWN, StageKind.CLEAN_UP) else forward


def stages(
    plan: Plan, run_type: RunType, direction: Direction | None = None, *, without: Collection[str] = ()
) -> list[Stage]:
    """The ordered stages of a run; empty ones are left out.

    Args:
        direction: chooses among steps that say ``directions``; None: back for a failback, else forth.
        without: machines that the run passes over, with the steps around them; those of their groups stay.
    """
    found = _stages(plan, run_type, direction or default_direction(run_type))
    return [_without(stage, without) for stage in found] if without else list(found)


def _without(stage: Stage, names: Collection[str]) -> Stage:
    return stage.model_copy(
        update={
            "machines": [entry for entry in stage.machines if entry.machine not in names],
            "left_out": [entry.machine for entry in stage.machines if entry.machine in names],
        }
    )


def start_waves(machines: list[PlanMachine]) -> list[list[PlanMachine]]:
    """Machines by priority, and within one by their dependencies among each other.

    Dependencies win: what a machine depends on is as urgent as the machine. Those to other machines hold already and
    do not count.

    Raises:
        ValueError: naming machines that wait for each other in a circle.
    """
    entries = {entry.machine: entry for entry in machines}
    by_dependency = _waves(entries)
    urgency = {name: entry.priority for name, entry in entries.items()}
    for name in (name for wave in reversed(by_dependency) for name in wave):
        for needed in entries[name].depends_on:
            if needed in urgency:
                urgency[needed] = min(urgency[needed], urgency[name])
    waves = (
        [entries[name] for name in wave if urgency[name] == step] for step in range(1, 6) for wave in by_dependency
    )
    return [wave for wave in waves if wave]


def _waves(entries: Mapping[str, PlanMachine]) -> list[list[str]]:
    order = {name: index for index, name in enumerate(entries)}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for entry in entries.values():
        sorter.add(entry.machine, *(name for name in entry.depends_on if name in entries))
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError(f"these machines depend on each other in a circle: {', '.join(error.args[1])}") from None
    waves: list[list[str]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        waves.append(sorted(ready, key=order.__getitem__))
        sorter.done(*ready)
    return waves


def _stages(plan: Plan, run_type: RunType, direction: Direction) -> Iterator[Stage]:
    yield from _plan_steps(StageKind.BEGIN, plan.before, run_type, direction)
    if run_type in ("planned", "failback"):
        for group in reversed(plan.groups):
            machines = [_with_steps(entry, [], []) for entry in group.machines]
            yield Stage(kind=StageKind.SHUT_DOWN, run_type=run_type, group=group.name, machines=machines)
    yield from _by_group(_MAIN_KIND[run_type], plan, run_type, direction)
    if run_type in ("planned", "unplanned", "failback") and plan.commit == "automatic":
        yield from _by_group(StageKind.COMMIT, plan, "commit", direction)
    if _reverses_by_itself(plan, run_type):
        yield from _by_group(StageKind.REVERSE, plan, "reverse", direction)
    yield from _plan_steps(StageKind.END, plan.after, run_type, direction)


_MAIN_KIND: dict[RunType, StageKind] = {
    "test": StageKind.RECOVER,
    "planned": StageKind.RECOVER,
    "unplanned": StageKind.RECOVER,
    "failback": StageKind.RECOVER,
    "cleanup": StageKind.CLEAN_UP,
    "commit": StageKind.COMMIT,
    "reverse": StageKind.REVERSE,
}


def _reverses_by_itself(plan: Plan, run_type: RunType) -> bool:
    """Reverse replication follows the commit. Not after an unplanned failover: its old source may be gone."""
    if plan.reverse_replication != "automatic":
        return False
    return run_type == "commit" or (run_type in ("planned", "failback") and plan.commit == "automatic")


def _by_group(kind: StageKind, plan: Plan, run_type: RunType, direction: Direction) -> Iterator[Stage]:
    groups: list[Group] = plan.groups[::-1] if kind is StageKind.CLEAN_UP else plan.groups
    for group in groups:
        yield Stage(
            kind=kind,
            run_type=run_type,
            group=group.name,
            machines=[
                _with_steps(
                    entry, applicable(entry.before, run_type, direction), applicable(entry.after, run_type, direction)
                )
                for entry in group.machines
            ],
            before=applicable(group.before, run_type, direction),
            after=applicable(group.after, run_type, direction),
        )


def _with_steps(entry: PlanMachine, before: list[Step], after: list[Step]) -> PlanMachine:
    if not entry.before and not entry.after:
        return entry
    return entry.model_copy(update={"before": before, "after": after})


def _plan_steps(kind: StageKind, steps: list[Step], run_type: RunType, direction: Direction) -> Iterator[Stage]:
    chosen = applicable(steps, run_type, direction)
    if chosen:
        yield Stage(kind=kind, run_type=run_type, before=chosen)


def applicable(steps: list[Step], run_type: RunType, direction: Direction) -> list[Step]:
    """The steps that say they belong to such a run, in their order."""
    return [step for step in steps if run_type in step.runs and direction in step.directions]
