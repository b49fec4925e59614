"""Everything in a plan that can be known to be wrong before a run: names, order, dependencies, templates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from plans.model import Group, Plan, PlanMachine
from plans.rendering import TemplateFault, has_template, render_names
from plans.samples import sample_context
from plans.stages import start_waves
from plans.steps import (
    ORCHESTRATOR,
    CallStep,
    CheckStep,
    Direction,
    HttpCheck,
    ManualStep,
    Program,
    ScriptStep,
    Step,
)
from vault.access import OF_GROUP, Action
from vault.domain import NetworkKind, RunType
from vault.errors import BadInput
from vault.inventory import Inventory
from vault.validation import did_you_mean
from vault.yamlsource import YamlSource

Place = tuple[str | int, ...]

MAX_CHECK_SECONDS = 20.0
"""For all templates of a plan together."""


class PlanChecks:
    """The semantic checks of one plan; each yields complaints at their places.

    Args:
        all_machines: the file's groups and machines are all in the plan; else nothing is said that others may make
            right.
        all_variables: the same of what templates may use.
    """

    def __init__(
        self,
        plan: Plan,
        source: YamlSource,
        inventory: Inventory,
        *,
        all_machines: bool = True,
        all_variables: bool = True,
    ) -> None:
        self._plan = plan
        self._source = source
        self._inventory = inventory
        self._all_machines = all_machines
        self._all_variables = all_variables
        self._contexts: dict[tuple[Place, RunType, Direction], dict[str, Any]] = {}
        self._deadline = time.monotonic() + MAX_CHECK_SECONDS
        self._out_of_time = False

    def all(self) -> Iterator[BadInput]:
        yield from self._groups_are_named_once()
        yield from self._machines_are_there_once()
        for index, group in enumerate(self._plan.groups):
            if self._all_machines:
                yield from self._dependencies_can_be_met(group, ("groups", index, "machines"))
            for number, entry in enumerate(group.machines):
                yield from self._target_networks_exist(entry, ("groups", index, "machines", number, "target"))
        yield from self._steps_are_named_once()
        for place, step, recovered, group_name in self._steps():
            yield from self._approvers_may_approve(place, step)
            if self._all_machines:
                yield from self._step_refers_to_machines(place, step, recovered)
            if self._all_machines and self._all_variables:
                yield from self._templates_render(place, step, recovered, group_name)

    def _groups_are_named_once(self) -> Iterator[BadInput]:
        first: dict[str, str] = {}
        for index, group in enumerate(self._plan.groups):
            place: Place = ("groups", index, "name")
            if group.name in first:
                yield self._source.error(
                    place,
                    f"group '{group.name}' is there twice, first in {first[group.name]}",
                    remedy="rename one of the two",
                )
            first.setdefault(group.name, self._line(place))

    def _machines_are_there_once(self) -> Iterator[BadInput]:
        first: dict[str, str] = {}
        for group_index, group in enumerate(self._plan.groups):
            for index, entry in enumerate(group.machines):
                place = self._machine_place(group_index, index)
                if entry.machine == ORCHESTRATOR:
                    yield self._source.error(
                        place,
                        f"'{ORCHESTRATOR}' means leeward's own host in a plan, so no machine can have this name",
                        remedy="rename the machine in the inventory",
                    )
                if entry.machine in first:
                    yield self._source.error(
                        place,
                        f"machine '{entry.machine}' is in the plan twice, first in {first[entry.machine]}",
                        remedy="keep it in one group",
                    )
                first.setdefault(entry.machine, self._line(place))

    def _line(self, place: Place) -> str:
        """``line 7``, with the file when it is an included one."""
        file, line = self._source.file_of(place), self._source.position(place).line
        return f"line {line}" if file is self._source else f"{file.name}:{line}"

    def _machine_place(self, group: int, machine: int) -> Place:
        """A bare name stands for itself, a mapping has it under ``machine``; the longer path finds both."""
        return ("groups", group, "machines", machine, "machine")

    def _dependencies_can_be_met(self, group: Group, place: Place) -> Iterator[BadInput]:
        members = [entry.machine for entry in group.machines]
        sound = True
        for index, entry in enumerate(group.machines):
            for position, name in enumerate(entry.depends_on):
                if name not in members:
                    sound = False
                    others = [member for member in members if member != entry.machine]
                    yield self._source.error(
                        (*place, index, "depends_on", position),
                        f"'{name}' is not a machine of the group '{group.name}'",
                        remedy=did_you_mean(name, others) or "a machine of an earlier group needs no dependency",
                    )
                elif not _entry(group, name).start:
                    yield self._source.error(
                        (*place, index, "depends_on", position),
                        f"'{name}' is not started by this plan, so nothing can depend on it",
                        remedy=f"remove 'start: false' from '{name}', or the dependency",
                    )
        if sound:
            try:
                start_waves(group.machines)
            except ValueError as error:
                yield self._source.error(place, str(error), remedy="remove one of the dependencies")

    def _target_networks_exist(self, entry: PlanMachine, place: Place) -> Iterator[BadInput]:
        machine = self._inventory.machines.get(entry.machine)
        if machine is None:
            return
        networks = self._inventory.sites[machine.target].networks
        for here, network, kind in (
            ((*place, "network"), entry.target.network, NetworkKind.PRODUCTION),
            ((*place, "test", "network"), entry.target.test.network, NetworkKind.ISOLATED),
        ):
            if network is None:
                continue
            if network not in networks:
                what = f"site '{machine.target}' has no network '{network}'"
                yield self._source.error(here, what, remedy=did_you_mean(network, networks))
            elif networks[network].kind is not kind:
                what = f"network '{network}' is of kind '{networks[network].kind}'"
                yield self._source.error(here, what, remedy=f"name a network of kind '{kind}' here")

    def _steps(self) -> Iterator[tuple[Place, Step, list[PlanMachine], str]]:
        """Every step with its place, the machines that are recovered when it runs, and its group."""
        recovered: list[PlanMachine] = []
        for index, step in enumerate(self._plan.before):
            yield ("before", index), step, [], ""
        for group_index, group in enumerate(self._plan.groups):
            for index, step in enumerate(group.before):
                yield ("groups", group_index, "before", index), step, list(recovered), group.name
            yield from self._machine_steps(group_index, group, recovered)
            recovered.extend(group.machines)
            for index, step in enumerate(group.after):
                yield ("groups", group_index, "after", index), step, list(recovered), group.name
        for index, step in enumerate(self._plan.after):
            yield ("after", index), step, list(recovered), ""

    def _machine_steps(
        self, group_index: int, group: Group, recovered: list[PlanMachine]
    ) -> Iterator[tuple[Place, Step, list[PlanMachine], str]]:
        """Machines of earlier waves are recovered before one's own steps, and after them it is itself."""
        try:
            waves = start_waves(group.machines)
        except ValueError:  # told as a circle already
            waves = [group.machines]
        places = {entry.machine: index for index, entry in enumerate(group.machines)}
        earlier = list(recovered)
        for wave in waves:
            for entry in wave:
                place: Place = ("groups", group_index, "machines", places[entry.machine])
                for index, step in enumerate(entry.before):
                    yield (*place, "before", index), step, list(earlier), group.name
                for index, step in enumerate(entry.after):
                    yield (*place, "after", index), step, [*earlier, entry], group.name
            earlier.extend(wave)

    def _approvers_may_approve(self, place: Place, step: Step) -> Iterator[BadInput]:
        for index, approver in enumerate(step.approvers if isinstance(step, ManualStep) else []):
            problem = self._why_not_an_approver(approver)
            if problem is not None:
                what, _, remedy = problem.partition(" — ")
                yield self._source.error((*place, "approvers", index), what, remedy=remedy)

    def _why_not_an_approver(self, approver: str) -> str | None:
        access = self._inventory.authorizer
        if access is None:
            kind = {"role:": "has a role", OF_GROUP: "is in a group"}
            of = next((kind[sign] for sign in kind if approver.startswith(sign)), None)
            return of and f"the inventory has no 'access', so nobody {of} — add it, or name users"
        if approver.startswith("role:"):
            return None
        if not approver.startswith(OF_GROUP):
            return access.refusal(approver, Action.APPROVE)
        groups = self._inventory.access.groups if self._inventory.access is not None else {}
        people = groups.get(approver.removeprefix(OF_GROUP))
        if people is None:
            known = [OF_GROUP + group for group in groups]
            return f"unknown group '{approver}' — {did_you_mean(approver, known) or 'add it to the inventory'}"
        if all(access.refusal(one, Action.APPROVE) for one in people):
            return f"nobody of '{approver}' may approve — add it to 'approvers' of the inventory's 'access'"
        return None

    def _steps_are_named_once(self) -> Iterator[BadInput]:
        first: dict[str, str] = {}
        for place, step, _, _ in self._steps():
            name_place = (*place, step.kind)
            if step.name in first:
                yield self._source.error(
                    name_place,
                    f"two steps are named '{step.name}', the first in {first[step.name]}",
                    remedy="operators retry and skip steps by name: rename one of the two",
                )
            first.setdefault(step.name, self._line(name_place))

    def _step_refers_to_machines(self, place: Place, step: Step, recovered: list[PlanMachine]) -> Iterator[BadInput]:
        if isinstance(step, ScriptStep) and step.on != ORCHESTRATOR:
            yield from self._machine_runs((*place, "on"), step.on, step, recovered, also=ORCHESTRATOR)
        if isinstance(step, CheckStep) and step.command is not None and step.command.on != ORCHESTRATOR:
            yield from self._machine_runs(
                (*place, "command", "on"), step.command.on, step, recovered, also=ORCHESTRATOR
            )
        if isinstance(step, CheckStep) and step.http is not None and step.http.machine is not None:
            yield from self._machine_runs((*place, "http", "machine"), step.http.machine, step, recovered)
        if isinstance(step, CheckStep) and step.tcp is not None and "{" not in step.tcp and ":" not in step.tcp:
            yield from self._machine_runs((*place, "tcp"), step.tcp.strip(), step, recovered)

    def _machine_runs(
        self, place: Place, name: str, step: Step, recovered: list[PlanMachine], also: str = ""
    ) -> Iterator[BadInput]:
        if name not in self._plan.machines:
            known = [*self._plan.machines, also] if also else self._plan.machines
            yield self._source.error(place, f"unknown machine '{name}' in this plan", remedy=did_you_mean(name, known))
            return
        if "cleanup" in step.runs:
            return
        answering = [entry.machine for entry in recovered if entry.start]
        if name not in answering and name in [entry.machine for entry in recovered]:
            yield self._source.error(
                place, f"machine '{name}' is not started by this plan", remedy="remove 'start: false', or this step"
            )
        elif name not in answering and step.runs not in (["commit"], ["reverse"]):
            yield self._source.error(
                place,
                f"machine '{name}' is not recovered yet when this step runs",
                remedy="move the step behind the group that recovers it",
            )

    def _templates_render(
        self, place: Place, step: Step, recovered: list[PlanMachine], group: str
    ) -> Iterator[BadInput]:
        templates = [(part, text) for part, text in _templates(step) if has_template(text)]
        if not templates or self._out_of_time:
            return
        for run_type in step.runs:
            for direction in step.directions:
                if time.monotonic() > self._deadline:
                    self._out_of_time = True
                    yield self._source.error(
                        place,
                        f"rendering the plan's templates takes longer than {MAX_CHECK_SECONDS:g} seconds",
                        remedy="make its templates simpler",
                    )
                    return
                names = self._names(place[:-1], run_type, direction, group, recovered)
                faults = list(self._faults(place, templates, names))
                yield from faults
                if faults:
                    return

    def _names(
        self, steps: Place, run_type: RunType, direction: Direction, group: str, recovered: list[PlanMachine]
    ) -> dict[str, Any]:
        """``steps``: the list that the step is in; what is recovered is the same for all of it."""
        key = (steps, run_type, direction)
        if key not in self._contexts:
            context = sample_context(self._plan, self._inventory, run_type, direction, group, recovered)
            self._contexts[key] = context.names()
        return self._contexts[key]

    def _faults(self, place: Place, templates: list[tuple[Place, str]], names: dict[str, Any]) -> Iterator[BadInput]:
        for part, text in templates:
            try:
                render_names(text, names)
            except TemplateFault as fault:
                yield BadInput(
                    f"{fault.what} (in a run of type {names['run_type']})",
                    where=self._source.where_in_text((*place, *part), fault.line, fault.word),
                    remedy=fault.remedy,
                )


def _templates(step: Step) -> Iterator[tuple[Place, str]]:
    """Every template of a step with its place inside it."""
    if isinstance(step, ScriptStep):
        yield from _program_templates(step, ())
    elif isinstance(step, ManualStep):
        yield ("instructions",), step.instructions
    elif isinstance(step, CheckStep):
        if step.tcp is not None:
            yield ("tcp",), step.tcp
        if step.http is not None:
            yield from _http_templates(step.http)
        if step.command is not None:
            yield from _program_templates(step.command, ("command",))
    elif isinstance(step, CallStep):
        yield from (((name,), text) for name in ("url", "body", "contains") if (text := getattr(step, name)))
        yield from ((("headers", name), value) for name, value in step.headers.items())


def _program_templates(program: Program, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(program.run, str):
        yield (*place, "run"), program.run
    else:
        yield from (((*place, "run", index), argument) for index, argument in enumerate(program.run))
    yield from (
        ((*place, "environment", name), value) for name, value in program.environment.items() if isinstance(value, str)
    )


def _http_templates(http: HttpCheck) -> Iterator[tuple[Place, str]]:
    for name in ("url", "path", "contains"):
        text = getattr(http, name)
        if text is not None:
            yield ("http", name), text


def _entry(group: Group, machine: str) -> PlanMachine:
    return next(entry for entry in group.machines if entry.machine == machine)
