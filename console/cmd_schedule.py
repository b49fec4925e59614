"""``leeward schedule set|list|pause|resume|run-now|delete``: test failovers that happen by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cmd_plan import PlanFile
from console.exits import Exit, fail, run
from console.options import Data, Json, Vault, connected, settings_of
from console.output import Output

if TYPE_CHECKING:
    from plans.timetables import Calendar
    from vault.notifications import Delivery

Note = Annotated[
    str, typer.Option("--note", help="Why; leeward audit keeps it, the list shows that of pause and resume.")
]


def register(schedule: typer.Typer) -> None:
    schedule.command("set")(set_schedule)
    schedule.command("list")(list_schedules)
    schedule.command()(pause)
    schedule.command()(resume)
    schedule.command("run-now")(run_now)
    schedule.command()(delete)


def set_schedule(
    plan: PlanFile,
    cron: Annotated[str, typer.Option("--cron", help="Five fields, like '0 4 * * 0': Sundays at four.")] = "",
    at: Annotated[str, typer.Option("--at", help="Instead of --cron: a time of day, or several: 04:00,16:00.")] = "",
    weekdays: Annotated[str, typer.Option("--weekdays", help="With --at: only on these, like sun or mon-fri.")] = "",
    days: Annotated[str, typer.Option("--days", help="With --at: only on these days of a month, like 1-7.")] = "",
    months: Annotated[str, typer.Option("--months", help="With --at: only in these, like jan,apr,jul,oct.")] = "",
    time_zone: Annotated[str, typer.Option("--time-zone", help="Like Europe/Berlin.")] = "UTC",
    jitter: Annotated[str | None, typer.Option("--jitter", help="Start up to so much later, like 10m.")] = None,
    overlap: Annotated[str, typer.Option("--overlap", help="When the last one still runs: skip or queue.")] = "skip",
    auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Approve the plan's manual steps.")] = False,
    keep_copies: Annotated[bool, typer.Option("--keep-copies", help="Leave the clean-up to a person.")] = False,
    report_folder: Annotated[
        Path | None,
        typer.Option("--report-folder", help="Copy reports to this folder of the control worker's host."),
    ] = None,
    report_webhook: Annotated[
        str | None, typer.Option("--report-webhook", help="POST the reports to this URL.")
    ] = None,
    webhook_secret: Annotated[
        str | None, typer.Option("--webhook-secret", help="Signs those POSTs: a reference like env:NAME.")
    ] = None,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Exercise a plan regularly: test failover, report, clean-up. Takes the plan's text as it is now.

    \b
    Examples:
      leeward schedule set payments --cron '0 4 * * 0' --time-zone Europe/Berlin --auto-approve
      leeward schedule set payments --at 04:00 --weekdays sun --days 1-7    # the first Sunday of a month
    """
    calendar = _calendar(cron, at, weekdays, days, months)

    async def work() -> None:
        from console.plan_files import load_named_plan_source
        from console.schedules import Schedules
        from plans.including import reviewed_text
        from plans.timetables import Timetable
        from vault.errors import BadInput
        from vault.inventory import parse_duration

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        found = load_named_plan_source(plan, settings, leeward.inventory)
        loaded = found.model
        try:
            jitter_s = float(parse_duration(jitter)) if jitter else 0.0
        except ValueError as error:
            raise BadInput(str(error), where="--jitter") from error
        timetable = Timetable(
            cron=cron,
            calendar=calendar,
            time_zone=time_zone,
            jitter_s=jitter_s,
            overlap=overlap,
            auto_approve=auto_approve,
            clean_up=not keep_copies,
            deliver=_deliveries(report_folder, report_webhook, webhook_secret),
        )
        await Schedules(leeward).set(loaded, timetable, reviewed_text(found.source))
        output = Output(json)
        output.say(f"{loaded.name}: exercised {timetable.when}")
        output.document({"plan": loaded.name, **timetable.model_dump()})

    run(work)


def _calendar(cron: str, at: str, weekdays: str, days: str, months: str) -> Calendar | None:
    """Ends the command when not exactly one of the two ways is used."""
    from plans.timetables import Calendar

    if bool(cron) == bool(at):
        fail("say when: either --cron '0 4 * * 0', or --at 04:00", Exit.BAD_INPUT)
    if cron and (weekdays or days or months):
        fail("--weekdays, --days and --months are for --at; with --cron they are its fields", Exit.BAD_INPUT)
    return Calendar(at=at, weekdays=weekdays, days=days, months=months) if at else None


def _deliveries(folder: Path | None, webhook: str | None, secret: str | None) -> list[Delivery]:
    """Raises ``BadInput`` for what cannot be delivered to."""
    from pydantic import ValidationError

    from vault.errors import BadInput
    from vault.notifications import Delivery, Receiver

    if secret is not None and webhook is None:
        raise BadInput("there is no webhook to sign for", where="--webhook-secret", remedy="give --report-webhook too")
    try:
        to_folder = [Delivery(folder=str(folder))] if folder is not None else []
    except ValidationError as error:
        remedy = "give it from the root on: workers run in folders of their own"
        raise BadInput(f"'{folder}' is not absolute", where="--report-folder", remedy=remedy) from error
    try:
        to_webhook = [Delivery(webhook=Receiver(url=webhook, secret=secret))] if webhook is not None else []
    except ValidationError as error:
        remedy = "give an http(s) URL, and the secret as env:NAME or file:PATH"
        raise BadInput(error.errors()[0]["msg"], where="--report-webhook", remedy=remedy) from error
    return to_folder + to_webhook


def list_schedules(vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """All schedules: when next, when last, paused or not."""

    async def work() -> None:
        from console.schedules import Schedules
        from vault.domain import utc

        lines = await Schedules(await connected(settings_of(vault, data))).list()
        output = Output(json)
        output.document(lines)
        output.table(
            ["plan", "state", "next", "last", "exercises", "note"],
            [
                [
                    line.plan,
                    "paused" if line.paused else "ok",
                    utc(line.next) if line.next else "-",
                    utc(line.last) if line.last else "-",
                    line.runs,
                    line.note,
                ]
                for line in lines
            ],
            empty="no schedules; make one: leeward schedule set PLAN --cron '0 4 * * 0'",
        )

    run(work)


def pause(plan: PlanFile, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Stop exercising a plan for now."""
    _change("pause", plan, Output(json), vault, data, note)


def resume(plan: PlanFile, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Exercise a paused plan again."""
    _change("resume", plan, Output(json), vault, data, note)


def run_now(plan: PlanFile, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Exercise a plan at once; the timetable goes on as before."""
    _change("run_now", plan, Output(json), vault, data, note)


def delete(plan: PlanFile, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Never exercise a plan by itself again. Reports of past exercises stay."""
    _change("delete", plan, Output(json), vault, data, note)


DONE = {"pause": "paused", "resume": "goes on", "run_now": "exercise started", "delete": "schedule deleted"}


def _change(what: str, plan: str, output: Output, vault: Vault, data: Data, *given: str) -> None:
    async def work() -> None:
        from console.plan_files import plan_name
        from console.schedules import Schedules

        schedules = Schedules(await connected(settings_of(vault, data)))
        name = plan_name(plan)
        await getattr(schedules, what)(name, *given)
        output.say(f"{name}: {DONE[what]}")
        output.document({"plan": name, "done": DONE[what]})

    run(work)
