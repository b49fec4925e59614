"""Ends the writing sessions of a machine that was failed over.

A source that compares its disks may say nothing for hours, and hold the replica's lock all the while: then nobody could
commit the failover. Whoever writes at such a moment is refused by the store itself, with a reason.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from replication.local import LocalReplicaStore
from vault.errors import LeewardError

LOOK_EVERY_S = 1.0

log = logging.getLogger(__name__)


class _Session(NamedTuple):
    store: LocalReplicaStore
    end: Callable[[], object]


class Eviction:
    """Looks after all writing sessions of a master target, between :meth:`start` and :meth:`stop`."""

    def __init__(self, every_s: float = LOOK_EVERY_S) -> None:
        self._every_s = every_s
        self._sessions: set[_Session] = set()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="eviction", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Idempotent."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    @contextmanager
    def of(self, store: LocalReplicaStore, end: Callable[[], object]) -> Iterator[None]:
        """``end`` is called when the machine is failed over before the end of the block. A session that began later
        commits the failover, or is refused what it wants."""
        session = _Session(store, end)
        if not store.is_failed_over():
            with self._guard:
                self._sessions.add(session)
        try:
            yield
        finally:
            with self._guard:
                self._sessions.discard(session)

    def _look(self) -> None:
        while not self._stop.wait(self._every_s):
            with self._guard:
                sessions = list(self._sessions)
            for session in sessions:
                try:
                    if not session.store.is_failed_over():
                        continue
                except LeewardError as error:
                    log.warning("cannot see whether %s was failed over: %s", session.store.machine, error)
                    continue
                log.warning("a source's session is ended: %s was failed over", session.store.machine)
                session.end()
