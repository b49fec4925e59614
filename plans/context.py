"""What a step of a plan is told about the run it belongs to. Import-light: it travels in Temporal payloads."""

from __future__ import annotations

from typing import Any

from plans.steps import Direction, Scalar
from vault.domain import RunType, Value


class MachineInRun(Value):
    """What a run knows about one of its machines.

    Attributes:
        name: the machine's name at the site where it is (being) recovered; a test copy has its own.
        address: ``host:port`` where it answers; None until it was recovered.
        recovery_point: the id of the point it was made from.
    """

    name: str
    site: str
    network: str | None = None
    address: str | None = None
    recovery_point: str | None = None


class RunContext(Value):
    """What a step is told about its run, in the spirit of Site Recovery's RecoveryPlanContext.

    ``machines`` is keyed by the machine's name in the vault. The JSON of this value is what a script on the
    orchestrator finds in the file that ``LEEWARD_CONTEXT`` names.
    """

    plan: str
    run_id: str
    run_type: RunType
    direction: Direction
    group: str = ""
    variables: dict[str, Scalar] = {}
    machines: dict[str, MachineInRun] = {}
    left_out: list[str] = []
    """Machines of the plan that this run passes over: they are not among ``machines``."""

    def names(self) -> dict[str, Any]:
        """What templates can use: the fields by name, and each variable also by itself unless a field has its name."""
        fields = self.model_dump()
        return {**self.variables, **fields}
