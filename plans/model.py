"""The recovery plan: what a reviewed YAML file says, as values.

Pydantic only, because workflows import it into their sandbox; values survive a round trip through JSON. Its steps are
:mod:`plans.steps`, reading a file is :mod:`plans.loading`, what a run does with a plan is :mod:`plans.stages`.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, field_validator

from plans.steps import Direction, OnFailure, Scalar, Step, VariableName
from vault.domain import MachineName, RunType, TargetSettings, Value
from vault.inventory import Duration, PositiveDuration, PositiveSize
from vault.limits import PlanLimits

Decision = Literal["manual", "automatic"]
RunKind = Literal[
    "test",
    "cleanup",
    "planned",
    "unplanned",
    "failback",
    "commit",
    "reverse",
    "primary-to-recovery",
    "recovery-to-primary",
]
"""A run's type or its direction; one list, so that a wrong word is told once."""
DEFAULT_PRIORITY = 3


class Target(Value):
    """How a recovered machine is to be; what is not said is as it was, or as the inventory's mapping says."""

    network: MachineName | None = None
    address: str | None = None
    """The IP address of its guest."""
    cpus: int | None = Field(default=None, ge=1, le=1024)
    memory: PositiveSize | None = None

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        if address is not None:
            try:
                ip_address(address)
            except ValueError:
                raise ValueError(f"'{address[:60]}' is not an IP address; write one like 10.0.0.5") from None
        return address


class MachineTarget(Target):
    """At the recovery site; failing back, machines are what they were. ``test``: what is different in a test."""

    test: Target = Target()

    def in_run(self, run_type: RunType) -> TargetSettings:
        """For a recovery of this type. A test takes the size over, never the network or address of production."""
        if run_type != "test":
            return TargetSettings(network=self.network, address=self.address, cpus=self.cpus, memory=self.memory)
        test = self.test
        return TargetSettings(
            network=test.network,
            address=test.address,
            cpus=test.cpus or self.cpus,
            memory=test.memory or self.memory,
        )


class PlanMachine(Value):
    """A machine of a group and how this plan treats it. In YAML a bare name means all defaults.

    ``depends_on`` names machines of the same group that must answer before this one is started.
    ``start: false`` makes the machine and leaves it off.
    """

    machine: MachineName
    priority: int = Field(default=DEFAULT_PRIORITY, ge=1, le=5)
    """Machines of 1 start first, those of 5 last, as far as dependencies allow."""
    before: list[Step] = []
    after: list[Step] = []
    """Steps around this machine alone; those before it hold up nothing else."""
    start: bool = True
    start_delay: Duration = 0
    boot_timeout: PositiveDuration = 600
    shutdown_timeout: PositiveDuration = 300
    depends_on: list[MachineName] = []
    target: MachineTarget = MachineTarget()


def _bare_name(value: Any) -> Any:
    return {"machine": value} if isinstance(value, str) else value


class Group(Value):
    """Machines that are recovered together, with the steps around them. ``on_failure`` None: the plan's."""

    name: MachineName
    machines: list[
        Annotated[PlanMachine, BeforeValidator(_bare_name, json_schema_input_type=MachineName | PlanMachine)]
    ] = Field(min_length=1)
    before: list[Step] = []
    after: list[Step] = []
    on_failure: OnFailure | None = None


class Plan(Value):
    """The whole file.

    ``before`` and ``after`` surround the whole run (before anything is shut down; after the last group).
    ``variables_for`` overrides ``variables`` in runs of one type, or in one direction; a run's type has the last word.
    """

    name: MachineName = Field(validation_alias=AliasChoices("plan", "name"))
    description: str = ""
    rto: PositiveDuration | None = None
    """The recovery time objective that reports measure recoveries against."""
    on_failure: OnFailure = "wait"
    variables: dict[VariableName, Scalar] = {}
    variables_for: dict[RunKind, dict[VariableName, Scalar]] = {}
    before: list[Step] = []
    groups: list[Group] = Field(min_length=1)
    after: list[Step] = []
    limits: PlanLimits = PlanLimits()
    commit: Decision = "manual"
    reverse_replication: Decision = "manual"

    @property
    def machines(self) -> list[str]:
        """Every machine, in the order in which the plan recovers them."""
        return [entry.machine for group in self.groups for entry in group.machines]

    @property
    def steps(self) -> Iterator[Step]:
        """Every step, in the order of the file."""
        yield from self.before
        for group in self.groups:
            yield from group.before
            for entry in group.machines:
                yield from entry.before
                yield from entry.after
            yield from group.after
        yield from self.after

    def targets_in(self, run_type: RunType) -> dict[str, TargetSettings]:
        """By machine, what a run towards the recovery site wants of it; machines without a wish are not there."""
        wishes = {
            entry.machine: entry.target.in_run(run_type)
            for group in self.groups
            for entry in group.machines
            if entry.target != MachineTarget()
        }
        return {machine: wish for machine, wish in wishes.items() if wish.wanted}

    def variables_in(self, run_type: RunType, direction: Direction) -> dict[str, Scalar]:
        """The variables of a run of this type."""
        return {**self.variables, **self.variables_for.get(direction, {}), **self.variables_for.get(run_type, {})}

    def failure_rule(self, step: Step, group: Group | None = None) -> OnFailure:
        """What happens when ``step`` fails: its own word, else its group's, else the plan's."""
        return step.on_failure or (group.on_failure if group else None) or self.on_failure


def default_direction(run_type: RunType) -> Direction:
    """The direction of a run that nobody gave another one."""
    return "recovery-to-primary" if run_type == "failback" else "primary-to-recovery"
