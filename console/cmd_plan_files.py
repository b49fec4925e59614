"""``leeward plan import|graph|diff``: making and comparing plans, without anything running."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cmd_plan import RUN_TYPES, PlanFile
from console.exits import guarded
from console.options import Data, Json, Vault, settings_of
from console.output import Output, counted

if TYPE_CHECKING:
    from plans.import_asr import Imported
    from plans.model import Plan
    from vault.inventory import Inventory

SVG = ".svg"


def register(plan: typer.Typer) -> None:
    plan.command("import")(import_)
    plan.command()(graph)
    plan.command()(diff)


def import_(
    file: Annotated[Path, typer.Argument(help="An exported Azure Site Recovery plan, JSON.", metavar="FILE")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write the plan.", show_default="NAME.plan.yaml")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The plan's name, instead of the source's.")] = None,
    resource: Annotated[str | None, typer.Option("--resource", help="Which plan, when the file has several.")] = None,
    mapped: Annotated[
        list[str] | None, typer.Option("--map", help="ITEM=MACHINE: a protected item is this machine.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file that --out names.")] = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Turn a plan of Azure Site Recovery into one of leeward. Lists what is left for a person.

    Example: leeward plan import exported.json --map c0c14913-3d7a-48ea-9531-cc99e0e686e6=payment-db
    """

    def work() -> None:
        from plans.asr_document import read_asr_plan
        from plans.import_asr import import_asr_plan
        from vault.errors import InvalidState, NotFound

        output = Output(json)
        inventory = _inventory(vault, data)
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise NotFound(f"the file cannot be read: {error.strerror}", where=str(file)) from error
        renamed = dict(_pair(text) for text in mapped or [])
        known = inventory.machines.keys() if inventory else None
        found = import_asr_plan(read_asr_plan(raw, str(file), resource), known, name=name, renamed=renamed)
        target = out or Path(f"{found.name}.plan.yaml")
        if target.exists() and not force:
            raise InvalidState(
                "exists already; nothing was written",
                where=str(target),
                remedy="name another file with --out, or --force",
            )
        target.write_text(found.text, encoding="utf-8")
        trouble = _trouble(target, inventory)
        _show(found, target, trouble, output)
        output.document({"plan": found.name, "file": str(target), "loads": not trouble, "notes": found.notes})

    guarded(work)


def graph(
    plan: PlanFile,
    run_type: Annotated[
        str | None, typer.Option("--run", help=f"What such a run would do: {', '.join(RUN_TYPES)}.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The SVG file.", show_default="standard output")] = None,
    vault: Vault = None,
    data: Data = None,
) -> None:
    """Draw a plan as an SVG picture. It shows groups, machines and steps in their order.

    Example: leeward plan graph payments --run planned --out payments.svg
    """

    def work() -> None:
        from typing import cast

        from plans.graph import plan_graph
        from vault.domain import RunType
        from vault.errors import BadInput

        if run_type is not None and run_type not in RUN_TYPES:
            raise BadInput(f"unknown run type '{run_type}'", where="--run", remedy=f"use one of {', '.join(RUN_TYPES)}")
        if out is not None and out.suffix.lower() != SVG:
            what = (
                f"a picture is written as SVG, not as '{out.suffix}'" if out.suffix else "a picture is written as SVG"
            )
            raise BadInput(what, where=f"--out {out}", remedy=f"name it {out.with_suffix(SVG)}")
        picture = plan_graph(_plan(plan, vault, data), cast("RunType | None", run_type))
        if out is None:
            print(picture, end="")
            return
        out.write_text(picture, encoding="utf-8")
        Output().say(f"wrote {out}")

    guarded(work)


def diff(
    old: Annotated[str, typer.Argument(help="A plan's file, or its name.", metavar="A")],
    new: Annotated[str, typer.Argument(help="The plan to compare with it.", metavar="B")],
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Say what a run of plan B would do otherwise than one of plan A. Exit code 0: nothing; 1: something.

    Example: leeward plan diff payments.plan.yaml reviewed/payments.plan.yaml
    """

    def work() -> bool:
        from plans.diff import diff_plans

        changes = diff_plans(_plan(old, vault, data), _plan(new, vault, data))
        output = Output(json)
        for change in changes:
            output.say(str(change))
        if not changes:
            output.say("a run would do the same")
        output.document({"same": not changes, "changes": changes})
        return not changes

    if not guarded(work):
        raise typer.Exit(1)


def _inventory(vault: Vault, data: Data) -> Inventory | None:
    """None when there is no inventory yet: an import is often the first thing that somebody does."""
    from vault.loading import load_inventory

    path = settings_of(vault, data).vault
    return load_inventory(path) if path.exists() or vault is not None else None


def _plan(given: str, vault: Vault, data: Data) -> Plan:
    from console.plan_files import load_named_plan
    from vault.loading import load_inventory

    settings = settings_of(vault, data)
    return load_named_plan(given, settings, load_inventory(settings.vault))


def _pair(text: str) -> tuple[str, str]:
    from vault.errors import BadInput

    item, sign, machine = text.rpartition("=")
    if not sign or not item.strip() or not machine.strip():
        raise BadInput(f"'{text[:80]}' is not ITEM=MACHINE", where="--map", remedy="write --map ITEM=MACHINE")
    return item.strip(), machine.strip()


def _trouble(target: Path, inventory: Inventory | None) -> str:
    """Why the written plan does not load yet; empty when it does."""
    from plans.loading import load_plan
    from vault.errors import BadInput

    if inventory is None:
        return "there is no inventory to check it with yet"
    try:
        load_plan(target, inventory)
    except BadInput as error:
        return str(error)
    return ""


def _show(found: Imported, target: Path, trouble: str, output: Output) -> None:
    output.say(f"wrote {target}: plan '{found.name}' with {counted(len(found.machines), 'machine')}")
    if found.notes:
        output.table(
            ["", "kind", "where", "what", "what to do"],
            [[note.severity.value, note.kind, note.where, note.what, note.remedy] for note in found.notes],
        )
    if trouble:
        output.say("the plan does not load yet:")
        output.say(trouble)
    else:
        output.say(f"it loads; next: leeward plan show {target}, then leeward plan test {target}")
