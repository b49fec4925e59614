"""``leeward``: puts the commands together. Import-light, so that ``leeward --help`` answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from console import (
    cmd_audit,
    cmd_demo,
    cmd_engine,
    cmd_hyperv,
    cmd_hyperv_discover,
    cmd_lab,
    cmd_machines,
    cmd_master_target,
    cmd_pki,
    cmd_plan,
    cmd_plan_files,
    cmd_plan_runs,
    cmd_plan_steering,
    cmd_report,
    cmd_schedule,
    cmd_seed,
    cmd_vault,
)

HELP = """
Disaster recovery for virtual and physical machines: protect them, and recover them with reviewed plans that run as
durable Temporal workflows.

Start here:  leeward init --lab,  leeward up,  leeward lab up,  leeward protect --all,  leeward status.
Exit codes: 0 done, 1 failed, 2 bad input, 3 refused in the present state, 4 not reachable, 130 interrupted.
"""


def leeward(
    version: Annotated[bool, typer.Option("--version", help="Show leeward's version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"leeward {installed('leeward')}")
        raise typer.Exit


app = typer.Typer(
    name="leeward",
    callback=leeward,
    invoke_without_command=True,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
vault = typer.Typer(help="The inventory: sites, policies, mappings, machines.", no_args_is_help=True)
lab = typer.Typer(help="The lab: sites on this computer whose machines really run.", no_args_is_help=True)
faults = typer.Typer(help="Break the lab's sites and links, and mend them again.", no_args_is_help=True)
schedule = typer.Typer(help="Exercises: test failovers that happen by themselves.", no_args_is_help=True)
seed = typer.Typer(
    help="The first copy on media that people carry. It then need not go over the network.", no_args_is_help=True
)
plan = typer.Typer(help="Recovery plans: check, run, steer.", no_args_is_help=True)
report = typer.Typer(
    help="Reports of plan runs. What was measured, and proof that it is unchanged.", no_args_is_help=True
)
hyperv = typer.Typer(help="Hyper-V hosts.", no_args_is_help=True)
pki = typer.Typer(help="Certificates of sites, and keys for replicas.", no_args_is_help=True)

app.add_typer(vault, name="vault")
app.add_typer(lab, name="lab")
lab.add_typer(faults, name="faults")
app.add_typer(seed, name="seed")
app.add_typer(plan, name="plan")
app.add_typer(schedule, name="schedule")
app.add_typer(report, name="report")
app.add_typer(pki, name="pki")
app.add_typer(hyperv, name="hyperv")

cmd_engine.register(app)
cmd_vault.register(app, vault)
cmd_hyperv.register(hyperv)
cmd_hyperv_discover.register(hyperv)
cmd_lab.register(lab, faults)
cmd_machines.register(app)
cmd_master_target.register(app)
cmd_pki.register(pki)
cmd_seed.register(seed)
cmd_plan.register(plan)
cmd_plan_files.register(plan)
cmd_plan_runs.register(plan)
cmd_plan_steering.register(plan)
cmd_report.register(report)
cmd_schedule.register(schedule)
cmd_audit.register(app)
cmd_demo.register(app)


def main() -> None:
    """Run the command; the exit codes are those of docs/operate.md."""
    import sys

    code: object = 0
    try:
        app()
    except SystemExit as end:
        code = end.code
    if "temporalio.bridge" not in sys.modules:
        raise SystemExit(code)
    from workers.leaving import leave

    leave(code if isinstance(code, int) else 1 if code else 0)
