"""The hypervisor port as activities, at the site's own workers."""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.contracts import PowerSeen, ShutDown, StartMachine
from activities.running import BlockingRunner, Running
from adapters.registry import Adapters
from vault.domain import Answering
from vault.errors import NotRecoverable, Unreachable


class DoesNotAnswer(NotRecoverable):
    """A machine was started and had its time to answer: waiting longer is the operator's decision."""


class MachineActivities:
    def __init__(self, adapters: Adapters, runner: BlockingRunner) -> None:
        self._adapters = adapters
        self._run = runner.run

    @activity.defn(name=contracts.SHUT_DOWN.name)
    async def shut_down(self, given: ShutDown) -> PowerSeen:
        fabric = self._adapters.hypervisor(given.site)
        power = await self._run(lambda run: fabric.shut_down(given.machine, given.timeout_s, run.beat))
        return PowerSeen(power=power)

    @activity.defn(name=contracts.START_MACHINE.name)
    async def start_machine(self, given: StartMachine) -> Answering:
        fabric = self._adapters.hypervisor(given.site)

        def call(running: Running) -> Answering:
            fabric.start(given.machine)
            try:
                return fabric.wait_until_answering(given.machine, given.timeout_s, running.beat)
            except Unreachable as silent:
                raise DoesNotAnswer(silent.what, where=silent.where, remedy=silent.remedy) from silent

        return await self._run(call)
