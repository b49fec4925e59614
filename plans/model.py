"""The recovery plan: what a reviewed YAML file says, as values.

Pydantic only, because workflows import it into their sandbox; values survive a round trip through JSON. Reading a
file is :mod:`plans.loading`, what a run does with a plan is :mod:`plans.stages`.

In YAML a step begins with its kind and its name — ``- script: Warm the cache`` — in JSON it has ``kind`` and
``name``; both are read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from vault.domain import MachineName, RunType, Value
from vault.inventory import Duration, PositiveDuration

Direction = Literal["primary-to-recovery", "recovery-to-primary"]
"""Site Recovery's words: which way a run moves the machines."""
OnFailure = Literal["wait", "continue", "stop"]
"""After a failed step: wait for the operator, go on without it, or end the run there."""
Decision = Literal["manual", "automatic"]

RECOVERING: tuple[RunType, ...] = ("test", "planned", "unplanned", "failback")
"""The run types that recover machines, and to which a step applies when it does not say otherwise."""
ORCHESTRATOR = "orchestrator"

Title = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f\s]([^\x00-\x1f\x7f]{0,118}[^\x00-\x1f\x7f\s])?$")]
"""A step's name: one line of at most 120 characters; operators type it to retry or skip the step."""
Scalar = str | bool | int | float
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
SecretReference = Annotated[str, Field(pattern=r"^(env|file):.+$")]
Interpreter = Literal["sh", "bash", "python3", "pwsh", "powershell"]

MAX_SCRIPT = 120 * 1024
"""Bytes of a script's text: what one argument of a process may hold, with room to spare."""


def _named(kind: str) -> Any:
    return Field(validation_alias=AliasChoices(kind, "name"))


class _Step(Value):
    """What all steps have. ``on_failure`` None: the group's, else the plan's."""

    runs: list[RunType] = Field(default=list(RECOVERING), min_length=1)
    directions: list[Direction] = Field(default=["primary-to-recovery", "recovery-to-primary"], min_length=1)
    on_failure: OnFailure | None = None


class ScriptStep(_Step):
    """Run a program on the orchestrator's host or on a recovered machine; it must exit with 0.

    Text in ``run`` is Jinja2 and given to ``interpreter``; a list is a program and its arguments, each Jinja2.
    ``secrets`` maps environment variables to references, resolved where the script runs and never rendered.
    """

    kind: Literal["script"] = "script"
    name: Title = _named("script")
    on: MachineName = ORCHESTRATOR
    run: Annotated[str, Field(min_length=1, max_length=MAX_SCRIPT)] | Annotated[list[str], Field(min_length=1)]
    interpreter: Interpreter = "sh"
    timeout: PositiveDuration = 600
    environment: dict[VariableName, Scalar] = {}
    secrets: dict[VariableName, SecretReference] = {}
    working_directory: str | None = None

    @model_validator(mode="after")
    def _environment_is_its_own(self) -> ScriptStep:
        for name in (*self.environment, *self.secrets):
            if name.startswith("LEEWARD_"):
                raise ValueError(f"the variable '{name}' is set by leeward itself; choose a name without LEEWARD_")
            if name in self.environment and name in self.secrets:
                raise ValueError(f"'{name}' is in 'environment' and in 'secrets'; keep one of the two")
        return self


class ManualStep(_Step):
    """Wait until an operator approves; a ``timeout`` that passes is a failure of the step."""

    kind: Literal["manual"] = "manual"
    name: Title = _named("manual")
    instructions: str = Field(default="", max_length=64 * 1024)
    """Markdown and Jinja2."""
    timeout: PositiveDuration | None = None


class HttpCheck(Value):
    """A GET request to a machine of the plan, or to ``url``; ``path``, ``url`` and ``contains`` are Jinja2.

    With ``machine`` the request goes to the machine's own address, on ``port`` when given.
    """

    machine: MachineName | None = None
    url: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    path: str = Field(default="/", pattern=r"^/")
    status: int = Field(default=200, ge=100, le=599)
    contains: str | None = None

    @model_validator(mode="after")
    def _has_one_target(self) -> HttpCheck:
        if (self.machine is None) == (self.url is None):
            raise ValueError("an http check needs either a machine or a url; write one of 'machine:' and 'url:'")
        return self


class CheckStep(_Step):
    """Ask every ``every`` seconds whether something answers, until it does or ``timeout`` has passed.

    ``tcp`` is a machine of the plan (its own address), ``machine:port`` or ``host:port``; it is Jinja2.
    """

    kind: Literal["check"] = "check"
    name: Title = _named("check")
    tcp: str | None = None
    http: HttpCheck | None = None
    timeout: PositiveDuration = 120
    every: PositiveDuration = 2

    @model_validator(mode="after")
    def _asks_one_thing(self) -> CheckStep:
        if (self.tcp is None) == (self.http is None):
            raise ValueError("a check asks over tcp or over http; write one of 'tcp:' and 'http:'")
        return self


class WaitStep(_Step):
    """Let some time pass. In YAML the time is ``for``."""

    kind: Literal["wait"] = "wait"
    name: Title = _named("wait")
    duration: PositiveDuration = Field(validation_alias=AliasChoices("for", "duration"))


STEP_KINDS = ("script", "manual", "check", "wait")


def _kind_of(value: Any) -> str | None:
    """Which kind of step a value is; the tag is spelt so that it can never be taken for a key of the file."""
    if isinstance(value, BaseModel):
        return f"step:{getattr(value, 'kind', '')}"
    if not isinstance(value, dict):
        return None
    if value.get("kind") in STEP_KINDS:
        return f"step:{value['kind']}"
    return next((f"step:{kind}" for kind in STEP_KINDS if kind in value), None)


Step = Annotated[
    Annotated[ScriptStep, Tag("step:script")]
    | Annotated[ManualStep, Tag("step:manual")]
    | Annotated[CheckStep, Tag("step:check")]
    | Annotated[WaitStep, Tag("step:wait")],
    Discriminator(
        _kind_of,
        custom_error_type="unknown_step",
        custom_error_message=(
            "a step must begin with its kind; write '- script: NAME', '- manual: NAME', '- check: NAME' or "
            "'- wait: NAME'"
        ),
    ),
]


class PlanMachine(Value):
    """A machine of a group and how this plan treats it. In YAML a bare name means all defaults.

    ``depends_on`` names machines of the same group that must answer before this one is started.
    ``start: false`` makes the machine and leaves it off.
    """

    machine: MachineName
    start: bool = True
    start_delay: Duration = 0
    boot_timeout: PositiveDuration = 600
    shutdown_timeout: PositiveDuration = 300
    depends_on: list[MachineName] = []


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
    ``variables_for`` overrides ``variables`` in runs of one type.
    """

    name: MachineName = Field(validation_alias=AliasChoices("plan", "name"))
    description: str = ""
    rto: PositiveDuration | None = None
    """The recovery time objective that reports measure recoveries against."""
    on_failure: OnFailure = "wait"
    variables: dict[VariableName, Scalar] = {}
    variables_for: dict[RunType, dict[VariableName, Scalar]] = {}
    before: list[Step] = []
    groups: list[Group] = Field(min_length=1)
    after: list[Step] = []
    commit: Decision = "manual"
    reverse_replication: Decision = "manual"

    @property
    def machines(self) -> list[str]:
        """Every machine, in the order in which the plan recovers them."""
        return [entry.machine for group in self.groups for entry in group.machines]

    def variables_in(self, run_type: RunType) -> dict[str, Scalar]:
        """The variables of a run of this type."""
        return {**self.variables, **self.variables_for.get(run_type, {})}

    def failure_rule(self, step: Step, group: Group | None = None) -> OnFailure:
        """What happens when ``step`` fails: its own word, else its group's, else the plan's."""
        return step.on_failure or (group.on_failure if group else None) or self.on_failure


def default_direction(run_type: RunType) -> Direction:
    """The direction of a run that nobody gave another one."""
    return "recovery-to-primary" if run_type == "failback" else "primary-to-recovery"
