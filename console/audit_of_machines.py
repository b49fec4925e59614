"""What people told machines that is no job, read from the machines' histories: to resume, and changed settings."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from temporalio.api.common.v1 import Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.update.v1 import Request
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from console.asking import translated
from console.histories import AuditLine, Found, ran_since, read_each
from vault.domain import Value
from workflows.model import ChangedSettings, MachineSettings, MachineState, Resume

Given = TypeVar("Given", bound=Value)


async def words_to_machines(client: Client, since: datetime | None) -> Found:
    """Of all machines whose workflows ran then or later, those too that are not protected any more."""
    return await read_each(client, f"WorkflowType = 'Machine'{ran_since(since)}", partial(_of_machine, client))


async def _of_machine(client: Client, execution: WorkflowExecution) -> list[AuditLine]:
    history, handle = _History(client), client.get_workflow_handle(execution.id, run_id=execution.run_id)
    try:
        async for event in handle.fetch_history_events():
            await history.read(event)
    except RPCError as error:
        raise translated(error, execution.id) from error
    return history.lines


class _History:
    """One machine's, read event by event. Settings are compared with those before, the first with the input's."""

    def __init__(self, client: Client) -> None:
        self.lines: list[AuditLine] = []
        self._client = client
        self._machine = ""
        self._settings: dict[str, Any] = {}

    async def read(self, event: HistoryEvent) -> None:
        if event.HasField("workflow_execution_started_event_attributes"):
            state = await self._given(event.workflow_execution_started_event_attributes.input, MachineState)
            assert state is not None
            self._machine, self._settings = state.name, _settings(state)
        if event.HasField("workflow_execution_update_accepted_event_attributes"):
            request = event.workflow_execution_update_accepted_event_attributes.accepted_request
            at = event.event_time.ToDatetime(UTC)
            if request.input.name == "resume_replication":
                await self._resumed(at, request)
            elif request.input.name == "configure":
                await self._configured(at, request)

    async def _resumed(self, at: datetime, request: Request) -> None:
        resume = await self._given(request.input.args, Resume)
        self._note(at, resume.by if resume is not None else "", request, "resume")

    async def _configured(self, at: datetime, request: Request) -> None:
        """'protect' brings the inventory's settings each time; only what they changed is news."""
        given = await self._given(request.input.args, ChangedSettings)
        assert given is not None
        before, self._settings = self._settings, _settings(given)
        changed = [key for key, value in self._settings.items() if before.get(key) != value]
        if changed:
            self._note(at, given.by, request, "settings", f"changed: {', '.join(changed)}")

    def _note(self, at: datetime, who: str, request: Request, what: str, note: str = "") -> None:
        """Command lines of before did not say who asks: then it is the process that Temporal knows."""
        line = AuditLine(at=at, who=who or request.meta.identity, what=what, on=self._machine, note=note)
        self.lines.append(line)

    async def _given(self, arguments: Payloads, model: type[Given]) -> Given | None:
        if not arguments.payloads:
            return None
        [given] = await self._client.data_converter.decode(list(arguments.payloads), [model])
        assert isinstance(given, model)
        return given


def _settings(given: MachineSettings | MachineState) -> dict[str, Any]:
    return {key: getattr(given, key) for key in MachineSettings.model_fields}
