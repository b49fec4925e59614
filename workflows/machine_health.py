"""What a machine's health says: a warning ends with its cause, and what went well beside it does not end it."""

from __future__ import annotations

from temporalio import workflow

from vault.lifecycle import BESIDE_REPLICATION, LIFECYCLE, JobKind, Phase
from workflows.machine_book import MachineBook
from workflows.model import Health, JobResult
from workflows.old_copy import OldCopyWatch

ENDS_WITH_ITS_CAUSE = "warnings-end-with-their-cause"
"""Patch: a clean-up that failed after a failover still warned when it was made good, and a halt outlived a failover."""


class HealthJudge:
    """Judges by how jobs end, and by what people say."""

    def __init__(self, book: MachineBook, old_copy: OldCopyWatch) -> None:
        self._book = book
        self._old_copy = old_copy

    def job_failed(self, kind: JobKind, message: str) -> None:
        """A resynchronization that failed is not begun again by itself; a halted replication stays the headline."""
        if kind is JobKind.RESYNCHRONIZE:
            self._book.halt(f"{_failed(kind)}{message}")
        elif not self._book.state.halted:
            self._book.set_health(Health(level="warning", reason=f"{_failed(kind)}{message}"))

    def job_succeeded(self, kind: JobKind, result: JobResult) -> None:
        """What went well beside replication says nothing about what is wrong with the machine itself."""
        state = self._book.state
        if kind in BESIDE_REPLICATION and (state.halted or state.phase is not Phase.PROTECTED):
            if self._tells_of_a_failed_job(BESIDE_REPLICATION) and workflow.patched(ENDS_WITH_ITS_CAUSE):
                self._book.set_health(self._standing())
            return
        if LIFECYCLE[kind].done is Phase.PROTECTED or self._has_moved_on(kind):
            self._book.update(halted=False)
        trouble = Health(level="warning", reason=result.trouble) if result.trouble else None
        self._book.set_health(trouble or self._old_copy.health())

    def is_over(self, trouble: str) -> None:
        """What a job told of the machine, as it ended, is so no more."""
        if self._book.state.health.reason == trouble and not self._book.state.halted:
            self._book.set_health(self._standing())

    def resumed(self) -> None:
        """Replication that an error halted goes on; a job that failed is taken as seen. All else stays as it is."""
        state = self._book.state
        is_over = state.halted or self._tells_of_a_failed_job(frozenset(JobKind))
        self._book.set_health(self._standing() if is_over else state.health)
        self._book.update(halted=False)

    def _has_moved_on(self, kind: JobKind) -> bool:
        """Failed over: the replication that was halted is no more."""
        moved = LIFECYCLE[kind].done is Phase.COMMIT_PENDING
        return moved and self._book.state.halted and workflow.patched(ENDS_WITH_ITS_CAUSE)

    def _tells_of_a_failed_job(self, kinds: frozenset[JobKind]) -> bool:
        state = self._book.state
        return not state.halted and any(state.health.reason.startswith(_failed(kind)) for kind in kinds)

    def _standing(self) -> Health:
        """How the machine is once what its health told is over."""
        state = self._book.state
        if state.phase is Phase.RESYNC_REQUIRED:
            return Health(level="warning", reason=f"it must be resynchronized: leeward resync {state.name}")
        return self._old_copy.health()


def _failed(kind: JobKind) -> str:
    """How the health of a machine begins whose job failed."""
    return f"{kind} failed: "
