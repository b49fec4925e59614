"""What a script of a plan is told about the run it belongs to. Import-light: it travels in Temporal payloads."""

from __future__ import annotations

from vault.domain import RunType, Value


class ContextMachine(Value):
    """One machine of the run as it is known at this moment; ``address`` is ``host:port`` once it answers."""

    name: str
    """Its name at ``site``: differs from the protected machine's name in a test failover."""
    site: str
    network: str | None = None
    address: str | None = None
    recovery_point: str | None = None


class RunContext(Value):
    """In the spirit of Site Recovery's RecoveryPlanContext: plan, run, type, direction, group and machines.

    ``machines`` is keyed by the protected machine's name in the vault.
    """

    plan: str
    run_id: str
    run_type: RunType
    direction: str
    group: str
    variables: dict[str, str] = {}
    machines: dict[str, ContextMachine] = {}
