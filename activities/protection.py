"""The replication port as activities. [source] and [target] calls differ only in the queue they are sent to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from temporalio import activity

from activities import contracts
from activities.contracts import (
    CommitPoint,
    Done,
    EndTest,
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
    StartTest,
)
from activities.running import BlockingRunner, Running
from adapters.ports import ReplicationProvider
from adapters.registry import Adapters
from replication.groups import moment_choice
from replication.ports import Report
from vault.domain import LATEST, Finding, Progress, RecoveredMachine, Relationship, Severity, utc
from vault.errors import LeewardError, ResynchronizationRequired

LOOK_FOR_SEED_EVERY_S = 5.0


class ProtectionActivities:
    """Every call may be repeated after a crash: the adapters promise it."""

    def __init__(self, adapters: Adapters, runner: BlockingRunner) -> None:
        self._adapters = adapters
        self._runner = runner
        self._run = runner.run

    @activity.defn(name=contracts.CHECK_READINESS.name)
    async def check_readiness(self, given: ReadinessQuestion) -> Findings:
        def call(running: Running) -> list[Finding]:
            findings = self._adapters.hypervisor(given.site).check()
            for relationship in given.relationships:
                running.beat(f"checking {relationship.machine}")
                provider = self._adapters.provider(relationship)
                check = provider.check_source if given.side == "source" else provider.check_target
                findings += check(relationship)
                if given.side == "target" and given.point != LATEST:
                    findings.append(_point_finding(provider, relationship, given.point))
            return findings

        return Findings(findings=await self._run(call))

    @activity.defn(name=contracts.ENABLE.name)
    async def enable_replication(self, given: OfRelationship) -> Done:
        await self._run(lambda _: self._adapters.provider(given.relationship).enable(given.relationship))
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
        point = await self._run(lambda run: provider.copy_initial(given.relationship, sent.counting(run)))
        return PointMade(point=point, bytes_sent=sent.bytes)

    @activity.defn(name=contracts.FINALIZE.name)
    async def finalize_replication(self, given: OfRelationship) -> Done:
        await self._run(lambda _: self._adapters.provider(given.relationship).finalize(given.relationship))
        return Done()

    @activity.defn(name=contracts.REPLICATE_DELTAS.name)
    async def replicate_deltas(self, given: Replicate) -> ReplicationStopped:
        """Between two cycles no thread is held: ten thousand machines wait as cheaply as ten."""
        pulse = _last_pulse()
        end = datetime.now(UTC) + timedelta(seconds=given.run_for_s)
        while True:
            started = datetime.now(UTC)
            cycle = partial(self._cycle, given.relationship, pulse, started)
            outcome = await self._run(cycle, healthy_at_attempt=pulse.healthy_at_attempt)
            if isinstance(outcome, ReplicationStopped):
                return outcome
            pulse = outcome
            if datetime.now(UTC) >= end:
                return ReplicationStopped(
                    reason="time-is-up", last_point=pulse.last_point, cycles=pulse.cycles, bytes_sent=pulse.bytes_sent
                )
            elapsed = (datetime.now(UTC) - started).total_seconds()
            await self._runner.pause(given.relationship.pace_s - elapsed, pulse)

    def _cycle(
        self, relationship: Relationship, before: ReplicationPulse, started: datetime, running: Running
    ) -> ReplicationPulse | ReplicationStopped:
        """One delta; its pulse, or why deltas cannot go on."""
        app_consistent = _app_consistent_is_due(relationship, before, started)
        sent = _Sent()

        def report(progress: Progress) -> None:
            sent.note(progress)
            running.pulse = before.model_copy(update={"progress": progress})
            running.check()

        running.pulse = before
        try:
            point = self._adapters.provider(relationship).replicate_once(
                relationship, report, app_consistent=app_consistent
            )
        except ResynchronizationRequired as need:
            return ReplicationStopped(
                reason="resync-required", detail=str(need), last_point=before.last_point, cycles=before.cycles
            )
        return ReplicationPulse(
            last_point=point,
            last_app_consistent=started if app_consistent else before.last_app_consistent,
            cycles=before.cycles + 1,
            bytes_sent=before.bytes_sent + sent.bytes,
            healthy_at_attempt=activity.info().attempt,
        )

    @activity.defn(name=contracts.RESYNCHRONIZE.name)
    async def resynchronize(self, given: OfRelationship) -> PointMade:
        provider = self._adapters.provider(given.relationship)
        sent = _Sent()
        point = await self._run(lambda run: provider.resynchronize(given.relationship, sent.counting(run)))
        return PointMade(point=point, bytes_sent=sent.bytes)

    @activity.defn(name=contracts.SEND_LAST_CHANGES.name)
    async def send_last_changes(self, given: OfRelationship) -> PointMade:
        provider = self._adapters.provider(given.relationship)
        sent = _Sent()
        point = await self._run(lambda run: provider.send_last_changes(given.relationship, sent.counting(run)))
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
        return await self._run(lambda run: provider.fail_over(given.relationship, given.choice, run.report))

    @activity.defn(name=contracts.CANCEL_FAILOVER.name)
    async def cancel_failover(self, given: OfRelationship) -> Done:
        await self._run(lambda _: self._adapters.provider(given.relationship).cancel_failover(given.relationship))
        return Done()

    @activity.defn(name=contracts.START_TEST.name)
    async def start_test(self, given: StartTest) -> RecoveredMachine:
        provider = self._adapters.provider(given.relationship)
        return await self._run(
            lambda run: provider.start_test(given.relationship, given.choice, given.name, run.report)
        )

    @activity.defn(name=contracts.END_TEST.name)
    async def end_test(self, given: EndTest) -> Done:
        provider = self._adapters.provider(given.relationship)
        await self._run(lambda _: provider.end_test(given.relationship, given.name))
        return Done()

    @activity.defn(name=contracts.COMMIT.name)
    async def commit(self, given: CommitPoint) -> Done:
        provider = self._adapters.provider(given.relationship)
        await self._run(lambda _: provider.commit(given.relationship, given.point_id))
        return Done()

    @activity.defn(name=contracts.PREPARE_REVERSE.name)
    async def prepare_reverse(self, given: OfRelationship) -> Done:
        await self._run(lambda _: self._adapters.provider(given.relationship).prepare_reverse(given.relationship))
        return Done()

    @activity.defn(name=contracts.RETIRE_REPLICA.name)
    async def retire_replica(self, given: OfRelationship) -> Done:
        await self._run(lambda _: self._adapters.provider(given.relationship).retire_replica(given.relationship))
        return Done()

    @activity.defn(name=contracts.DISABLE_SOURCE.name)
    async def disable_source(self, given: OfRelationship) -> Done:
        await self._run(lambda _: self._adapters.provider(given.relationship).disable_source(given.relationship))
        return Done()

    @activity.defn(name=contracts.DISABLE_TARGET.name)
    async def disable_target(self, given: OfRelationship) -> Done:
        await self._run(lambda _: self._adapters.provider(given.relationship).disable_target(given.relationship))
        return Done()


def _point_finding(provider: ReplicationProvider, relationship: Relationship, choice: str) -> Finding:
    subject = f"recovery point of '{relationship.machine}'"
    try:
        point = provider.resolve_point(relationship, choice)
    except LeewardError as error:
        return Finding(severity=Severity.FAIL, subject=subject, what=error.what, remedy=error.remedy)
    return Finding(severity=Severity.PASS, subject=subject, what=f"'{choice}' is {point.id}, {utc(point.time)}")


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


def _last_pulse() -> ReplicationPulse:
    """Where an earlier try of this activity had come to, when it left a heartbeat."""
    details = activity.info().heartbeat_details
    return ReplicationPulse.model_validate(details[0]) if details else ReplicationPulse()


def _app_consistent_is_due(relationship: Relationship, pulse: ReplicationPulse, now: datetime) -> bool:
    every = relationship.app_consistent_every_s
    if every is None:
        return False
    last = pulse.last_app_consistent
    return last is None or (now - last).total_seconds() >= every
