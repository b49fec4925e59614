"""What a test did to production: how replication went meanwhile, measured at the target sites (requirements §C.5)."""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities import contracts
from activities.contracts import ReplicationQuestion, site_queue
from vault.domain import Relationship, ReplicationSince
from workflows.calls import call, reason
from workflows.model import Timings


async def measure_replication(
    relationships: list[Relationship], since: datetime, timings: Timings
) -> list[ReplicationSince]:
    """By machine. A site that cannot tell is no failure of the test, but is said."""
    measured: list[ReplicationSince] = []
    for site in sorted({one.target_site for one in relationships}):
        there = [one for one in relationships if one.target_site == site]
        try:
            answer = await call(
                contracts.MEASURE_REPLICATION,
                ReplicationQuestion(site=site, relationships=there, since=since, until=workflow.now()),
                queue=site_queue(site),
                summary=f"was replication to {site} undisturbed?",
                timings=timings,
                once=True,
                site_must_answer=True,
            )
        except ActivityError as error:
            why = reason(error)
            measured += [
                ReplicationSince(machine=one.machine, late_after_s=one.late_after_s, trouble=why) for one in there
            ]
        else:
            measured += answer.machines
    return measured
