"""The hypervisor port as activities, at the site's own workers."""

from __future__ import annotations

import asyncio

from temporalio import activity

from activities import contracts
from activities.contracts import OldCopyWatched, PowerSeen, ShutDown, StartMachine, WatchOldCopy
from activities.running import BlockingRunner, Running
from adapters.ports import Hypervisor
from adapters.registry import Adapters
from vault.domain import Answering, PowerState, Progress
from vault.errors import Busy, InvalidState, NotFound, NotRecoverable, Unreachable


class DoesNotAnswer(NotRecoverable):
    """A machine was started and had its time to answer: waiting longer is the operator's decision."""


class MachineActivities:
    def __init__(self, adapters: Adapters, runner: BlockingRunner) -> None:
        self._adapters = adapters
        self._runner = runner
        self._change = runner.change

    @activity.defn(name=contracts.SHUT_DOWN.name)
    async def shut_down(self, given: ShutDown) -> PowerSeen:
        fabric = self._adapters.hypervisor(given.site)
        power = await self._change(lambda run: fabric.shut_down(given.machine, given.timeout_s, run.beat))
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

        return await self._change(call)

    @activity.defn(name=contracts.WATCH_OLD_COPY.name)
    async def watch_old_copy(self, given: WatchOldCopy) -> OldCopyWatched:
        """Looks again and again, near the fabric, so that a returning host is met within seconds and a dead one costs
        Temporal heartbeats only. A copy that ran is powered off, not shut down: every second counts in which it answers
        in the recovered machine's place, and what it wrote meanwhile is given up anyhow.

        Raises ``InvalidState`` when it runs on although it was powered off.
        """
        fabric = self._adapters.hypervisor(given.site)
        clock = asyncio.get_running_loop().time
        end = clock() + given.run_for_s
        while True:
            was_running, sentence = await self._change(lambda running: _kept_off(fabric, given.machine, running))
            if was_running or clock() >= end:
                return OldCopyWatched(stopped=sentence if was_running else None)
            await self._runner.pause(given.every_s, Progress(doing=sentence))


def _kept_off(fabric: Hypervisor, machine: str, running: Running) -> tuple[bool, str]:
    """Whether the old copy ran and was powered off, and the sentence for it."""
    where = f"the old copy of {machine} at {fabric.site}"
    try:
        found = fabric.describe(machine)
        if found.power is PowerState.OFF:
            return False, f"{where} is off"
        running.check()  # after a failback it runs there rightly
        fabric.power_off(machine)
        if fabric.describe(machine).power is not PowerState.OFF:
            raise InvalidState(
                f"{where} runs although it was powered off", remedy=f"disconnect it from its networks at {fabric.site}"
            )
    except NotFound:
        return False, f"{where} is not there"
    except Unreachable as silent:
        return False, f"{where} cannot be looked at: {silent.what}"
    except Busy as moving:
        return False, f"{where} is looked at again: {moving.what}"
    return True, f"{where} ran again, on network '{found.network}', and was powered off"
