"""``leeward plan check|show|schema``: everything about a plan before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from console.exits import Exit, fail, guarded
from console.options import Data, Json, Vault, settings_of
from console.output import Output, counted

if TYPE_CHECKING:
    from rich.tree import Tree

    from plans.tree import TreeNode

PlanFile = Annotated[str, typer.Argument(help="A plan's file, or its name.", metavar="PLAN")]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", help="Leave this machine out of it. May be repeated.", metavar="MACHINE"),
]
RUN_TYPES = ("test", "cleanup", "planned", "unplanned", "failback", "commit", "reverse")


def register(plan: typer.Typer) -> None:
    plan.command()(check)
    plan.command()(show)
    plan.command()(schema)


def check(
    plan: PlanFile,
    ready: Annotated[
        bool, typer.Option("--ready", help="Also ask machines and sites whether a run could begin.")
    ] = False,
    run_type: Annotated[
        str, typer.Option("--run", help=f"With --ready, for such a run: {', '.join(RUN_TYPES)}.")
    ] = "planned",
    without: Without = None,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Check a plan file against the inventory. Every mistake is named with its place and what to do.

    \b
    Examples:
      leeward plan check payments.plan.yaml
      leeward plan check payments --ready --run unplanned
      leeward plan check payments --ready --run unplanned --without web
    """
    if ready:
        _check_readiness(plan, run_type, without or [], Output(json), vault, data)
        return
    if without:
        fail("--without is for --ready: a plan's file is checked as a whole", Exit.BAD_INPUT)

    def work() -> None:
        from console.plan_files import load_named_plan_source
        from plans.including import digest
        from vault.loading import load_inventory

        settings = settings_of(vault, data)
        found = load_named_plan_source(plan, settings, load_inventory(settings.vault))
        loaded, sha256 = found.model, digest(found.source)
        output = Output(json)
        machines, groups = counted(len(loaded.machines), "machine"), counted(len(loaded.groups), "group")
        output.say(f"{loaded.name}: {machines} in {groups}: all is well")
        output.say(f"sha256 of its text: {sha256}")
        included = [part.name for part in found.source.included]
        output.document(
            {"ok": True, "plan": loaded.name, "machines": loaded.machines, "sha256": sha256, "included": included}
        )

    guarded(work)


def _check_readiness(plan: str, run_type: str, without: list[str], output: Output, vault: Vault, data: Data) -> None:
    """A table of what was looked at; exit 3 when something speaks against the run."""
    from typing import cast

    from console.exits import run
    from vault.domain import RunType

    if run_type not in RUN_TYPES:
        fail(f"--run: unknown run type '{run_type}' — use one of {', '.join(RUN_TYPES)}", Exit.BAD_INPUT)

    async def work() -> bool:
        from console.findings import HEADINGS, rows_of
        from console.options import connected
        from console.plan_files import load_named_plan
        from vault.domain import Severity

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        loaded = load_named_plan(plan, settings, leeward.inventory)
        findings = await leeward.readiness(loaded, cast(RunType, run_type), without)
        output.document(findings)
        output.table(HEADINGS, rows_of(findings))
        return all(one.severity is not Severity.FAIL for one in findings)

    if not run(work):
        raise typer.Exit(int(Exit.REFUSED))


def show(
    plan: PlanFile,
    run_type: Annotated[
        str | None, typer.Option("--run", help=f"What such a run would do, in order: {', '.join(RUN_TYPES)}.")
    ] = None,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Show a plan as a tree. With --run, the ordered stages of such a run.

    Example: leeward plan show payments --run planned
    """

    def work() -> None:
        from typing import cast

        from console.plan_files import load_named_plan_source
        from plans.including import origins
        from plans.tree import plan_tree, run_tree
        from vault.domain import RunType
        from vault.loading import load_inventory

        if run_type is not None and run_type not in RUN_TYPES:
            fail(f"--run: unknown run type '{run_type}' — use one of {', '.join(RUN_TYPES)}", Exit.BAD_INPUT)
        settings = settings_of(vault, data)
        found = load_named_plan_source(plan, settings, load_inventory(settings.vault))
        if run_type:
            node = run_tree(found.model, cast(RunType, run_type))
        else:
            node = plan_tree(found.model, origins(found.source))
        output = Output(json)
        output.document(node)
        if not json:
            output.tree(_drawn(node))

    guarded(work)


def schema() -> None:
    """Print the JSON Schema of plan files. For editors that complete and check them."""

    def work() -> None:
        from json import dumps

        from plans.schema import plan_schema

        print(dumps(plan_schema(), indent=2))

    guarded(work)


def _drawn(node: TreeNode) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    label = Text(node.label, style="bold" if node.kind in {"plan", "group", "stage"} else "")
    if node.detail:
        label.append(f"  {node.detail}", style="dim")
    tree = Tree(label)
    for child in node.children:
        tree.add(_drawn(child))
    return tree
