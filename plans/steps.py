"""The steps of a recovery plan: what people and programs do around its machines.

Pydantic only, as :mod:`plans.model`, which puts them into groups.

In YAML a step begins with its kind and its name — ``- script: Warm the cache`` — in JSON it has ``kind`` and
``name``; both are read.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, Discriminator, Field, Tag, field_validator, model_validator

from vault.access import ALLOWED, Action
from vault.domain import MachineName, RunType, Value
from vault.inventory import PositiveDuration

Direction = Literal["primary-to-recovery", "recovery-to-primary"]
"""Site Recovery's words: which way a run moves the machines."""
OnFailure = Literal["wait", "continue", "stop"]
"""After a failed step: wait for the operator, go on without it, or end the run there."""

RECOVERING: tuple[RunType, ...] = ("test", "planned", "unplanned", "failback")
"""The run types that recover machines, and to which a step applies when it does not say otherwise."""
ORCHESTRATOR = "orchestrator"

Title = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f\s]([^\x00-\x1f\x7f]{0,118}[^\x00-\x1f\x7f\s])?$")]
"""A step's name: one line of at most 120 characters; operators type it to retry or skip the step."""
Scalar = str | bool | int | float
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
SecretReference = Annotated[str, Field(pattern=r"^(env|file):.+$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
"""A field name of HTTP (RFC 9110, "token")."""
Interpreter = Literal["sh", "bash", "python3", "pwsh", "powershell"]

MAX_SCRIPT = 120 * 1024
"""Bytes of a script's text: what one argument of a process may hold, with room to spare."""
APPROVING_ROLES = tuple(f"role:{role}" for role in sorted(ALLOWED[Action.APPROVE]))
PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,62})\}")
"""Where a header of a call gets a secret."""
SET_BY_LEEWARD = frozenset({"content-length", "host", "transfer-encoding", "connection", "idempotency-key"})


def _named(kind: str) -> Any:
    return Field(validation_alias=AliasChoices(kind, "name"))


class _Step(Value):
    """What all steps have. ``on_failure`` None: the group's, else the plan's."""

    runs: list[RunType] = Field(default=list(RECOVERING), min_length=1)
    directions: list[Direction] = Field(default=["primary-to-recovery", "recovery-to-primary"], min_length=1)
    on_failure: OnFailure | None = None


class Program(Value):
    """A program that runs on the orchestrator's host or on a recovered machine.

    Text in ``run`` is Jinja2 and given to ``interpreter``; a list is a program and its arguments, each Jinja2.
    ``secrets`` maps environment variables to references, resolved where the program runs and never rendered.
    """

    on: MachineName = ORCHESTRATOR
    run: Annotated[str, Field(min_length=1, max_length=MAX_SCRIPT)] | Annotated[list[str], Field(min_length=1)]
    interpreter: Interpreter = "sh"
    environment: dict[VariableName, Scalar] = {}
    secrets: dict[VariableName, SecretReference] = {}
    working_directory: str | None = None

    @model_validator(mode="after")
    def _environment_is_its_own(self) -> Self:
        for name in (*self.environment, *self.secrets):
            if name.startswith("LEEWARD_"):
                raise ValueError(f"the variable '{name}' is set by leeward itself; choose a name without LEEWARD_")
            if name in self.environment and name in self.secrets:
                raise ValueError(f"'{name}' is in 'environment' and in 'secrets'; keep one of the two")
        return self


class ScriptStep(_Step, Program):
    """Run a program; it must exit with 0."""

    kind: Literal["script"] = "script"
    name: Title = _named("script")
    timeout: PositiveDuration = 600


class ManualStep(_Step):
    """Wait until an operator approves."""

    kind: Literal["manual"] = "manual"
    name: Title = _named("manual")
    instructions: str = Field(default="", max_length=64 * 1024)
    """Markdown and Jinja2."""
    approvers: list[Annotated[str, Field(min_length=1, max_length=200)]] = []
    """Users, groups of the inventory (``@oncall``; in a run, their people), ``role:approver``, ``role:admin``: of those
    whom the inventory lets approve, only these may approve it, or skip it. Empty: all of them."""
    timeout: PositiveDuration | None = None
    on_timeout: Literal["fail", "continue"] = "fail"
    """What follows when ``timeout`` has passed: the step has failed, or the run goes on without the approval."""

    @model_validator(mode="after")
    def _can_be_approved(self) -> ManualStep:
        for approver in self.approvers:
            if approver.startswith("role:") and approver not in APPROVING_ROLES:
                known = ", ".join(APPROVING_ROLES)
                raise ValueError(f"'{approver[:60]}' is no role that approves; write {known}, or a user's name")
        if self.on_timeout == "continue" and self.timeout is None:
            raise ValueError("'on_timeout' without 'timeout' says nothing; add 'timeout', or remove it")
        return self


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


class CommandCheck(Program):
    """A program whose end is an answer: it exits with ``exit_code``, and its output has a match of ``matches``."""

    exit_code: int = Field(default=0, ge=0, le=255)
    matches: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """A regular expression of Python's ``re``, looked for anywhere in stdout and stderr; ``^`` and ``$`` are those of a
    line. No template."""

    @field_validator("matches")
    @classmethod
    def _is_an_expression(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern, re.MULTILINE)
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"'matches' is not a regular expression: {error}; correct it") from None
        return pattern


class CheckStep(_Step):
    """Ask every ``every`` seconds whether something is as it should, until it is or ``timeout`` has passed.

    ``tcp`` is a machine of the plan (its own address), ``machine:port`` or ``host:port``; it is Jinja2.
    """

    kind: Literal["check"] = "check"
    name: Title = _named("check")
    tcp: str | None = None
    http: HttpCheck | None = None
    command: CommandCheck | None = None
    timeout: PositiveDuration = 120
    every: PositiveDuration = 2

    @model_validator(mode="after")
    def _asks_one_thing(self) -> CheckStep:
        if [self.tcp, self.http, self.command].count(None) != 2:
            raise ValueError(
                "a check asks over tcp, over http or by a command; write one of 'tcp:', 'http:' and 'command:'"
            )
        return self


class CallStep(_Step):
    """Send one HTTP request, tried again while the other side is out of order, until ``timeout`` has passed.

    ``url``, ``headers``, ``body`` and ``contains`` are Jinja2. A header's value may have ``${NAME}`` for a name in
    ``secrets``; it is put in after rendering, where the request is sent.
    """

    kind: Literal["call"] = "call"
    name: Title = _named("call")
    url: str = Field(min_length=1, max_length=8192)
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[HeaderName, Annotated[str, Field(max_length=8192)]] = {}
    secrets: dict[VariableName, SecretReference] = {}
    body: str = Field(default="", max_length=MAX_SCRIPT)
    status: list[Annotated[int, Field(ge=200, le=599)]] = []
    """The answers that are a success; empty: every 2xx."""
    contains: str | None = None
    timeout: PositiveDuration = 120
    """For all tries together."""

    @model_validator(mode="after")
    def _says_what_can_be_sent(self) -> CallStep:
        if self.body and self.method in ("GET", "HEAD"):
            raise ValueError(f"a {self.method} request has no body; choose another method, or remove 'body'")
        if len({name.lower() for name in self.headers}) != len(self.headers):
            raise ValueError("a header is there twice; capital letters make no difference, keep one")
        for name in self.headers:
            if name.lower() in SET_BY_LEEWARD:
                raise ValueError(f"the header '{name}' is set by leeward itself; remove it")
        used = {name for value in self.headers.values() for name in PLACEHOLDER.findall(value)}
        for name in sorted(used - set(self.secrets)):
            raise ValueError(f"a header has '${{{name}}}', but 'secrets' has no '{name}'; add it, or correct the name")
        for name in sorted(set(self.secrets) - used):
            raise ValueError(f"no header has '${{{name}}}', so the secret would not be sent; use it, or remove it")
        return self


class WaitStep(_Step):
    """Let some time pass. In YAML the time is ``for``."""

    kind: Literal["wait"] = "wait"
    name: Title = _named("wait")
    duration: PositiveDuration = Field(validation_alias=AliasChoices("for", "duration"))


STEP_KINDS = ("script", "manual", "check", "call", "wait")


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
    | Annotated[CallStep, Tag("step:call")]
    | Annotated[WaitStep, Tag("step:wait")],
    Discriminator(
        _kind_of,
        custom_error_type="unknown_step",
        custom_error_message=(
            "a step must begin with its kind; write '- script: NAME', '- manual: NAME', '- check: NAME', "
            "'- call: NAME' or '- wait: NAME'"
        ),
    ),
]
