"""``leeward plan status|watch`` look at runs; ``approve|retry|skip|pause|resume|cancel`` steer them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from console.asking_why import reason
from console.cmd_plan import PlanFile
from console.exits import run
from console.following import follow
from console.options import Data, Json, Vault, connected, settings_of
from console.output import Output

if TYPE_CHECKING:
    from workflows.model import RunStatus, StepRow

Step = Annotated[str | None, typer.Option("--step", help="Which step, by name or id; without it: the one that waits.")]
Note = Annotated[str, typer.Option("--note", help="Why; required, and kept with the run.")]


def register(plan: typer.Typer) -> None:
    for command in (status, watch, approve, retry, skip, pause, resume, cancel):
        plan.command()(command)


def status(plan: PlanFile, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Show the plan's running or last run."""

    async def work() -> None:
        from console.holding import with_what_holds
        from console.plan_files import hinting_at_its_name, plan_name
        from console.watching import run_tree

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        with hinting_at_its_name(plan, settings):
            found = await with_what_holds(leeward, await leeward.run_status(plan_name(plan)))
        output = Output(json)
        output.document(found)
        if not json:
            output.tree(run_tree(found))

    run(work)


def watch(plan: PlanFile, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Follow a run until it ends. Ctrl-C stops the watching, never the run."""

    async def work() -> None:
        from console.plan_files import hinting_at_its_name, plan_name

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        with hinting_at_its_name(plan, settings):
            await follow(leeward, plan_name(plan), Output(json))

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
        from console.plan_files import hinting_at_its_name, plan_name

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        change = leeward.pause_run if what == "pause" else leeward.resume_run
        with hinting_at_its_name(plan, settings):
            decision = await change(plan_name(plan), reason(note))
        output.say(f"{plan_name(plan)}: {what} recorded")
        output.document(decision)

    run(work)


def cancel(plan: PlanFile, note: Note = "", vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """End the run. Machines not started at the target yet are put back; those that are stay, commit pending."""

    async def work() -> None:
        from console.plan_files import hinting_at_its_name, plan_name

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        with hinting_at_its_name(plan, settings):
            decision = await leeward.cancel_run(plan_name(plan), reason(note))
        output = Output(json)
        output.say(f"{plan}: the run is being cancelled; follow it with: leeward plan watch {plan_name(plan)}")
        output.document(decision)

    run(work)


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
        from console.plan_files import hinting_at_its_name, plan_name
        from workflows.model import Steer

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        name = plan_name(plan)
        with hinting_at_its_name(plan, settings):
            row = _chosen(await leeward.run_status(name), action, step)
        decision = await leeward.steer(name, Steer(action=action, step=row, by=leeward.operator, note=reason(note)))
        output.say(f"{name}: {action} of '{row}' recorded")
        output.document(decision)

    run(work)


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
