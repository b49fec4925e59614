"""Which machines replicate in this process, and how the one that sends a machine's last changes gets its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from activities.running import Running
from vault.errors import Busy

Result = TypeVar("Result")

FREE_WITHIN_S = 120.0
"""A replica that another process writes to is free after its cycle, which was told to be the last one."""
LOOK_AGAIN_S = 0.5


class Turns:
    """Used in the event loop of the worker."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Event] = {}

    @contextmanager
    def of(self, machine: str) -> Iterator[asyncio.Event]:
        """The machine replicates inside. The event is set when somebody waits for the end of that."""
        asked = self._asked[machine] = asyncio.Event()
        try:
            yield asked
        finally:
            if self._asked.get(machine) is asked:
                del self._asked[machine]

    def make_way(self, machine: str) -> None:
        """Replication of this machine, when it runs in this process, ends after its cycle. Temporal's own word to stop
        comes with the next heartbeat only, which may be half a minute later."""
        if machine in self._asked:
            self._asked[machine].set()


def when_free(running: Running, call: Callable[[], Result]) -> Result:
    """``call``, again while another writer that is about to end holds the replica. Raises ``Busy`` if it never ends."""
    waited = 0.0
    while True:
        try:
            return call()
        except Busy:
            if waited >= FREE_WITHIN_S:
                raise
            running.beat("waiting for the running replication cycle to end")
            running.wait(LOOK_AGAIN_S)
            waited += LOOK_AGAIN_S
