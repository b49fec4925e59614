"""Start a run of a plan from the command line, or only say what it would do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from console.asking_why import reason
from console.exits import run, warn
from console.following import follow
from console.options import Data, Vault, connected, settings_of
from console.output import Output, counted, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.domain import RunType
    from workers.settings import Settings


@dataclass(frozen=True)
class WantedRun:
    plan: str
    """Its file, or its name."""
    run_type: RunType
    point: str = "latest"
    source_unreachable: bool = False
    of_run: str | None = None
    """Of a clean-up: only what this test run made."""
    without: tuple[str, ...] = ()
    note: str = ""


def begin(
    wanted: WantedRun,
    output: Output,
    vault: Vault,
    data: Data,
    *,
    detach: bool,
    auto_approve: bool = False,
    yes: bool = False,
) -> None:
    """Ask where that is due, start the run, and follow it unless ``detach``."""

    async def work() -> None:
        from console.choosing import require_a_choice
        from console.confirming import Means, asks, confirm
        from console.leaving_out import require_that_may_be_left_out
        from console.plan_files import load_named_plan_source
        from plans.including import reviewed_text
        from vault.loading import load_inventory

        settings, without = settings_of(vault, data), wanted.without
        inventory = load_inventory(settings.vault)
        found = load_named_plan_source(wanted.plan, settings, inventory)
        plan = found.model
        require_a_choice(wanted.point, plan, inventory)
        require_that_may_be_left_out(plan, without, wanted.run_type)
        note = reason(wanted.note) if without else wanted.note
        require_that_may_be_left_out(plan, without, wanted.run_type, note)
        leeward = await connected(settings)
        if asks(wanted.run_type, yes=yes):
            kept = [machine for machine in plan.machines if machine not in without]
            machines = await asyncio.gather(*map(leeward.find_machine, kept))
            confirm(plan.name, wanted.run_type, machines, Means(wanted.point, wanted.source_unreachable, without))
        run_id = await leeward.start_run(
            plan,
            wanted.run_type,
            point=wanted.point,
            source_unreachable=wanted.source_unreachable,
            of_run=wanted.of_run,
            without=without,
            note=note,
            file=reviewed_text(found.source),
        )
        output.say(f"{plan.name}: {wanted.run_type} run {run_id} started")
        if detach:
            output.document({"plan": plan.name, "run_id": run_id})
            return
        await follow(leeward, plan.name, output, auto_approve=auto_approve)

    run(work)


def show_dry_run(wanted: WantedRun, output: Output, vault: Vault, data: Data) -> None:
    """Reads the plan and the reports of past runs. Needs neither Temporal nor the sites, except to know whether a
    certain recovery point exists; where they do not answer, it says that it does not know."""

    async def work() -> None:
        from console.choosing import WORDS, require_a_choice
        from console.dry_run import dry_run
        from console.leaving_out import require_that_may_be_left_out
        from console.plan_files import load_named_plan
        from vault.loading import load_inventory

        settings = settings_of(vault, data)
        inventory = load_inventory(settings.vault)
        plan = load_named_plan(wanted.plan, settings, inventory)
        require_that_may_be_left_out(plan, wanted.without, wanted.run_type)
        require_a_choice(wanted.point, plan, inventory)
        if wanted.point not in WORDS:
            await _look_for_the_point(wanted, settings, [name for name in plan.machines if name not in wanted.without])
        found = dry_run(plan, wanted.run_type, settings.reports, wanted.without)
        output.document(found)
        output.table(
            ["stage", "step", "kind", "what it would do", "took before"],
            [[step.stage, step.name, step.kind, step.does, seconds(step.expected_s)] for step in found.steps],
        )
        past = counted(found.past_runs, "past run")
        whole = f"about {seconds(found.expected_s)} as in {past}" if found.past_runs else "not known"
        a = "an" if wanted.run_type == "unplanned" else "a"
        output.say(f"{plan.name}: {a} {wanted.run_type} run; nothing was started. Expected duration: {whole}")

    run(work)


async def _look_for_the_point(wanted: WantedRun, settings: Settings, machines: Sequence[str]) -> None:
    """Raises ``NotFound`` when the sites have no such point."""
    from console.choosing import points_of, require_that_it_exists
    from vault.errors import LeewardError

    try:
        leeward = await connected(settings)
        points = await points_of(leeward, machines)
    except LeewardError as error:
        warn(f"it is not known whether there is a recovery point '{wanted.point}': {error}")
        return
    require_that_it_exists(wanted.point, machines, points, leeward.inventory)
