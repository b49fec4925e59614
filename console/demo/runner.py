"""``leeward demo``: a lab and an engine of its own, all phases, a table, a report; nothing stays behind."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from adapters.lab.network import overlaps
from console.client import Leeward
from console.cmd_engine import start_engine, stop_engine
from console.demo.model import DemoResult, PhaseResult
from console.demo.phases import Stage
from console.demo.report import write_report
from console.demo.scenarios import SCENARIOS, Scenario
from console.output import Output, counted, seconds, size
from plans.loading import load_plan_source
from vault.errors import InvalidState
from vault.inventory import Inventory
from vault.loading import load_inventory
from workers.connection import connect
from workers.settings import Settings

DEFAULT_FOLDER = Path(".leeward", "demo")
TIME_SCALE = 0.05
MARKER = "this-is-a-leeward-demo"


async def run_demo(scenario: Scenario, folder: Path | None, json_file: Path | None, report: Path, *, keep: bool) -> int:
    """Run a scenario; 0 when nothing was lost that must not be, else 1."""
    output = Output()
    settings = _fresh_folder(scenario, (folder or DEFAULT_FOLDER).resolve())
    inventory = load_inventory(settings.vault)
    began, clock = datetime.now(UTC), time.monotonic()
    try:
        engine = start_engine(settings)
        output.say(f"leeward demo: {scenario.title}")
        output.say(f"Temporal UI while it runs: {engine.ui}")
        started = scenario.begin(settings, inventory)
        output.say(f"{counted(len(started), 'machine')} run and write: {', '.join(started)}")
        phases = await _run_phases(scenario, settings, inventory, output)
        result = DemoResult(
            scenario=scenario.name,
            began=began,
            duration_s=time.monotonic() - clock,
            phases=phases,
            verdict=scenario.verdict,
            overlaps=len(overlaps(settings.lab_root)),
        )
    finally:
        if not keep:
            scenario.end(settings)
            stop_engine(settings)
    _show(result, output)
    write_report(result, (settings.vault.parent / "payments.plan.yaml").read_text(), report)
    output.say(f"report: {report.resolve()}")
    if json_file is not None:
        json_file.write_text(result.model_dump_json(indent=2, exclude={"phases": {"__all__": {"run"}}}) + "\n")
    if keep:
        where = f"--vault {settings.vault} --data {settings.data}"
        output.say(f"still running: {engine.ui}   stop it with: leeward down {where}; {scenario.ended_by(settings)}")
    return 1 if result.problems else 0


async def _run_phases(
    scenario: Scenario, settings: Settings, inventory: Inventory, output: Output
) -> list[PhaseResult]:
    leeward = Leeward(await connect(settings), inventory, settings.timings())
    plan = load_plan_source(settings.vault.parent / "payments.plan.yaml", inventory)
    clock = time.monotonic()
    done: list[PhaseResult] = []
    async for phase in scenario.phases(Stage(leeward, plan, settings, output.say)):
        done.append(phase)
        output.say(f"[{time.monotonic() - clock:5.1f} s] {_sentence(phase)}")
        if phase.run is not None and phase.run.state != "completed":
            break
    return done


def _fresh_folder(scenario: Scenario, folder: Path) -> Settings:
    """A folder of the demo's own, made anew; a folder that is not a demo's is never touched.

    Raises:
        InvalidState: when the folder exists and was not made by a demo.
    """
    settings = Settings(vault=folder / "leeward.yaml", data=folder / "data", time_scale=TIME_SCALE)
    if folder.exists():
        if not (folder / MARKER).exists():
            raise InvalidState("exists and is not a demo's", where=str(folder), remedy="give another --folder")
        for earlier in SCENARIOS.values():
            earlier.end(settings)
        stop_engine(settings)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    settings.data.mkdir()
    settings.vault.write_text(scenario.inventory(folder))
    (folder / "payments.plan.yaml").write_text(scenario.plan())
    return settings


def _sentence(phase: PhaseResult) -> str:
    parts = [f"{phase.phase}: {seconds(phase.duration_s)}"]
    if phase.slowest_rto_s is not None:
        parts.append(f"slowest machine back after {seconds(phase.slowest_rto_s)}")
    if phase.bytes_sent:
        parts.append(f"{size(phase.bytes_sent)} sent")
    if phase.sentence:
        parts.append(phase.sentence)
    return ", ".join(parts)


def _show(result: DemoResult, output: Output) -> None:
    output.say("")
    rows = []
    for phase in result.phases:
        if not phase.is_measured:
            names = counted(len(phase.machines), "machine") if phase.machines else "-"
            rows.append([phase.phase, names, seconds(phase.duration_s), *["-"] * 5, _verdict(phase.troubles)])
            continue
        for name, machine in phase.machines.items():
            rows.append(
                [
                    phase.phase,
                    name,
                    seconds(phase.duration_s),
                    seconds(machine.rto_s),
                    _number(machine.transactions_acknowledged),
                    _number(machine.transactions_held),
                    _number(machine.transactions_lost),
                    size(machine.bytes_sent) if machine.bytes_sent else "-",
                    _verdict([machine.trouble] if machine.trouble else []),
                ]
            )
    output.table(["phase", "machine", "duration", "recovery", "acknowledged", "held", "lost", "sent", "verdict"], rows)
    output.say("")
    for problem in result.problems:
        output.say(f"PROBLEM: {problem}")
    if not result.problems:
        output.say(result.verdict)


def _verdict(troubles: list[str]) -> str:
    return "failed" if troubles else "ok"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
