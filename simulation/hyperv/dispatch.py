"""The answer of a fabric's hosts to every operation of ``adapters.hyperv.operations``."""

from __future__ import annotations

from collections.abc import Callable

from adapters.hyperv.operations import OPERATIONS
from simulation.hyperv import failovers, machines, media, refusal, relationships, tracking
from simulation.hyperv.fabric import Fabric, Handler, Here
from simulation.hyperv.refusal import Refusal
from simulation.winrm.answering import Failure, Request, Result
from vault.errors import LeewardError

HANDLERS: dict[str, Handler] = {
    **machines.OPERATIONS,
    **relationships.OPERATIONS,
    **media.OPERATIONS,
    **failovers.OPERATIONS,
    **tracking.OPERATIONS,
}
Fault = Callable[[Request], Failure | None]
"""Asked before every operation; a failure is answered instead of it."""


class Dispatch:
    """An :data:`simulation.winrm.answering.Answer`.

    Args:
        administrators: logins that may manage the hosts; None: all that may log in.
    """

    def __init__(self, fabric: Fabric, administrators: frozenset[str] | None = None) -> None:
        self._fabric = fabric
        self.administrators = administrators
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        """``(host, script)`` of every operation."""

    def __call__(self, request: Request) -> Result:
        self.asked.append((request.host, request.script))
        host = self._fabric.state.hosts[request.host]
        here = Here(self._fabric, host, request.script, host.reboots)
        for fault in self.faults:
            if (failed := fault(request)) is not None:
                return failed
        if self.administrators is not None and request.user not in self.administrators:
            return refusal.denied(request.host)
        try:
            given = OPERATIONS[request.script].takes.model_validate(request.parameters)
            result = HANDLERS[request.script](here, given)
        except Refusal as refused:
            return refused.failed
        except LeewardError as error:
            return refusal.of_the_lab(here.cmdlet, error).failed
        return result.model_dump(mode="json")
