"""``leeward plan test|cleanup|failover|commit|reverse|failback`` start runs; the others watch and steer them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from console.cmd_plan import PlanFile
from console.exits import Exit, fail, guarded, run
from console.options import Data, Detach, Json, Vault, connected, settings_of
from console.output import Output, seconds

if TYPE_CHECKING:
    from console.client import Leeward
    from vault.domain import RunType
    from workflows.model import RunStatus, StepRow

Point = Annotated[
    str,
    typer.Option(
        "--recovery-point",
        help="latest, latest-processed, latest-app-consistent, latest-consistent:GROUP (the newest moment that all "
        "machines of a consistency group have), a time like 2026-01-31T03:04:05Z, or a point's id.",
    ),
]
Step = Annotated[str | None, typer.Option("--step", help="Which step, by name or id; without it: the one that waits.")]
Note = Annotated[str, typer.Option("--note", help="Why; required, and kept with the run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do, in order, and how long it took.")]
AutoApprove = Annotated[bool, typer.Option("--auto-approve", help="Approve manual steps by itself, for exercises.")]


def register(plan: typer.Typer) -> None:
    for command in (test, cleanup, failover, commit, reverse, failback, status, watch):
        plan.command()(command)
    for steering in (approve, retry, skip, pause, resume, cancel):
        plan.command()(steering)


def test(
    plan: PlanFile,
    recovery_point: Point = "latest",
    auto_approve: AutoApprove = False,
    dry_run: DryRun = False,
    detach: Detach = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Test failover: start copies of the machines on isolated networks. Production and replication go on.

    Example: leeward plan test payments, and afterwards: leeward plan cleanup payments
    """
    _start(plan, "test", Output(json), vault, data, detach, auto_approve, dry_run, point=recovery_point)


def cleanup(
    plan: PlanFile,
    test_run: Annotated[str | None, typer.Option("--run", help="Only what this test run of the plan made.")] = None,
    note: Annotated[str, typer.Option("--note", help="What the test has shown; kept in the report.")] = "",
    detach: Detach = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Remove the copies that test failovers started. Those of other plans stay.

    Example: leeward plan cleanup payments --run 20260314T020000-ab12 --note "orders came through"
    """
    _start(plan, "cleanup", Output(json), vault, data, detach, of_run=test_run, note=note)


def failover(
    plan: PlanFile,
    planned: Annotated[bool, typer.Option("--planned", help="Shut the source down first; no data lost.")] = False,
    unplanned: Annotated[bool, typer.Option("--unplanned", help="The source may be gone.")] = False,
    recovery_point: Point = "latest",
    source_unreachable: Annotated[
        bool, typer.Option("--source-unreachable", help="You know that the source cannot run; go on without proof.")
    ] = False,
    auto_approve: AutoApprove = False,
    dry_run: DryRun = False,
    detach: Detach = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Fail the plan's machines over to their recovery site. Ends with the commit pending.

    Examples: leeward plan failover payments --planned
    leeward plan failover payments --unplanned --source-unreachable
    """
    if planned == unplanned:
        fail("say either --planned (no data lost) or --unplanned (the source may be gone)", Exit.BAD_INPUT)
    if planned and (recovery_point != "latest" or source_unreachable):
        fail("--recovery-point and --source-unreachable are for --unplanned", Exit.BAD_INPUT)
    run_type: Literal["planned", "unplanned"] = "planned" if planned else "unplanned"
    _start(
        plan,
        run_type,
        Output(json),
        vault,
        data,
        detach,
        auto_approve,
        dry_run,
        point=recovery_point,
        source_unreachable=source_unreachable,
    )


def commit(plan: PlanFile, detach: Detach = False, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Make a failover final. The recovery point in use stays, the others are dropped."""
    _start(plan, "commit", Output(json), vault, data, detach)


def reverse(plan: PlanFile, detach: Detach = False, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Reverse replication after a failover. The machines are protected in the other direction."""
    _start(plan, "reverse", Output(json), vault, data, detach)


def failback(
    plan: PlanFile,
    auto_approve: AutoApprove = False,
    dry_run: DryRun = False,
    detach: Detach = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Bring the machines back. It is a planned failover in the other direction."""
    _start(plan, "failback", Output(json), vault, data, detach, auto_approve, dry_run)


def status(plan: PlanFile, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Show the plan's running or last run."""

    async def work() -> None:
        from console.holding import with_what_holds
        from console.plan_files import plan_name
        from console.watching import run_tree

        leeward = await connected(settings_of(vault, data))
        found = await with_what_holds(leeward, await leeward.run_status(plan_name(plan)))
        output = Output(json)
        output.document(found)
        if not json:
            output.tree(run_tree(found))

    run(work)


def watch(plan: PlanFile, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Follow a run until it ends. Ctrl-C stops the watching, never the run."""

    async def work() -> None:
        from console.plan_files import plan_name

        leeward = await connected(settings_of(vault, data))
        await _follow(leeward, plan_name(plan), Output(json))

    run(work)


def approve(
    plan: PlanFile, step: Step = None, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False
) -> None:
    """Approve the manual step that waits.

    Example: leeward plan approve payments --note "DNS switched, ticket 4711"
    """
    _steer(plan, "approve", step, note, Output(json), vault, data)


def retry(
    plan: PlanFile, step: Step = None, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False
) -> None:
    """Try the failed step again."""
    _steer(plan, "retry", step, note, Output(json), vault, data)


def skip(
    plan: PlanFile, step: Step = None, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False
) -> None:
    """Go on without the step that failed or waits."""
    _steer(plan, "skip", step, note, Output(json), vault, data)


def pause(plan: PlanFile, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Begin no further step; what runs is finished. Go on with 'plan resume'."""
    _pause_or_resume("pause", plan, note, Output(json), vault, data)


def resume(plan: PlanFile, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Go on with a paused run."""
    _pause_or_resume("resume", plan, note, Output(json), vault, data)


def _pause_or_resume(what: str, plan: str, note: str, output: Output, vault: Vault, data: Data) -> None:
    async def work() -> None:
        from console.plan_files import plan_name

        leeward = await connected(settings_of(vault, data))
        change = leeward.pause_run if what == "pause" else leeward.resume_run
        decision = await change(plan_name(plan), _reason(note))
        output.say(f"{plan_name(plan)}: {what} recorded")
        output.document(decision)

    run(work)


def cancel(plan: PlanFile, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """End the run. Machines not started at the target yet are put back; those that are stay, commit pending."""

    async def work() -> None:
        from console.plan_files import plan_name

        leeward = await connected(settings_of(vault, data))
        decision = await leeward.cancel_run(plan_name(plan), _reason(note))
        output = Output(json)
        output.say(f"{plan}: the run is being cancelled; follow it with: leeward plan watch {plan_name(plan)}")
        output.document(decision)

    run(work)


def _start(
    plan: str,
    run_type: RunType,
    output: Output,
    vault: Vault,
    data: Data,
    detach: bool,
    auto_approve: bool = False,
    dry_run: bool = False,
    **options: object,
) -> None:
    if dry_run:
        _show_dry_run(plan, run_type, output, vault, data)
        return

    async def work() -> None:
        from console.plan_files import load_named_plan_source
        from plans.including import reviewed_text

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        found = load_named_plan_source(plan, settings, leeward.inventory)
        loaded, text = found.model, reviewed_text(found.source)
        run_id = await leeward.start_run(loaded, run_type, file=text, **options)  # type: ignore[arg-type]
        output.say(f"{loaded.name}: {run_type} run {run_id} started")
        if detach:
            output.document({"plan": loaded.name, "run_id": run_id})
            return
        await _follow(leeward, loaded.name, output, auto_approve=auto_approve)

    run(work)


def _show_dry_run(plan: str, run_type: RunType, output: Output, vault: Vault, data: Data) -> None:
    """Needs neither Temporal nor the sites: it reads the plan and the reports of past runs."""

    def work() -> None:
        from console.dry_run import dry_run
        from console.plan_files import load_named_plan
        from vault.loading import load_inventory

        settings = settings_of(vault, data)
        loaded = load_named_plan(plan, settings, load_inventory(settings.vault))
        found = dry_run(loaded, run_type, settings.reports)
        output.document(found)
        output.table(
            ["stage", "step", "kind", "what it would do", "took before"],
            [[step.stage, step.name, step.kind, step.does, seconds(step.expected_s)] for step in found.steps],
        )
        whole = (
            f"about {seconds(found.expected_s)} as in {found.past_runs} past runs" if found.past_runs else "not known"
        )
        output.say(f"{loaded.name}: a {run_type} run; nothing was started. Expected duration: {whole}")

    guarded(work)


async def _follow(leeward: Leeward, plan: str, output: Output, *, auto_approve: bool = False) -> None:
    """Show a run to its end; the exit code says how it ended."""
    from console.holding import all_with_what_holds
    from console.watching import show_until_finished

    statuses = all_with_what_holds(leeward, leeward.watch(plan, auto_approve=auto_approve))
    final = await show_until_finished(statuses, output)
    output.document(final)
    _show_recoveries(final, output)
    output.say(f"{final.plan}: {final.run_type} run {final.state}{': ' + final.message if final.message else ''}")
    if final.report:
        output.say(f"report: {final.report}")
    if final.state == "refused":
        raise typer.Exit(int(Exit.REFUSED))
    if final.state != "completed":
        raise typer.Exit(int(Exit.FAILED))


def _show_recoveries(final: RunStatus, output: Output) -> None:
    rows = [
        [
            row.name,
            row.result.recovered.site,
            seconds((row.result.answered_at - row.result.outage_began).total_seconds())
            if row.result.answered_at and row.result.outage_began
            else "-",
            row.result.answering.address if row.result.answering else "does not answer",
        ]
        for stage in final.stages
        for row in stage.steps
        if row.result is not None and row.result.recovered is not None
    ]
    if rows:
        output.table(["machine", "recovered at", "recovery time", "address"], rows)


def _steer(
    plan: str,
    action: Literal["approve", "retry", "skip"],
    step: str | None,
    note: str,
    output: Output,
    vault: Vault,
    data: Data,
) -> None:
    async def work() -> None:
        from console.plan_files import plan_name
        from workflows.model import Steer

        leeward = await connected(settings_of(vault, data))
        name = plan_name(plan)
        row = _chosen(await leeward.run_status(name), action, step)
        decision = await leeward.steer(name, Steer(action=action, step=row, by=leeward.operator, note=_reason(note)))
        output.say(f"{name}: {action} of '{row}' recorded")
        output.document(decision)

    run(work)


def _reason(note: str) -> str:
    """The note; a person at a terminal is asked for a missing one."""
    import sys

    if note or not sys.stdin.isatty():
        return note
    return str(typer.prompt("Why (kept with the run)"))


def _chosen(status: RunStatus, action: str, step: str | None) -> str:
    """The id of the step that is meant. Raises ``InvalidState`` listing the steps that wait."""
    from vault.errors import InvalidState

    wanted = {"waiting"} if action == "approve" else {"failed"} if action == "retry" else {"waiting", "failed"}
    rows: list[StepRow] = [row for stage in status.stages for row in stage.steps]
    if step is not None:
        named = [row.id for row in rows if step in {row.id, row.name}]
        return named[0] if len(named) == 1 else step
    candidates = [row.id for row in rows if row.state in wanted]
    if status.finished is not None or len(candidates) != 1:
        listed = ", ".join(f"'{candidate}'" for candidate in candidates) if status.finished is None else ""
        raise InvalidState(
            f"there are several steps to {action}: {listed}" if listed else f"there is no step to {action} now",
            where=f"plan {status.plan}",
            remedy="name it with --step" if listed else f"see: leeward plan status {status.plan}",
        )
    return candidates[0]
