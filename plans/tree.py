"""A plan and a run as trees of labels, for whoever draws them; nothing here knows about terminals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from plans.leaving_out import machine_of
from plans.model import DEFAULT_PRIORITY, Plan, PlanMachine, Target
from plans.stages import Stage, StageKind, stages
from plans.steps import RECOVERING, Direction, Step
from plans.words import does, words
from vault.domain import RunType, Value
from vault.inventory import format_duration

LEFT_OUT = "left out"


class TreeNode(Value):
    """One line of a tree.

    Attributes:
        kind: ``plan``, ``group``, ``stage``, ``before``, ``machines``, ``after``, ``machine``, ``left out`` (a machine
            or a step that the run passes over) or a step's kind.
        detail: what there is to know beside the label; may be empty.
    """

    kind: str
    label: str
    detail: str = ""
    children: list[TreeNode] = []


def plan_tree(plan: Plan, origins: Mapping[str, str] = MappingProxyType({})) -> TreeNode:
    """What the file says: groups with their steps and machines.

    ``origins``: by name of a group, the included file that it stands in.
    """
    children = [*_section("before", plan.before)]
    for group in plan.groups:
        parts = [*_section("before", group.before), *_machines(group.machines), *_section("after", group.after)]
        notes = [f"from {origins[group.name]}"] if group.name in origins else []
        notes += [f"a failed step: {group.on_failure}"] if group.on_failure else []
        children.append(TreeNode(kind="group", label=group.name, detail="; ".join(notes), children=parts))
    children.extend(_section("after", plan.after))
    rules = f"a failed step: {plan.on_failure}; commit: {plan.commit}; reverse replication: {plan.reverse_replication}"
    rules += f"; {plan.limits.machines_at_once} machines at once" if plan.limits.machines_at_once else ""
    return TreeNode(kind="plan", label=plan.name, detail=rules, children=children)


def run_tree(
    plan: Plan, run_type: RunType, direction: Direction | None = None, *, without: Collection[str] = ()
) -> TreeNode:
    """What a run would do, stage by stage: the dry run. ``without``: machines that it leaves out."""
    return TreeNode(
        kind="plan",
        label=plan.name,
        detail=f"{run_type} run",
        children=[_stage(stage, without) for stage in stages(plan, run_type, direction, without=without)],
    )


def _stage(stage: Stage, without: Collection[str]) -> TreeNode:
    def step(step: Step, place: str = "") -> TreeNode:
        about = machine_of(step)
        if about in without:
            return TreeNode(kind=LEFT_OUT, label=step.name, detail=f"skipped: it is about {about}, which is left out")
        return _step(step, place)

    children = [step(one) for one in stage.before]
    for wave in stage.waves:
        for entry in wave:
            children.extend(step(one, f"before {entry.machine}") for one in entry.before)
            starts = stage.kind is StageKind.RECOVER
            children.append(_machine(entry, starts=starts, run_type=stage.run_type))
            children.extend(step(one, f"after {entry.machine}") for one in entry.after)
    children.extend(TreeNode(kind=LEFT_OUT, label=name, detail="stays as it is") for name in stage.left_out)
    children.extend(step(one) for one in stage.after)
    return TreeNode(kind="stage", label=stage.title, children=children)


def _section(name: str, steps: list[Step]) -> Iterable[TreeNode]:
    if steps:
        yield TreeNode(kind=name, label=name, children=[_step(step) for step in steps])


def _machines(machines: list[PlanMachine]) -> Iterable[TreeNode]:
    nodes = []
    for entry in machines:
        around = [*_section("before", entry.before), *_section("after", entry.after)]
        nodes.append(_machine(entry, starts=True).model_copy(update={"children": around}))
    yield TreeNode(kind="machines", label="machines", children=nodes)


def _machine(entry: PlanMachine, *, starts: bool, run_type: RunType | None = None) -> TreeNode:
    notes = []
    if starts and not entry.start:
        notes.append("stays off")
    if starts and entry.priority != DEFAULT_PRIORITY:
        notes.append(f"priority {entry.priority}")
    if starts and entry.start_delay:
        notes.append(f"starts after {format_duration(entry.start_delay)}")
    if starts and entry.depends_on:
        notes.append(f"after {', '.join(entry.depends_on)}")
    notes += _wishes(entry, run_type) if starts else []
    return TreeNode(kind="machine", label=entry.machine, detail="; ".join(notes))


def _wishes(entry: PlanMachine, run_type: RunType | None) -> list[str]:
    """What is to be different about the recovered machine; of the plan itself, in a test too."""
    wishes = [words(entry.target.in_run(run_type or "planned"))]
    if run_type is None and entry.target.test != Target():
        wishes.append(f"in a test {words(entry.target.in_run('test'))}")
    return [wish for wish in wishes if wish]


def _step(step: Step, place: str = "") -> TreeNode:
    notes = [place, does(step)]
    if tuple(step.runs) != RECOVERING:
        notes.append(f"only {', '.join(step.runs)}")
    if len(step.directions) == 1:
        notes.append(step.directions[0])
    if step.on_failure:
        notes.append(f"if it fails: {step.on_failure}")
    return TreeNode(kind=step.kind, label=step.name, detail="; ".join(note for note in notes if note))
