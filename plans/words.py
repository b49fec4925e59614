"""What a step does, in the few words that trees and pictures have room for."""

from __future__ import annotations

from plans.steps import ORCHESTRATOR, CallStep, CheckStep, ScriptStep, Step, WaitStep
from plans.yamltext import duration, size
from vault.domain import TargetSettings


def does(step: Step) -> str:
    """Where or on what the step acts: ``on web``, ``tcp web:80``, ``POST https://…``."""
    if isinstance(step, ScriptStep):
        return _place(step.on)
    if isinstance(step, CheckStep):
        return _asks(step)
    if isinstance(step, CallStep):
        return f"{step.method} {step.url}"
    if isinstance(step, WaitStep):
        return duration(step.duration)
    return f"approved by {', '.join(step.approvers)}" if step.approvers else "an operator approves"


def words(target: TargetSettings) -> str:
    """``network dmz, 4 cpus, 8GiB memory``; empty when nothing is wished for."""
    return ", ".join(
        part
        for part in (
            f"network {target.network}" if target.network else "",
            f"address {target.address}" if target.address else "",
            f"{target.cpus} cpus" if target.cpus else "",
            f"{size(target.memory)} memory" if target.memory else "",
        )
        if part
    )


def _asks(step: CheckStep) -> str:
    if step.http is not None:
        return f"http {step.http.url or f'{step.http.machine}{step.http.path}'}"
    if step.command is not None:
        return f"command {_place(step.command.on)}"
    return f"tcp {step.tcp}"


def _place(on: str) -> str:
    return "on the orchestrator" if on == ORCHESTRATOR else f"on {on}"
