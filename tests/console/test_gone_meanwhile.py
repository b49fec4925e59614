"""What Temporal lists may be gone when it is read: lists lag behind, and what is kept long enough is deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from lab_support import make_inventory
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from console.client import Leeward
from console.histories import AuditLine, read_each
from console.schedules import Schedules
from vault.errors import NotFound
from workflows.model import Timings

pytestmark = pytest.mark.unit

AT = datetime(2026, 3, 14, tzinfo=UTC)


def gone() -> RPCError:
    return RPCError("not found", RPCStatusCode.NOT_FOUND, b"")


class Listed(Client):
    """As much of Temporal as lists ask for."""

    def __init__(self, ids: Sequence[str], kept: Sequence[str]) -> None:
        self._ids, self._kept = ids, kept

    async def list_schedules(self, *_: Any, **__: Any) -> Any:
        return self.list_workflows()

    def list_workflows(self, *_: Any, **__: Any) -> Any:
        async def found() -> AsyncIterator[Any]:
            for one in self._ids:
                yield SimpleNamespace(id=one, run_id="r")

        return found()

    def get_schedule_handle(self, id: str) -> Any:
        return SimpleNamespace(describe=lambda: self._describe(id))

    async def _describe(self, schedule: str) -> Any:
        if schedule not in self._kept:
            raise gone()
        info = SimpleNamespace(recent_actions=[], next_action_times=[], num_actions=0)
        return SimpleNamespace(info=info, schedule=SimpleNamespace(state=SimpleNamespace(paused=False, note="")))


async def test_a_schedule_that_was_deleted_a_moment_ago_hides_no_other() -> None:
    temporal = Listed(["exercise/shop", "exercise/books"], ["exercise/books"])
    lines = await Schedules(Leeward(temporal, make_inventory(), Timings(), "ada")).list()
    assert [line.plan for line in lines] == ["books"]


@pytest.mark.parametrize("error", [gone(), NotFound("it is not going on")])
async def test_a_history_that_is_not_kept_any_more_is_told_and_hides_no_other(error: Exception) -> None:
    async def read(execution: WorkflowExecution) -> list[AuditLine]:
        if execution.id == "job/db/1":
            raise error
        return [AuditLine(at=AT, who="ada", what="Commit", on=execution.id)]

    lines, unreadable = await read_each(Listed(["job/db/1", "job/db/2"], []), "", read)
    assert [line.on for line in lines] == ["job/db/2"]
    assert [(one.workflow, one.why) for one in unreadable] == [("job/db/1 r", "Temporal does not keep it any more")]


async def test_a_history_that_cannot_be_read_for_another_reason_ends_the_reading() -> None:
    async def read(_: WorkflowExecution) -> list[AuditLine]:
        raise RPCError("may not", RPCStatusCode.PERMISSION_DENIED, b"")

    with pytest.raises(RPCError):
        await read_each(Listed(["job/db/1"], []), "", read)
