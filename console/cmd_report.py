"""``leeward report list|show|open|export|readiness|verify``: what plan runs measured, and proof of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.exits import guarded, warn
from console.options import Data, Json, Vault, settings_of
from console.output import Output, seconds, size

if TYPE_CHECKING:
    from reports.model import Report
    from reports.store import ReportStore
    from vault.errors import LeewardError

Plan = Annotated[str, typer.Argument(help="A plan's name.", metavar="PLAN")]
RunId = Annotated[str | None, typer.Argument(help="Which run; without it: the newest.", metavar="RUN_ID")]


def register(report: typer.Typer) -> None:
    for command in (list_, show, open_, export, readiness, verify):
        report.command(command.__name__.rstrip("_"))(command)


def list_(
    plan: Annotated[str | None, typer.Argument(help="Only this plan's runs.", metavar="PLAN")] = None,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """List the reports, by plan, the oldest first."""

    def work() -> None:
        from vault.domain import utc

        reports, broken = _all(_store(vault, data), plan)
        rows = [
            [
                report.run.plan,
                report.run.run_id,
                report.run.run_type,
                utc(report.run.started),
                seconds(report.measured.recovery_time_s),
                report.measured.verdict,
            ]
            for report in reports
        ]
        output = Output(json)
        if rows:
            output.table(["plan", "run", "type", "started", "recovery time", "verdict"], rows)
        elif not broken:
            output.say("no reports yet: every plan run leaves one when it ends")
        output.document(
            [
                {
                    "plan": report.run.plan,
                    "run_id": report.run.run_id,
                    "run_type": report.run.run_type,
                    "started": report.run.started.isoformat(),
                    "verdict": report.measured.verdict,
                    "recovery_time_s": report.measured.recovery_time_s,
                }
                for report in reports
            ]
        )
        _complain(broken)

    guarded(work)


def show(plan: Plan, run_id: RunId = None, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Show a report in the terminal."""

    def work() -> None:
        report = _store(vault, data).load(plan, run_id)
        output = Output(json)
        output.document(report)
        if not json:
            _show(report, output)

    guarded(work)


def open_(plan: Plan, run_id: RunId = None, vault: Vault = None, data: Data = None) -> None:
    """Open a report in the browser; without one, say where it is."""

    def work() -> None:
        import webbrowser

        store = _store(vault, data)
        run = store.load(plan, run_id).run
        page = store.paths(run.plan, run.run_id).html
        if not webbrowser.open(page.resolve().as_uri()):
            print(page)

    guarded(work)


def export(
    plan: Plan,
    run_id: RunId = None,
    to: Annotated[Path, typer.Option("--to", help="The folder to write to.")] = Path(),
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Copy a report's two files and the public key. The key is what they can be verified with.

    Example: leeward report export payments --to evidence
    """

    def work() -> None:
        store = _store(vault, data)
        run = store.load(plan, run_id).run
        written = [str(path) for path in store.export(run.plan, run.run_id, to)]
        output = Output(json)
        for path in written:
            output.say(f"wrote {path}")
        output.document({"files": written})

    guarded(work)


def readiness(
    html: Annotated[Path | None, typer.Option("--html", help="Also write a page with trend charts.")] = None,
    oldest_test: Annotated[str, typer.Option("--oldest-test", help="Older tests are a warning.")] = "90d",
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Show when each plan's test last succeeded. With its age, the recovery time and where it is going.

    Exit code 1 when a plan was never tested with success, or its last test failed or missed its objective.
    """

    def work() -> bool:
        from datetime import UTC, datetime, timedelta

        from reports.page import readiness_page
        from reports.trend import readiness as readiness_of
        from vault.domain import Severity, utc

        now = datetime.now(UTC)
        reports, broken = _all(_store(vault, data), None)
        plans = readiness_of(reports, now, timedelta(seconds=_duration(oldest_test)))
        output = Output(json)
        output.table(
            ["plan", "", "last good test", "age", "recovery time", "objective", "trend", "why"],
            [
                [
                    plan.plan,
                    plan.standing.value,
                    utc(plan.last_good_test) if plan.last_good_test else "never",
                    seconds(plan.age_s),
                    seconds(plan.recovery_time_s),
                    seconds(plan.rto_s),
                    plan.trend_words,
                    plan.why,
                ]
                for plan in plans
            ],
        )
        output.document(plans)
        if html is not None:
            html.write_text(readiness_page(plans, utc(now)))
            output.say(f"wrote {html}")
        _complain(broken)
        return all(plan.standing is not Severity.FAIL for plan in plans)

    if not guarded(work):
        raise typer.Exit(1)


def verify(
    what: Annotated[str, typer.Argument(help="A report, JSON or HTML; or a plan's name.", metavar="FILE|PLAN")],
    run_id: RunId = None,
    key: Annotated[
        list[Path] | None, typer.Option("--key", help="A public key to trust: the writing host's signing.pub.")
    ] = None,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Say who wrote a report and when, and whether it is unchanged. Exit code 1 when it is not, or nobody knows.

    \b
    Examples:
      leeward report verify payments
      leeward report verify payments.html --key signing.pub
    """

    def work() -> None:
        from reports.store import verify_report
        from vault.domain import utc

        output, documents = Output(json), []
        for file in _files_to_verify(_store(vault, data), what, run_id):
            found = verify_report(file, settings_of(vault, data).reports, key or [])
            signature = found.signature
            output.say(f"{file}: unchanged since {utc(signature.signed_at)}, signed by {signature.signed_by}")
            output.say(f"key {signature.fingerprint}, trusted because of {found.trusted_by}")
            facts = {"file": str(file), "fingerprint": signature.fingerprint, "unchanged": True}
            documents.append({**signature.model_dump(mode="json"), **facts})
        output.document(documents[0] if len(documents) == 1 else documents)

    guarded(work)


def _files_to_verify(store: ReportStore, what: str, run_id: str | None) -> list[Path]:
    """The one that was named, or both of a plan's run.

    Raises ``Damaged`` when the newest run's report cannot be told, because one of the plan cannot be read: that may be
    the one to verify."""
    from vault.errors import BadInput

    file = Path(what)
    if file.is_file() or file.suffix in {".json", ".html"} or file.name != what:
        if run_id is not None:
            raise BadInput(f"'{what}' is a file, so no run can be chosen", remedy="name the plan, or the file alone")
        return [file]
    if run_id is None:
        for error in _all(store, what)[1]:
            raise error
        run_id = store.load(what).run.run_id
    return list(store.files_of(what, run_id))


def _store(vault: Vault, data: Data) -> ReportStore:
    from reports.store import ReportStore

    return ReportStore(settings_of(vault, data).reports)


def _all(store: ReportStore, plan: str | None) -> tuple[list[Report], list[LeewardError]]:
    from vault.errors import LeewardError

    reports: list[Report] = []
    broken: list[LeewardError] = []
    for found in store.reports(plan):
        if isinstance(found, LeewardError):
            broken.append(found)
        else:
            reports.append(found)
    return reports, broken


def _complain(broken: list[LeewardError]) -> None:
    for error in broken:
        warn(str(error))


def _duration(text: str) -> float:
    from vault.errors import BadInput
    from vault.inventory import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise BadInput(str(error), where="--oldest-test") from error


def _show(report: Report, output: Output) -> None:
    from reports.page import VERDICTS
    from vault.domain import utc

    run, measured = report.run, report.measured
    output.say(f"{run.plan}: {run.run_type} run {run.run_id}, {utc(run.started)}, asked by {run.requested_by}")
    output.say(f"{VERDICTS[measured.verdict]}: {'; '.join(measured.sentences)}")
    objective = f" (objective {seconds(measured.rto_s)})" if measured.rto_s is not None else ""
    output.say(f"recovery time {seconds(measured.recovery_time_s)}{objective}, whole run {seconds(run.duration_s)}")
    if measured.machines or measured.left_out:
        output.table(
            ["machine", "recovered as", "recovery time", "point's age", "lost", "damaged", "sent", "result"],
            [
                [
                    machine.machine,
                    f"{machine.site}/{machine.recovered_as}",
                    seconds(machine.recovery_time_s),
                    seconds(machine.recovery_point_age_s),
                    "-" if machine.transactions_lost is None else machine.transactions_lost,
                    "-" if machine.transactions_damaged is None else machine.transactions_damaged,
                    size(machine.bytes_sent),
                    machine.trouble or machine.state,
                ]
                for machine in measured.machines
            ]
            + [[one.machine, "left out", *["-"] * 5, str(one)] for one in measured.left_out],
        )
    for decision in run.decisions:
        note = f": {decision.note}" if decision.note else ""
        output.say(f"{utc(decision.at)}  {decision.by}: {decision.said}{note}")
