"""The report of a run as an activity on the control queue: evidence must not depend on somebody's open terminal."""

from __future__ import annotations

from pathlib import Path

from temporalio import activity

from activities import contracts
from activities.contracts import Done, ReportDelivery, ReportPart, ReportWritten, WriteReport
from activities.notifications import DELIVERY_HEADER, OCCASION_HEADER, post
from activities.running import BlockingRunner, Running
from reports.measure import report_of
from reports.store import ReportStore
from vault.errors import NotFound


class ReportActivities:
    """All are idempotent: done again, they leave the same files."""

    def __init__(self, folder: Path, runner: BlockingRunner) -> None:
        """``folder``: where reports are kept."""
        self._store = ReportStore(folder)
        self._run = runner.run

    @activity.defn(name=contracts.KEEP_REPORT_PART.name)
    async def keep_report_part(self, given: ReportPart) -> Done:
        def call(_: Running) -> Done:
            self._store.keep_part(given.plan, given.run_id, given.number, given.stages)
            return Done()

        return await self._run(call)

    @activity.defn(name=contracts.WRITE_REPORT.name)
    async def write_report(self, given: WriteReport) -> ReportWritten:
        return await self._run(lambda _: self._write(given))

    @activity.defn(name=contracts.DELIVER_REPORT.name)
    async def deliver_report(self, given: ReportDelivery) -> Done:
        """Raises as :func:`activities.notifications.deliver`; ``NotFound`` when the report is not here."""

        def call(_: Running) -> Done:
            if given.delivery.folder is not None:
                self._store.export(given.plan, given.run_id, Path(given.delivery.folder))
            if given.delivery.webhook is not None:
                report = self._store.paths(given.plan, given.run_id).json.read_bytes()
                headers = {OCCASION_HEADER: "report", DELIVERY_HEADER: f"{given.run_id}/report"}
                post(given.delivery.webhook, report, headers)
            return Done()

        return await self._run(call)

    def _write(self, given: WriteReport) -> ReportWritten:
        run = given.run
        if given.parts:
            try:
                stages = self._store.kept_stages(run.plan, run.run_id, given.parts)
            except NotFound:
                # An earlier try wrote the report and cleared its parts, but could not say so any more.
                saved = self._store.paths(run.plan, run.run_id)
                if saved.json.is_file() and saved.html.is_file():
                    return ReportWritten(json_file=str(saved.json), html_file=str(saved.html))
                raise
            run = run.model_copy(update={"stages": stages})
        saved = self._store.save(report_of(run, given.plan))
        self._store.drop_parts(run.plan, run.run_id)
        return ReportWritten(json_file=str(saved.json), html_file=str(saved.html))
