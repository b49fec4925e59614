"""``leeward schedule set|list|pause|resume|run-now|delete``: test failovers that happen by themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cmd_plan import PlanFile
from console.exits import run
from console.options import Data, Json, Vault, connected, settings_of
from console.output import Output

Note = Annotated[str, typer.Option("--note", help="Why; shown in the list.")]


def register(schedule: typer.Typer) -> None:
    schedule.command("set")(set_schedule)
    schedule.command("list")(list_schedules)
    schedule.command()(pause)
    schedule.command()(resume)
    schedule.command("run-now")(run_now)
    schedule.command()(delete)


def set_schedule(
    plan: PlanFile,
    cron: Annotated[str, typer.Option("--cron", help="Five fields, like '0 4 * * 0': Sundays at four.")],
    time_zone: Annotated[str, typer.Option("--time-zone", help="Like Europe/Berlin.")] = "UTC",
    jitter: Annotated[str | None, typer.Option("--jitter", help="Start up to so much later, like 10m.")] = None,
    overlap: Annotated[str, typer.Option("--overlap", help="When the last one still runs: skip or queue.")] = "skip",
    auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Approve the plan's manual steps.")] = False,
    keep_copies: Annotated[bool, typer.Option("--keep-copies", help="Leave the clean-up to a person.")] = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Exercise a plan regularly: test failover, report, clean-up. Takes the plan's text as it is now.

    Example: leeward schedule set payments --cron '0 4 * * 0' --time-zone Europe/Berlin --auto-approve
    """

    async def work() -> None:
        from console.plan_files import load_named_plan
        from console.schedules import Schedules, Timetable
        from vault.errors import BadInput
        from vault.inventory import parse_duration

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        loaded = load_named_plan(plan, settings, leeward.inventory)
        try:
            jitter_s = float(parse_duration(jitter)) if jitter else 0.0
        except ValueError as error:
            raise BadInput(str(error), where="--jitter") from error
        timetable = Timetable(
            cron=cron,
            time_zone=time_zone,
            jitter_s=jitter_s,
            overlap=overlap,
            auto_approve=auto_approve,
            clean_up=not keep_copies,
        )
        await Schedules(leeward).set(loaded, timetable)
        output = Output(json)
        output.say(f"{loaded.name}: exercised at '{cron}' ({time_zone})")
        output.document({"plan": loaded.name, **timetable.model_dump()})

    run(work)


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
        )

    run(work)


def pause(plan: PlanFile, note: Note = "paused", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Stop exercising a plan for now."""
    _change("pause", plan, Output(json), vault, data, note)


def resume(plan: PlanFile, note: Note = "resumed", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Exercise a paused plan again."""
    _change("resume", plan, Output(json), vault, data, note)


def run_now(plan: PlanFile, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Exercise a plan at once; the timetable goes on as before."""
    _change("run_now", plan, Output(json), vault, data)


def delete(plan: PlanFile, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Never exercise a plan by itself again. Reports of past exercises stay."""
    _change("delete", plan, Output(json), vault, data)


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
