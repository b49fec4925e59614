"""Test copies, and what tests do to replication, as activities at the target site."""

from __future__ import annotations

from datetime import datetime

from temporalio import activity

from activities import contracts
from activities.contracts import Done, EndTest, ReplicationAnswer, ReplicationQuestion, StartTest
from activities.running import BlockingRunner, Running
from adapters.ports import MakesTestNetworks
from adapters.registry import Adapters
from vault.domain import RecoveredMachine, RecoveryPoint, Relationship, ReplicationSince
from vault.errors import LeewardError


class TestingActivities:
    """Every call may be repeated after a crash: the adapters promise it."""

    __test__ = False

    def __init__(self, adapters: Adapters, runner: BlockingRunner) -> None:
        self._adapters = adapters
        self._run = runner.run
        self._change = runner.change

    @activity.defn(name=contracts.START_TEST.name)
    async def start_test(self, given: StartTest) -> RecoveredMachine:
        def call(running: Running) -> RecoveredMachine:
            relationship = self._on_network_of_its_own(given)
            provider = self._adapters.provider(relationship)
            return provider.start_test(relationship, given.choice, given.name, running.report)

        return await self._change(call)

    def _on_network_of_its_own(self, given: StartTest) -> Relationship:
        relationship = given.relationship
        fabric = self._adapters.hypervisor(relationship.target_site)
        if not given.run_id or not isinstance(fabric, MakesTestNetworks):
            return relationship
        network = fabric.make_test_network(relationship.test_network, given.run_id, given.name)
        return relationship.model_copy(update={"test_network": network})

    @activity.defn(name=contracts.END_TEST.name)
    async def end_test(self, given: EndTest) -> Done:
        def call(_: Running) -> Done:
            relationship = given.relationship
            self._adapters.provider(relationship).end_test(relationship, given.name)
            fabric = self._adapters.hypervisor(relationship.target_site)
            if given.run_id and isinstance(fabric, MakesTestNetworks):
                fabric.leave_test_networks(given.run_id, given.name)
            return Done()

        return await self._change(call)

    @activity.defn(name=contracts.MEASURE_REPLICATION.name)
    async def measure_replication(self, given: ReplicationQuestion) -> ReplicationAnswer:
        def call(running: Running) -> ReplicationAnswer:
            found = []
            for relationship in given.relationships:
                running.beat(f"measuring the replication of {relationship.machine}")
                found.append(self._measured(relationship, given.since, given.until))
            return ReplicationAnswer(machines=found)

        return await self._run(call)

    def _measured(self, relationship: Relationship, since: datetime, until: datetime) -> ReplicationSince:
        measured = ReplicationSince(machine=relationship.machine, late_after_s=relationship.late_after_s)
        try:
            points = self._adapters.provider(relationship).recovery_points(relationship)
        except LeewardError as error:
            return measured.model_copy(update={"trouble": str(error)})
        age = worst_age_s(points, since, until)
        return measured.model_copy(
            update={"worst_age_s": age, "trouble": "" if age is not None else "it has no recovery point"}
        )


def worst_age_s(points: list[RecoveryPoint], since: datetime, until: datetime) -> float | None:
    """The oldest that the newest of ``points`` (oldest first) was between two moments; None without points.

    What was pruned meanwhile is not missed: retention drops the oldest, so those that are left follow each other.
    """
    if not points:
        return None
    before = [point.time for point in points if point.time <= since][-1:]
    times = before + [point.time for point in points if since < point.time < until]
    if not times:
        return max(0.0, (until - points[-1].time).total_seconds())
    ends = [*times[1:], until]
    return max(max(0.0, (end - time).total_seconds()) for time, end in zip(times, ends, strict=True))
