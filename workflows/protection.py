"""Protecting a machine: enable, initial replication, finalize, resynchronize, disable (requirements §C.1-4)."""

from __future__ import annotations

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities import contracts
from activities.contracts import OfRelationship
from vault.domain import Relationship
from vault.errors import NotFound
from vault.lifecycle import JobKind
from vault.words import size
from workflows.calls import LONG_TRANSFER, call, invalid_state, reason, site_is_unreachable
from workflows.jobs import (
    Story,
    ask_both,
    placed,
    refuse_on_failures,
    source_replication_queue,
    source_site_queue,
    target_site_queue,
)
from workflows.model import JobInput, JobResult


@workflow.defn(name=JobKind.ENABLE.value)
class EnableProtection:
    """Check the prerequisites on both sides, then create the replication relationship."""

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story, relationship = Story(), given.relationship
        ready = await ask_both(relationship, given.timings, protecting=True)
        refuse_on_failures(ready.findings, f"protecting '{relationship.machine}'")
        story.tell(
            f"{len(ready.findings)} prerequisites checked at {relationship.source_site} and {relationship.target_site}"
        )
        there = OfRelationship(relationship=placed(relationship, ready))
        if relationship.existing_replica:
            await call(
                contracts.ADOPT_REPLICA,
                there,
                queue=target_site_queue(relationship),
                summary=f"make the existing {relationship.machine} at {relationship.target_site} a replica",
                timings=given.timings,
            )
            story.tell(f"the machine that exists at {relationship.target_site} is a replica now")
        await call(
            contracts.ENABLE,
            there,
            queue=source_replication_queue(relationship),
            summary=f"create the relationship {relationship.source_site} → {relationship.target_site}",
            timings=given.timings,
        )
        story.tell("replication relationship created; changes are tracked from now on")
        return JobResult(sentences=story.sentences)


@workflow.defn(name=JobKind.INITIAL_REPLICATION.value)
class InitialReplication:
    """Copy all disks from one snapshot, one after another, then the changes that were logged meanwhile.

    With the method ``media`` the disks come on a medium that operators carry; this job waits for its import at the
    target, and then only sends what changed since the export. With the method ``existing`` what differs from the
    machine that was restored at the target is sent.
    """

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story, relationship = Story(), given.relationship
        by_media = given.policy.initial_replication.method == "media"
        if by_media:
            story.tell(
                f"waiting for the seed: leeward seed export {relationship.machine} --to FOLDER at "
                f"{relationship.source_site}, then leeward seed import {relationship.machine} --from FOLDER at "
                f"{relationship.target_site}"
            )
            await call(
                contracts.AWAIT_SEED,
                OfRelationship(relationship=relationship),
                queue=target_site_queue(relationship),
                summary=f"wait until the seed of {relationship.machine} is imported at {relationship.target_site}",
                timings=given.timings,
                at_most=LONG_TRANSFER,
            )
            story.tell(f"seed imported at {relationship.target_site}")
        start = given.policy.initial_replication.start
        if start != "immediately":
            opens_in = time_until(start, workflow.now())
            story.tell(f"waiting for the scheduled start at {start} UTC")
            await workflow.sleep(opens_in, summary=f"initial replication is scheduled for {start} UTC")
        made = await call(
            contracts.COPY_INITIAL,
            OfRelationship(relationship=relationship),
            queue=source_replication_queue(relationship),
            summary=_what_is_copied(relationship, by_media=by_media),
            timings=given.timings,
            at_most=LONG_TRANSFER,
        )
        there = "differences from the existing machine" if relationship.existing_replica else "disks"
        what = "changes since the export" if by_media else there
        story.tell(f"{what} copied: {size(made.bytes_sent)} sent; first recovery point {made.point.id}")
        return JobResult(sentences=story.sentences, point=made.point, bytes_sent=made.bytes_sent)


def _what_is_copied(relationship: Relationship, *, by_media: bool) -> str:
    machine, site = relationship.machine, relationship.target_site
    if by_media:
        return f"send what the seed of {machine} does not have to {site}"
    if relationship.existing_replica:
        return f"compare {machine} with the machine that exists at {site}, send the differences"
    return f"copy the disks of {machine} to {site}"


@workflow.defn(name=JobKind.FINALIZE.value)
class FinalizeProtection:
    """Clean up after the initial replication; the machine is protected from here on."""

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story, relationship = Story(), given.relationship
        await call(
            contracts.FINALIZE,
            OfRelationship(relationship=relationship),
            queue=source_replication_queue(relationship),
            summary="delete the snapshot, check that the replica is complete",
            timings=given.timings,
        )
        story.tell("snapshot deleted, replica complete: the machine is protected")
        return JobResult(sentences=story.sentences)


@workflow.defn(name=JobKind.RESYNCHRONIZE.value)
class Resynchronize:
    """Compare block checksums on both sides and send only what differs; recovery points stay."""

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story, relationship = Story(), given.relationship
        made = await call(
            contracts.RESYNCHRONIZE,
            OfRelationship(relationship=relationship),
            queue=source_replication_queue(relationship),
            summary=f"compare {relationship.machine} with its replica, send the differences",
            timings=given.timings,
            at_most=LONG_TRANSFER,
        )
        story.tell(f"resynchronized: {size(made.bytes_sent)} sent; recovery point {made.point.id}")
        return JobResult(sentences=story.sentences, point=made.point, bytes_sent=made.bytes_sent)


@workflow.defn(name=JobKind.DISABLE.value)
class DisableProtection:
    """Stop tracking at the source and delete the replica with its recovery points. A replica that existed before its
    first copy is somebody's machine, and stays."""

    def __init__(self) -> None:
        self._remains: list[str] = []

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story = Story()
        story.tell(await self._stop_tracking(given))
        story.tell(await self._delete_replica(given))
        return JobResult(sentences=story.sentences, trouble="; ".join(self._remains) or None)

    async def _stop_tracking(self, given: JobInput) -> str:
        """Returns what to tell. A source that does not answer is the operator's decision: nothing was changed yet."""
        site, machine = given.relationship.source_site, given.relationship.machine
        try:
            ended = await call(
                contracts.DISABLE_SOURCE,
                OfRelationship(relationship=given.relationship),
                queue=source_site_queue(given.relationship),
                summary=f"stop tracking at {site}",
                timings=given.timings,
                once=True,
                site_must_answer=True,
            )
        except ActivityError as error:
            if _is_not_known(error, given):
                return self._left(site, error)
            if not site_is_unreachable(error):
                raise
            if not given.request.source_unreachable:
                raise invalid_state(
                    f"{site} does not answer, and would go on tracking changes of '{machine}': {reason(error)}",
                    f"bring the site back, or go on without it: leeward disable {machine} --source-unreachable; "
                    "nothing was changed",
                ) from error
            return (
                f"tracking not stopped at {site}, which does not answer; when it is back, its change logs grow until "
                f"'{machine}' is protected and disabled again"
            )
        return f"at {site}: {ended.left}" if ended.left else f"tracking stopped at {site}"

    async def _delete_replica(self, given: JobInput) -> str:
        site, stays = given.relationship.target_site, given.relationship.existing_replica
        try:
            ended = await call(
                contracts.DISABLE_TARGET,
                OfRelationship(relationship=given.relationship),
                queue=target_site_queue(given.relationship),
                summary=f"end the replication at {site}" if stays else f"delete the replica at {site}",
                timings=given.timings,
            )
        except ActivityError as error:
            if not _is_not_known(error, given):
                raise
            return self._left(site, error)
        if ended.left:
            return f"at {site}: {ended.left}"
        if stays:
            return f"replication ended at {site}; the machine that existed there stays, off"
        return f"replica and recovery points deleted at {site}"

    def _left(self, site: str, error: ActivityError) -> str:
        told = f"not cleaned up at {site}: {reason(error)}"
        self._remains.append(told)
        return told


def _is_not_known(error: ActivityError, given: JobInput) -> bool:
    """The site needs the machine's entry of the inventory, and the operator has said that there is none."""
    cause = error.cause
    return given.request.not_in_inventory and isinstance(cause, ApplicationError) and cause.type == NotFound.__name__


def time_until(clock: str, now: datetime) -> timedelta:
    """From ``now`` to the next ``HH:MM`` UTC."""
    hour, minute = (int(part) for part in clock.split(":"))
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return at - now if at > now else at + timedelta(days=1) - now
