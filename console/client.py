"""What the command line, the demo and tests do with leeward: typed calls over a Temporal client."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from activities.contracts import CONTROL_QUEUE
from console.asking import JobFailed, translated
from console.leaving_out import require_that_may_be_left_out
from console.machine_status import MachineStatus
from console.machines import Machines
from console.plan_runs import FAILOVERS, GIVE_WAY, PlanRuns
from plans.model import Plan, default_direction
from vault.domain import LATEST, Finding, RunType, Severity
from vault.lifecycle import WITH_RECOVERY_POINTS
from workflows.attributes import attributes
from workflows.calls import reason
from workflows.model import Readiness, ReadinessInput, RunFacts

LEFT_OUT = "left out: not looked at, and not part of such a run"


class Leeward(Machines, PlanRuns):
    """One connection to one Temporal namespace.

    Errors of all calls: ``NotFound``, ``InvalidState`` (refused, nothing changed), ``Unreachable``.
    """

    async def readiness(self, plan: Plan, run_type: RunType, without: Sequence[str] = ()) -> list[Finding]:
        """Everything a run of this type would need, looked at now: machines, their RPO, sites, networks, space.

        ``without``: machines that it would leave out; nothing is asked about them. Raises ``BadInput`` when it cannot.
        """
        require_that_may_be_left_out(plan, without, run_type)
        machines = [machine for machine in plan.machines if machine not in without]
        facts = RunFacts(
            plan=plan.name,
            run_id="readiness",
            run_type=run_type,
            direction=default_direction(run_type),
            requested_by=self.operator,
            point=LATEST,
            source_unreachable=False,
            timings=self.timings,
            variables=plan.variables_in(run_type, default_direction(run_type)),
            left_out=dict.fromkeys(without, LEFT_OUT),
        )
        given = ReadinessInput(
            facts=facts, machines=machines, look_at_everything=True, targets=plan.targets_in(run_type)
        )
        try:
            found: Readiness = await self.client.execute_workflow(
                "PlanReadiness",
                given,
                id=f"readiness/{plan.name}/{secrets.token_hex(4)}",
                task_queue=CONTROL_QUEUE,
                result_type=Readiness,
                search_attributes=attributes(plan=plan.name, run_type=run_type, phase="check readiness"),
                static_summary=f"is {plan.name} ready for a {run_type} run? asked by {self.operator}",
            )
        except WorkflowFailureError as error:
            raise JobFailed(reason(error.cause), where=f"plan {plan.name}") from error
        except RPCError as error:
            raise translated(error, plan.name) from error
        statuses = await asyncio.gather(*map(self.machine_status, machines))
        replicating = [status for status in statuses if status and status.state.phase in WITH_RECOVERY_POINTS]
        left_out = [Finding(severity=Severity.WARN, subject=name, what=LEFT_OUT) for name in without]
        findings = found.findings + [_rpo_finding(status) for status in replicating] + left_out
        going_on = await self.going_on(plan.name)
        return findings if going_on is None else [_not_beside(plan.name, going_on, run_type), *findings]


def _not_beside(plan: str, going_on: str, run_type: RunType) -> Finding:
    """What another run of the plan means for one that is to begin."""
    what = f"a run of it ({going_on}) is going on"
    if run_type in FAILOVERS and going_on in GIVE_WAY:
        return Finding(severity=Severity.WARN, subject=plan, what=f"{what}; a failover ends it")
    return Finding(
        severity=Severity.FAIL,
        subject=plan,
        what=f"{what}; a plan runs once at a time",
        remedy=f"follow it to its end: leeward plan watch {plan}",
    )


def _rpo_finding(status: MachineStatus) -> Finding:
    """A recovery point that is older than two turns of replication is news."""
    machine = status.state.name
    rpo = status.rpo_s
    if rpo is None:
        return Finding(
            severity=Severity.FAIL, subject=machine, what="has no recovery point", remedy=f"leeward status {machine}"
        )
    what = f"RPO {rpo:.0f} s, replicates every {status.state.policy.frequency:g} s"
    return Finding(
        severity=Severity.WARN if status.is_late else Severity.PASS,
        subject=machine,
        what=what,
        remedy=f"see what holds it up: leeward status {machine}" if status.is_late else "",
    )
