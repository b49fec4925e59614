"""Fill the templates of a plan's steps with what is known about a run.

Rendering takes processor time and reads the clock: do it in activities and commands, never in workflow code.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.utils import missing

from plans.context import RunContext
from plans.filters import FILTERS, TemplateRefused, as_text
from plans.sandbox import PlanTemplates, UnknownFilter, UnknownName, bounded
from plans.steps import MAX_SCRIPT, CallStep, CheckStep, ManualStep, Program, ScriptStep, Step
from vault.errors import BadInput, InvalidState
from vault.validation import did_you_mean


class TemplateFault(BadInput):
    """A template cannot be rendered. ``line`` is the line of the template, from 1; ``word`` what is wrong in it."""

    def __init__(self, what: str, *, line: int, word: str = "", where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.line = line
        self.word = word


def render(text: str, context: RunContext, *, where: str = "") -> str:
    """``text`` with its Jinja2 filled in, at most 256 KiB.

    Raises:
        TemplateFault: when it uses an unknown name, is not sound, or asks for more than a plan may.
    """
    return render_names(text, context.names(), where=where) if has_template(text) else text


def has_template(text: str) -> bool:
    """Whether rendering could change ``text``."""
    return "{" in text


def render_names(text: str, names: dict[str, Any], *, where: str = "") -> str:
    """As :func:`render`, with the result of :meth:`RunContext.names`: for many texts in one context."""
    templates = PlanTemplates()
    try:
        tree = templates.check(text)
        code = templates.compile(tree, filename=_FILE)
        template = templates.template_class.from_code(templates, code, templates.globals)
        return bounded(template.generate(names))
    except TemplateRefused as error:
        _refuse(error, error.what, where, line=error.line, remedy=_filter_remedy(error))
    except UnknownName as error:
        _refuse_unknown(error, names, where)
    except TemplateSyntaxError as error:
        _refuse(error, f"the template is not sound: {error.message}", where, line=error.lineno)
    except SecurityError as error:
        _refuse(error, "the template calls or reads something that plans may not use", where)
    except RecursionError as error:
        _refuse(error, "the template is too deeply nested", where)
    except (TemplateError, SyntaxError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        # What a template computes can fail in any of these ways, as an expression in a program can.
        _refuse(error, f"the template fails: {str(error)[:200] or type(error).__name__}", where)


def render_step(step: Step, context: RunContext, *, where: str = "") -> Step:
    """The step with all its templates filled in, ready to be carried out.

    Raises:
        TemplateFault: as :func:`render`.
    """

    def filled(text: str) -> str:
        return render(text, context, where=where)

    if isinstance(step, ScriptStep):
        return step.model_copy(update=_program(step, filled, where))
    if isinstance(step, ManualStep):
        return step.model_copy(update={"instructions": filled(step.instructions)})
    if isinstance(step, CheckStep):
        return _render_check(step, filled, where)
    if isinstance(step, CallStep):
        texts = {"url": filled(step.url).strip(), "body": filled(step.body)}
        texts |= {} if step.contains is None else {"contains": filled(step.contains)}
        headers = {name: filled(value) for name, value in step.headers.items()}
        return step.model_copy(update={**texts, "headers": headers})
    return step


def _program(program: Program, filled: Callable[[str], str], where: str) -> dict[str, Any]:
    """What rendering changes about a program."""
    run = filled(program.run) if isinstance(program.run, str) else [filled(argument) for argument in program.run]
    if sum(len(part.encode()) for part in ([run] if isinstance(run, str) else run)) > MAX_SCRIPT:
        raise TemplateFault(
            f"the rendered script is longer than {MAX_SCRIPT // 1024} KiB",
            line=1,
            where=where,
            remedy="put it into a file on the host and call that",
        )
    variables = {
        name: filled(value) if isinstance(value, str) else value for name, value in program.environment.items()
    }
    return {"run": run, "environment": variables}


def _render_check(step: CheckStep, filled: Callable[[str], str], where: str) -> CheckStep:
    if step.tcp is not None:
        return step.model_copy(update={"tcp": filled(step.tcp)})
    if step.command is not None:
        command = step.command.model_copy(update=_program(step.command, filled, where))
        return step.model_copy(update={"command": command})
    assert step.http is not None
    parts = {name: getattr(step.http, name) for name in ("url", "path", "contains")}
    http = step.http.model_copy(update={name: filled(text) for name, text in parts.items() if text is not None})
    return step.model_copy(update={"http": http})


def environment(context: RunContext, context_file: str, program: Program | None = None) -> dict[str, str]:
    """The environment variables that a script gets; its secrets are for the caller to resolve and add.

    Args:
        context_file: the path, where the script runs, of a file with ``context.model_dump_json()`` in it.
        program: as rendered; its own ``environment`` is added.
    """
    own = {name: as_text(value) for name, value in program.environment.items()} if program else {}
    return {
        **own,
        "LEEWARD_PLAN": context.plan,
        "LEEWARD_RUN_ID": context.run_id,
        "LEEWARD_RUN_TYPE": context.run_type,
        "LEEWARD_DIRECTION": context.direction,
        "LEEWARD_GROUP": context.group,
        "LEEWARD_CONTEXT": context_file,
    }


def command(program: Program) -> list[str]:
    """The arguments that carry out a rendered program."""
    if not isinstance(program.run, str):
        return list(program.run)
    return [*_INTERPRETERS[program.interpreter], program.run]


def tcp_target(step: CheckStep, context: RunContext) -> tuple[str, int]:
    """Host and port that a rendered tcp check connects to.

    Raises:
        InvalidState: when it names a machine that has no address yet.
        BadInput: when it is neither a machine of the run nor ``host:port``.
    """
    assert step.tcp is not None
    known = {*context.machines, *context.left_out}
    target = step.tcp.strip()
    if target in known:
        return _split(_address(target, context), step.name)
    host, port = _split(target, step.name)
    if host in known:
        host, _ = _split(_address(host, context), step.name)
    return host, port


def http_target(step: CheckStep, context: RunContext) -> str:
    """The URL that a rendered http check asks.

    Raises:
        InvalidState: when it names a machine that has no address yet.
        BadInput: when it names a machine that is not in the run, or the URL is not http(s).
    """
    assert step.http is not None
    if step.http.url is not None:
        if not re.match(r"https?://[^\s/]+", step.http.url):
            raise BadInput(f"'{step.http.url[:200]}' is not a URL", where=step.name, remedy="begin it with http://")
        return step.http.url
    assert step.http.machine is not None
    host, port = _split(_address(step.http.machine, context), step.name)
    return f"http://{_bracketed(host)}:{step.http.port or port}{step.http.path}"


_FILE = "<plan>"
_LEFT_OUT = "machine '{}' is left out of this run"
_SKIP = "skip the step"
_INTERPRETERS = {
    "sh": ["sh", "-eu", "-c"],
    "bash": ["bash", "-euo", "pipefail", "-c"],
    "python3": ["python3", "-c"],
    "pwsh": ["pwsh", "-NoProfile", "-NonInteractive", "-Command"],
    "powershell": ["powershell", "-NoProfile", "-NonInteractive", "-Command"],
}


def _address(machine: str, context: RunContext) -> str:
    if machine in context.left_out:
        raise InvalidState(_LEFT_OUT.format(machine), where=context.plan, remedy=_SKIP)
    if machine not in context.machines:
        raise BadInput(
            f"machine '{machine}' is not in this run",
            where=context.plan,
            remedy=did_you_mean(machine, context.machines),
        )
    address = context.machines[machine].address
    if address is None:
        raise InvalidState(
            f"machine '{machine}' has no address yet",
            where=f"{context.plan}, group {context.group}",
            remedy="check it after the group that recovers it",
        )
    return address


def _split(address: str, step: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 0 < int(port) < 65536:
        raise BadInput(
            f"'{address[:200]}' is neither a machine of the plan nor host:port", where=step, remedy="correct the check"
        )
    return host.strip("[]"), int(port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _refuse(error: Exception, what: str, where: str, *, line: int = 0, word: str = "", remedy: str = "") -> NoReturn:
    raise TemplateFault(
        what, line=line or _line_in_template(error), word=word, where=where, remedy=remedy or "correct the template"
    ) from None


def _refuse_unknown(error: UnknownName, names: dict[str, Any], where: str) -> NoReturn:
    if error.owner is missing:
        what, known = f"unknown variable '{error.name}'", [*names, "range"]
    elif error.owner is names["machines"] and error.name in names["left_out"]:
        _refuse(error, _LEFT_OUT.format(error.name), where, word=str(error.name), remedy=_SKIP)
    elif error.owner is names["machines"]:
        what, known = f"unknown machine '{error.name}' in this plan", list(error.owner)
    elif isinstance(error.owner, dict):
        what, known = f"unknown name '{error.name}'", [str(key) for key in error.owner]
    else:
        what, known = str(error), []
    remedy = did_you_mean(str(error.name), known)
    _refuse(error, what, where, word=str(error.name), remedy=remedy)


def _filter_remedy(error: TemplateRefused) -> str:
    return did_you_mean(error.name, FILTERS) if isinstance(error, UnknownFilter) else ""


def _line_in_template(error: Exception) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == _FILE and frame.lineno]
    return lines[-1] if lines else 1
