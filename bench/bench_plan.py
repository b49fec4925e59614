"""A planned failover of many machines in ten groups, against as many empty activities run by a bare Temporal worker.

``python -m bench.bench_plan [MACHINES]``: 1000 by default. Machines have tiny disks and no guests; everything else is
the product: embedded engine, workers, replication, the plan's workflows.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from adapters.lab.hypervisor import LabHypervisor
from bench.measuring import Result, cpu_seconds, peak_memory, record, scratch
from console.client import Leeward
from console.cmd_engine import start_engine, stop_engine
from plans.model import Plan
from vault.inventory import Inventory
from workers.connection import connect
from workers.engine_file import read_engine
from workers.settings import Settings
from workflows.ids import plan_id

GROUPS = 10
PROTECT_AT_ONCE = 20
LIMIT = "limit: bare activities and the sites' work, all cores busy"
"""What remained if nothing but the activities themselves cost anything: no machine had a state, no job a history."""
MOST_EVENTS = 10_000
MOST_PAYLOAD = 256 * 1024


def inventory_text(machines: int) -> str:
    sites = "".join(
        f"  {site}:\n    fabric: lab\n    networks: {{production: {{}}, isolated: {{kind: isolated}}}}\n"
        for site in ("primary", "recovery")
    )
    entries = "".join(
        f"  m{number:04}: {{site: primary, target: recovery, network: production, policy: slow, "
        f"lab: {{disks: [{{name: d, size: 256KiB}}]}}}}\n"
        for number in range(machines)
    )
    return (
        f"version: 1\nsites:\n{sites}policies:\n  slow: {{frequency: 5m}}\n"
        "network_mappings:\n  - {source: primary/production, target: recovery/production, "
        f"test: recovery/isolated, source_test: primary/isolated}}\nmachines:\n{entries}"
    )


def plan_of(inventory: Inventory) -> Plan:
    names = list(inventory.machines)
    size = len(names) // GROUPS
    groups = [
        {
            "name": f"g{group}",
            "machines": [{"machine": name, "start": False} for name in names[group * size : (group + 1) * size]],
        }
        for group in range(GROUPS)
    ]
    return Plan.model_validate({"plan": "many", "groups": groups, "on_failure": "stop"})


async def main(machines: int) -> None:
    with scratch() as folder:
        settings = Settings(vault=folder / "leeward.yaml", data=folder / "data")
        settings.data.mkdir()
        settings.vault.write_text(inventory_text(machines))
        from vault.loading import load_inventory

        inventory = load_inventory(settings.vault)
        fabric = LabHypervisor(settings.lab_root, "primary", inventory)
        for name in inventory.machines:
            fabric.define(name)
        start_engine(settings)
        try:
            await measure(settings, inventory)
        finally:
            stop_engine(settings)


async def measure(settings: Settings, inventory: Inventory) -> None:
    client = await connect(settings)
    leeward = Leeward(client, inventory, settings.timings())
    began = time.perf_counter()
    gate = asyncio.Semaphore(PROTECT_AT_ONCE)

    async def protect(name: str) -> None:
        async with gate:
            job = await leeward.protect(name)
            await leeward.wait_until_protected(name, job)

    await asyncio.gather(*map(protect, inventory.machines))
    print(f"{len(inventory.machines)} machines protected in {time.perf_counter() - began:.1f} s", flush=True)
    plan = plan_of(inventory)
    used_before = cpu_of_engine(settings)
    began = time.perf_counter()
    await leeward.start_run(plan, "planned")
    status = await leeward.run_status(plan.name)
    while status.finished is None:
        await asyncio.sleep(1)
        status = await leeward.run_status(plan.name)
    seconds = time.perf_counter() - began
    print(f"planned failover: {status.state} in {seconds:.1f} s: {status.message}", flush=True)
    if status.state != "completed":
        raise SystemExit(1)
    used = {name: now - used_before[name] for name, now in cpu_of_engine(settings).items()}
    print(
        "CPU, ms a machine: "
        + ", ".join(f"{name} {value / len(inventory.machines) * 1000:.1f}" for name, value in used.items())
    )
    activities = await report_histories(client, inventory)
    report_memory(settings)
    bench, each = f"plan-{len(inventory.machines)}", len(inventory.machines) // GROUPS
    bare_before = cpu_of_engine(settings)["temporal"] + time.process_time()
    together = await bare_temporal(client, [activities // GROUPS] * GROUPS, at_once=each)
    bare = cpu_of_engine(settings)["temporal"] + time.process_time() - bare_before
    at_sites = sum(value for name, value in used.items() if name.startswith("site-"))
    alone = await bare_temporal(client, [activities // len(inventory.machines)] * len(inventory.machines), at_once=1)
    record(
        [
            Result(bench, "bare-temporal", seconds, together, 1 / 1.5),
            Result(bench, "bare-temporal, a workflow a machine", seconds, alone, None),
            Result(bench, LIMIT, seconds, (bare + at_sites) / (os.cpu_count() or 1), None),
        ]
    )


async def report_histories(client: Client, inventory: Inventory) -> int:
    """Print the largest history and payload; return the number of activities that the run needed."""
    largest, payload, counted = 0, 0, Counter[str]()
    ids = [plan_id("many")]
    async for execution in client.list_workflows(
        "WorkflowType IN ('PlanRun', 'PlanStage', 'PlanReadiness', 'PlannedFailover')"
    ):
        ids.append(execution.id)
    for workflow_id in dict.fromkeys(ids):
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        largest = max(largest, len(history.events))
        payload = max(payload, *(event.ByteSize() for event in history.events))
        for event in history.events:
            if event.HasField("activity_task_scheduled_event_attributes"):
                counted[event.activity_task_scheduled_event_attributes.activity_type.name] += 1
    machine_events = 0
    for name in list(inventory.machines)[:20]:
        machine_events = max(
            machine_events, len((await client.get_workflow_handle(f"machine/{name}").fetch_history()).events)
        )
    total = counted.total()
    print(
        f"largest history {max(largest, machine_events)} events (limit {MOST_EVENTS}), "
        f"largest event {payload:,} bytes (limit {MOST_PAYLOAD:,})",
        flush=True,
    )
    print(f"{total} activities, {total / len(inventory.machines):.2f} a machine: {dict(counted)}", flush=True)
    return total


def cpu_of_engine(settings: Settings) -> dict[str, float]:
    engine = read_engine(settings.engine_file)
    assert engine is not None
    return {name: cpu_seconds(process.pid) for name, process in engine.processes.items()}


def report_memory(settings: Settings) -> None:
    engine = read_engine(settings.engine_file)
    assert engine is not None
    for name, process in engine.processes.items():
        print(f"{name}: {peak_memory(process.pid) / 2**20:.0f} MiB at its peak", flush=True)


# --- the peer ---------------------------------------------------------------------------------------------------


@activity.defn
async def nothing() -> None:
    return


@workflow.defn
class Bare:
    """So many empty activities, so many at a time."""

    @workflow.run
    async def run(self, count: int, at_once: int) -> None:
        for start in range(0, count, at_once):
            await asyncio.gather(
                *(
                    workflow.execute_activity(nothing, start_to_close_timeout=timedelta(minutes=1))
                    for _ in range(start, min(start + at_once, count))
                )
            )


async def bare_temporal(client: Client, counts: list[int], at_once: int) -> float:
    """Seconds for a workflow for each of ``counts``, the number of its activities."""
    async with Worker(
        client, task_queue="bare", workflows=[Bare], activities=[nothing], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        began = time.perf_counter()
        handles = await asyncio.gather(
            *(
                client.start_workflow("Bare", args=[count, at_once], id=f"bare/{at_once}/{number}", task_queue="bare")
                for number, count in enumerate(counts)
            )
        )
        await asyncio.gather(*(handle.result() for handle in handles))
        return time.perf_counter() - began


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
    sys.stdout.flush()
    os._exit(0)  # as workers/leaving.py: Temporal's threads must not meet a finalizing interpreter
