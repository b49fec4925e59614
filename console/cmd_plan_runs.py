"""``leeward plan test|cleanup|failover|commit|reverse|failback``: the runs of a plan."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from console.cmd_plan import PlanFile, Without
from console.exits import Exit, fail
from console.options import Data, Detach, Json, Vault
from console.output import Output
from console.starting import WantedRun, begin, show_dry_run

Point = Annotated[
    str,
    typer.Option(
        "--recovery-point",
        help="latest, latest-processed, latest-app-consistent, latest-consistent:GROUP (the newest moment that all "
        "machines of a consistency group have), a time like 2026-01-31T03:04:05Z, or a point's id.",
    ),
]
StartNote = Annotated[str, typer.Option("--note", help="Why, kept with the run; required with --without.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do, in order, and how long it took.")]
AutoApprove = Annotated[bool, typer.Option("--auto-approve", help="Approve manual steps by itself, for exercises.")]
Yes = Annotated[bool, typer.Option("--yes", help="Begin without asking; scripts without a terminal are never asked.")]


def register(plan: typer.Typer) -> None:
    for command in (test, cleanup, failover, commit, reverse, failback):
        plan.command()(command)


def test(
    plan: PlanFile,
    recovery_point: Point = "latest",
    without: Without = None,
    note: StartNote = "",
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
    wanted = WantedRun(plan, "test", recovery_point, without=_once(without), note=note)
    if dry_run:
        show_dry_run(wanted, Output(json), vault, data)
    else:
        begin(wanted, Output(json), vault, data, detach=detach, auto_approve=auto_approve)


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
    begin(WantedRun(plan, "cleanup", of_run=test_run, note=note), Output(json), vault, data, detach=detach)


def failover(
    plan: PlanFile,
    planned: Annotated[bool, typer.Option("--planned", help="Shut the source down first; no data lost.")] = False,
    unplanned: Annotated[bool, typer.Option("--unplanned", help="The source may be gone.")] = False,
    recovery_point: Point = "latest",
    source_unreachable: Annotated[
        bool, typer.Option("--source-unreachable", help="You know that the source cannot run; go on without proof.")
    ] = False,
    without: Without = None,
    note: StartNote = "",
    yes: Yes = False,
    auto_approve: AutoApprove = False,
    dry_run: DryRun = False,
    detach: Detach = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Fail the plan's machines over to their recovery site. Ends with the commit pending.

    \b
    Examples:
      leeward plan failover payments --planned
      leeward plan failover payments --unplanned --source-unreachable
      leeward plan failover payments --unplanned --without web --note "its replica is damaged, ticket 4711"
    """
    if planned == unplanned:
        fail("say either --planned (no data lost) or --unplanned (the source may be gone)", Exit.BAD_INPUT)
    if planned and (recovery_point != "latest" or source_unreachable):
        fail("--recovery-point and --source-unreachable are for --unplanned", Exit.BAD_INPUT)
    run_type: Literal["planned", "unplanned"] = "planned" if planned else "unplanned"
    wanted = WantedRun(plan, run_type, recovery_point, source_unreachable, without=_once(without), note=note)
    if dry_run:
        show_dry_run(wanted, Output(json), vault, data)
    else:
        begin(wanted, Output(json), vault, data, detach=detach, auto_approve=auto_approve, yes=yes)


def commit(
    plan: PlanFile,
    yes: Yes = False,
    detach: Detach = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Make a failover final. The recovery point in use stays, the others are dropped."""
    begin(WantedRun(plan, "commit"), Output(json), vault, data, detach=detach, yes=yes)


def reverse(plan: PlanFile, detach: Detach = False, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Reverse replication after a failover. The machines are protected in the other direction."""
    begin(WantedRun(plan, "reverse"), Output(json), vault, data, detach=detach)


def failback(
    plan: PlanFile,
    without: Without = None,
    note: StartNote = "",
    yes: Yes = False,
    auto_approve: AutoApprove = False,
    dry_run: DryRun = False,
    detach: Detach = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Bring the machines back. It is a planned failover in the other direction."""
    wanted = WantedRun(plan, "failback", without=_once(without), note=note)
    if dry_run:
        show_dry_run(wanted, Output(json), vault, data)
    else:
        begin(wanted, Output(json), vault, data, detach=detach, auto_approve=auto_approve, yes=yes)


def _once(machines: list[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(machines or []))
