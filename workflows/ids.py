"""Workflow ids. A fixed id is a lock: Temporal runs at most one workflow of an id at a time."""

from __future__ import annotations


def machine_id(machine: str) -> str:
    return f"machine/{machine}"


def plan_id(plan: str) -> str:
    return f"plan/{plan}"


def schedule_change_id(plan: str) -> str:
    return f"schedule/{plan}"


def site_slots_id(site: str) -> str:
    return f"site/{site}/failovers"


def group_claims_id(group: str) -> str:
    return f"group/{group}"


def stage_id(plan: str, index: int, title: str) -> str:
    return f"plan/{plan}/{index}-{title.replace(' ', '-')}"


def job_id(machine: str, number: int, kind: str) -> str:
    return f"job/{machine}/{number}-{kind}"


def machine_of(job: str) -> str:
    """The machine in a job's id."""
    return job.split("/")[1]
