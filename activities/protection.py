"""The replication port as activities. [source] and [target] calls differ only in the queue they are sent to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Literal

from temporalio import activity

from activities import contracts
from activities.cadence import app_consistent_is_due, cut_is_due, seconds_until_next, try_is_due
from activities.contracts import (
    CommitPoint,
    Done,
    Ended,
    FailOver,
    Findings,
    OfRelationship,
    PointChosen,
    PointList,
    PointMade,
    PointQuestion,
    ReadinessQuestion,
    Replicate,
    ReplicationPulse,
    ReplicationStopped,
    Waiting,
)
from activities.room import RoomCheck, when_there_is_room
from activities.running import BlockingRunner, Running
from activities.turns import Turns, when_free
from adapters.ports import (
    AdoptsReplicas,
    Beat,
    MovesTogether,
    OpensPoints,
    PlacesReplicas,
    ReplicationProvider,
    SizesReplicas,
)
from adapters.registry import Adapters
from replication.groups import moment_choice
from replication.ports import Report
from vault.domain import (
    LATEST,
    CacheFill,
    Finding,
    Progress,
    RecoveredMachine,
    Relationship,
    ReplicaSpace,
    Severity,
    utc,
)
from vault.errors import Damaged, InvalidState, LeewardError, Recoverable, ResynchronizationRequired
from vault.retry import delay_after_failure
from vault.words import size

LOOK_FOR_SEED_EVERY_S = 5.0
READ_CHANGES_FOR_S = 5.0
"""So long a readiness check may read what waits in segments, for all its machines: a recovery waits for it."""
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class ProtectionActivities:
    """Every call may be repeated after a crash: the adapters promise it."""

    def __init__(
        self, adapters: Adapters, runner: BlockingRunner, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """``clock``: the host's, which may be set at any moment."""
        self._adapters = adapters
        self._runner = runner
        self._now = clock
        self._turns = Turns()
        self._run = runner.run
        self._change = runner.change

    @activity.defn(name=contracts.CHECK_READINESS.name)
    async def check_readiness(self, given: ReadinessQuestion) -> Findings:
        def call(running: Running) -> Findings:
            fabric = self._adapters.hypervisor(given.site)
            site = fabric.check()
            findings, placed, room = list(site), {}, RoomCheck(fabric, given.leaving)
            space: dict[str, ReplicaSpace] = {}
            identities: dict[str, str] = {}
            reading = _TimeToRead(READ_CHANGES_FOR_S, len(given.relationships))
            for relationship in given.relationships:
                running.beat(f"checking {relationship.machine}")
                provider = self._adapters.provider(relationship)
                check = provider.check_source if given.side == "source" else provider.check_target
                found = check(relationship)
                adopting = _adopting(provider, relationship, given)
                if given.side == "target" and adopting is not None:
                    found = [*found, *adopting.check_adoption(relationship)]
                findings += found
                findings += _has_a_copy(provider, relationship, given.tested)
                findings += _left_behind(provider, relationship, given)
                failed = any(finding.severity is Severity.FAIL for finding in site + found)
                if given.side == "target":
                    findings += _cannot_be_set(provider, relationship) + room.of(provider, relationship)
                if failed:
                    continue
                if given.side == "target":
                    with reading.share() as read_for_s:
                        findings += _point_findings(provider, relationship, given, running.beat, read_for_s)
                    if isinstance(provider, PlacesReplicas):
                        placed[relationship.machine] = provider.place_replica(relationship)
                    continue
                if isinstance(provider, SizesReplicas) and (needed := provider.replica_space(relationship)) is not None:
                    space[relationship.machine] = needed
                if adopting is not None:
                    identities[relationship.machine] = adopting.identity(relationship)
            return Findings(findings=findings, replica_servers=placed, replica_space=space, identities=identities)

        return await self._run(call)

    @activity.defn(name=contracts.ADOPT_REPLICA.name)
    async def adopt_replica(self, given: OfRelationship) -> Done:
        provider = self._adapters.provider(given.relationship)
        if not isinstance(provider, AdoptsReplicas):
            raise InvalidState(
                f"what replicates '{given.relationship.machine}' cannot begin with a machine that exists",
                remedy="choose another 'method' of 'initial_replication' in its policy",
            )
        await self._change(lambda _: provider.adopt_replica(given.relationship))
        return Done()

    @activity.defn(name=contracts.ENABLE.name)
    async def enable_replication(self, given: OfRelationship) -> Done:
        await self._change(lambda _: self._adapters.provider(given.relationship).enable(given.relationship))
        return Done()

    @activity.defn(name=contracts.AWAIT_SEED.name)
    async def await_seed(self, given: OfRelationship) -> Done:
        """Ends when an operator has imported the seed at the target; its heartbeat says how far that is."""
        provider = self._adapters.provider(given.relationship)
        while (missing := await self._run(lambda _: provider.seed_missing(given.relationship))) is not None:
            await self._runner.pause(LOOK_FOR_SEED_EVERY_S, missing)
        return Done()

    @activity.defn(name=contracts.COPY_INITIAL.name)
    async def copy_initial(self, given: OfRelationship) -> PointMade:
        provider = self._adapters.provider(given.relationship)
        sent = _Sent()
        point = await self._change(lambda run: provider.copy_initial(given.relationship, sent.counting(run)))
        return PointMade(point=point, bytes_sent=sent.bytes)

    @activity.defn(name=contracts.FINALIZE.name)
    async def finalize_replication(self, given: OfRelationship) -> Done:
        await self._change(lambda _: self._adapters.provider(given.relationship).finalize(given.relationship))
        return Done()

    @activity.defn(name=contracts.REPLICATE_DELTAS.name)
    async def replicate_deltas(self, given: Replicate) -> ReplicationStopped:
        """Between two cycles no thread is held: ten thousand machines wait as cheaply as ten."""
        with self._turns.of(given.relationship.machine) as asked:
            return await self._replicate(given, asked)

    async def _replicate(self, given: Replicate, asked: asyncio.Event) -> ReplicationStopped:
        pulse = _last_pulse()
        passed = asyncio.get_running_loop().time
        end = passed() + given.run_for_s
        try:
            while True:
                began, started = passed(), self._now()
                cycle = partial(self._cycle, given.relationship, pulse, started)
                outcome = await self._run(cycle, healthy_at_attempt=pulse.healthy_at_attempt)
                if isinstance(outcome, ReplicationStopped):
                    return outcome
                pulse = outcome
                if not asked.is_set() and passed() < end:
                    pause = seconds_until_next(given.relationship, pulse, passed() - began, self._now())
                    await self._runner.pause(pause, pulse, until=asked)
                if asked.is_set() or passed() >= end:
                    return _stopped("asked" if asked.is_set() else "time-is-up", pulse)
        except asyncio.CancelledError:
            why = activity.cancellation_details()
            if why is None or not why.cancel_requested:
                raise
            return _stopped("asked", pulse)  # a cancellation could not tell the machine its newest point

    def _cycle(
        self, relationship: Relationship, before: ReplicationPulse, started: datetime, running: Running
    ) -> ReplicationPulse | ReplicationStopped:
        """One delta; its pulse, or why deltas cannot go on: what is damaged at either side is found by comparing."""
        running.pulse = before
        try:
            if before.waiting is None or try_is_due(before.waiting, started):
                return self._send(relationship, before, started, running)
            return self._keep(relationship, before, before.waiting, started, running)
        except (ResynchronizationRequired, Damaged) as need:
            return ReplicationStopped(
                reason="resync-required", detail=str(need), last_point=before.last_point, cycles=before.cycles
            )

    def _send(
        self, relationship: Relationship, before: ReplicationPulse, started: datetime, running: Running
    ) -> ReplicationPulse:
        """All changes up to now are at the target; or kept at the source, when the target does not take them."""
        app_consistent = app_consistent_is_due(relationship, before, started)
        sent = _Sent()
        try:
            point = self._adapters.provider(relationship).replicate_once(
                relationship, _reporting(running, before, sent), app_consistent=app_consistent
            )
        except Recoverable as error:
            failures = before.waiting.failures + 1 if before.waiting else 1
            waiting = Waiting(
                reason=str(error),
                failures=failures,
                next_try=self._now() + delay_after_failure(failures, self._runner.time_scale),
                cut_at=before.waiting.cut_at if before.waiting else NEVER,
                cache=before.waiting.cache if before.waiting else CacheFill(),
            )
            return self._keep(relationship, before, waiting, started, running, because=error)
        return ReplicationPulse(
            last_point=point,
            last_app_consistent=started if app_consistent else before.last_app_consistent,
            cycles=before.cycles + 1,
            bytes_sent=before.bytes_sent + sent.bytes,
            healthy_at_attempt=activity.info().attempt,
        )

    def _keep(
        self,
        relationship: Relationship,
        before: ReplicationPulse,
        waiting: Waiting,
        started: datetime,
        running: Running,
        because: Recoverable | None = None,
    ) -> ReplicationPulse:
        """Cuts go on by their rhythm. Raises ``because`` where nothing can be kept: then Temporal tries again."""
        kept_app_consistent = before.last_app_consistent
        if cut_is_due(relationship, waiting, started):
            app_consistent = app_consistent_is_due(relationship, before, started)
            fill = self._adapters.provider(relationship).keep_changes(
                relationship, _reporting(running, before, _Sent()), app_consistent=app_consistent
            )
            if fill is None and because is not None:
                raise because
            waiting = waiting.model_copy(update={"cut_at": started, "cache": fill or CacheFill()})
            if app_consistent and not waiting.cache.full:
                kept_app_consistent = started
        return before.model_copy(
            update={
                "waiting": waiting,
                "progress": None,
                "last_app_consistent": kept_app_consistent,
                "healthy_at_attempt": activity.info().attempt,
            }
        )

    @activity.defn(name=contracts.MAKE_WAY.name)
    async def make_way(self, given: OfRelationship) -> Done:
        """Waits for nothing. In a process that does not replicate the machine it changes nothing."""
        self._turns.make_way(given.relationship.machine)
        return Done()

    @activity.defn(name=contracts.RESYNCHRONIZE.name)
    async def resynchronize(self, given: OfRelationship) -> PointMade:
        provider = self._adapters.provider(given.relationship)
        sent = _Sent()
        point = await self._change(lambda run: provider.resynchronize(given.relationship, sent.counting(run)))
        return PointMade(point=point, bytes_sent=sent.bytes)

    @activity.defn(name=contracts.SEND_LAST_CHANGES.name)
    async def send_last_changes(self, given: OfRelationship) -> PointMade:
        provider = self._adapters.provider(given.relationship)
        sent = _Sent()
        self._turns.make_way(given.relationship.machine)
        point = await self._change(
            lambda run: when_free(run, lambda: provider.send_last_changes(given.relationship, sent.counting(run)))
        )
        return PointMade(point=point, bytes_sent=sent.bytes)

    @activity.defn(name=contracts.RECOVERY_POINTS.name)
    async def recovery_points(self, given: OfRelationship) -> PointList:
        provider = self._adapters.provider(given.relationship)
        return PointList(points=await self._run(lambda _: provider.recovery_points(given.relationship)))

    @activity.defn(name=contracts.FIX_MOMENT.name)
    async def fix_moment(self, given: PointQuestion) -> PointChosen:
        """What ``latest-consistent`` means now, as a choice that means the same for every machine later on."""
        provider, relationship = self._adapters.provider(given.relationship), given.relationship
        point = await self._run(lambda _: provider.resolve_point(relationship, given.choice))
        return PointChosen(choice=moment_choice(relationship.group, point.time), point=point)

    @activity.defn(name=contracts.FAIL_OVER.name)
    async def fail_over(self, given: FailOver) -> RecoveredMachine:
        provider = self._adapters.provider(given.relationship)
        fabric = self._adapters.hypervisor(given.relationship.target_site)

        def call(running: Running) -> RecoveredMachine:
            make = partial(provider.fail_over, given.relationship, given.choice, running.report)
            return when_there_is_room(make, fabric, given.leaving, running)

        made = await self._change(call)
        return made.model_copy(update={"committed": provider.capabilities.commits_by_itself})

    @activity.defn(name=contracts.CANCEL_FAILOVER.name)
    async def cancel_failover(self, given: OfRelationship) -> Done:
        await self._change(lambda _: self._adapters.provider(given.relationship).cancel_failover(given.relationship))
        return Done()

    @activity.defn(name=contracts.COMMIT.name)
    async def commit(self, given: CommitPoint) -> Done:
        provider = self._adapters.provider(given.relationship)
        await self._change(lambda _: provider.commit(given.relationship, given.point_id))
        return Done()

    @activity.defn(name=contracts.PREPARE_REVERSE.name)
    async def prepare_reverse(self, given: OfRelationship) -> Done:
        await self._change(lambda _: self._adapters.provider(given.relationship).prepare_reverse(given.relationship))
        return Done()

    @activity.defn(name=contracts.RETIRE_REPLICA.name)
    async def retire_replica(self, given: OfRelationship) -> Done:
        await self._change(lambda _: self._adapters.provider(given.relationship).retire_replica(given.relationship))
        return Done()

    @activity.defn(name=contracts.DISABLE_SOURCE.name)
    async def disable_source(self, given: OfRelationship) -> Ended:
        relationship, site = given.relationship, given.relationship.source_site
        provider = self._adapters.provider_to_end(relationship, site)
        return Ended(left=await self._change(lambda _: provider.disable_source(relationship)))

    @activity.defn(name=contracts.DISABLE_TARGET.name)
    async def disable_target(self, given: OfRelationship) -> Ended:
        relationship, site = given.relationship, given.relationship.target_site
        provider = self._adapters.provider_to_end(relationship, site)
        return Ended(left=await self._change(lambda _: provider.disable_target(relationship)))


def _stopped(reason: Literal["time-is-up", "asked"], pulse: ReplicationPulse) -> ReplicationStopped:
    return ReplicationStopped(
        reason=reason, last_point=pulse.last_point, cycles=pulse.cycles, bytes_sent=pulse.bytes_sent
    )


def _cannot_be_set(provider: ReplicationProvider, relationship: Relationship) -> list[Finding]:
    wanted = relationship.target.wanted
    missing = [name for name in wanted if name not in provider.capabilities.target_settings]
    if not missing:
        return []
    return [
        Finding.failed(
            relationship.machine,
            f"{', '.join(missing)} of recovered machines cannot be set at {relationship.target_site}",
            "remove it from the machine's 'target' in the plan",
        )
    ]


def _adopting(
    provider: ReplicationProvider, relationship: Relationship, given: ReadinessQuestion
) -> AdoptsReplicas | None:
    """Set when the machine is going to be protected with a first copy that exists at the target."""
    wanted = given.protecting and relationship.existing_replica
    return provider if wanted and isinstance(provider, AdoptsReplicas) else None


def _has_a_copy(provider: ReplicationProvider, relationship: Relationship, tested: list[str]) -> list[Finding]:
    if relationship.machine not in tested or provider.capabilities.several_test_copies:
        return []
    return [
        Finding.failed(
            relationship.machine,
            f"has a test copy, and {relationship.target_site} cannot make a second one",
            "clean it up first: leeward plan cleanup PLAN",
        )
    ]


def _left_behind(provider: ReplicationProvider, relationship: Relationship, given: ReadinessQuestion) -> list[Finding]:
    """Machines that this one cannot be failed over without, and that the run would not look after."""
    if not given.moving or not isinstance(provider, MovesTogether):
        return []
    missing = [machine for machine in provider.moves_with(relationship) if machine not in given.moving]
    if not missing:
        return []
    if set(missing) <= set(given.left_out):
        remedy = f"leave {relationship.machine} out of this run, too, or none of them"
    else:
        remedy = "add them to the plan"
    return [
        Finding.failed(
            relationship.machine,
            f"cannot be failed over without {', '.join(missing)}, whose disks move with its own",
            remedy,
        )
    ]


def _point_findings(
    provider: ReplicationProvider,
    relationship: Relationship,
    given: ReadinessQuestion,
    beat: Beat,
    read_for_s: float,
) -> list[Finding]:
    """What is found here is found before the source is shut down. The newest point is told only when it is damaged."""
    subject, is_named = f"recovery point of '{relationship.machine}'", given.point != LATEST
    opens = provider if given.recovering and isinstance(provider, OpensPoints) else None
    if not is_named and opens is None:
        return []
    try:
        point = provider.resolve_point(relationship, given.point)
        unread = opens.open_point(relationship, point, beat, read_for_s) if opens is not None else 0
    except LeewardError as error:
        return [Finding.of_error(subject, error)]
    if unread:
        what = (
            f"{point.id}, {utc(point.time)}; {size(unread)} of its changes were not read in the time that a check has"
        )
        return [Finding.passed(subject, what)]
    return [Finding.passed(subject, f"'{given.point}' is {point.id}, {utc(point.time)}")] if is_named else []


class _TimeToRead:
    """Shared among machines: what one does not need, those after it have."""

    def __init__(self, seconds: float, machines: int) -> None:
        self._seconds, self._machines = seconds, machines

    @contextmanager
    def share(self) -> Iterator[float]:
        began = monotonic()
        yield self._seconds / self._machines
        self._seconds = max(0.0, self._seconds - (monotonic() - began))
        self._machines -= 1


class _Sent:
    """Counts the bytes on the wire over several transfers, each of which reports its own total."""

    def __init__(self) -> None:
        self.bytes = 0

    def note(self, progress: Progress) -> None:
        self.bytes = max(self.bytes, progress.bytes_sent)

    def counting(self, running: Running) -> Report:
        def report(progress: Progress) -> None:
            self.note(progress)
            running.report(progress)

        return report


def _reporting(running: Running, before: ReplicationPulse, sent: _Sent) -> Report:
    def report(progress: Progress) -> None:
        sent.note(progress)
        running.pulse = before.model_copy(update={"progress": progress})
        running.check()

    return report


def _last_pulse() -> ReplicationPulse:
    """Where an earlier try of this activity had come to, when it left a heartbeat."""
    info = activity.info()
    pulse = ReplicationPulse.model_validate(info.heartbeat_details[0]) if info.heartbeat_details else ReplicationPulse()
    if pulse.healthy_at_attempt > info.attempt:  # an operator said 'try now': tries are counted anew
        pulse = pulse.model_copy(update={"healthy_at_attempt": 1})
    return pulse
