"""``leeward protect|status|jobs|recovery-points|resync|resume|disable``: one machine, or all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from console.exits import Exit, code_of, guarded, run, tell
from console.options import Data, Detach, Json, Machine, Vault, connected, settings_of
from console.output import Output, counted, outcome, seconds, size
from console.prompting import confirm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from console.client import Leeward
    from console.machine_status import MachineStatus
    from vault.domain import CacheFill
    from workers.settings import Settings

WATCH = "watch_old_copy"
"""The activity that waits for a dead site on purpose."""
BEGINS_USUALLY_WITHIN_S = 1.5
"""What lasts longer is said."""
FAILOVERS = frozenset({"PlannedFailover", "UnplannedFailover"})


def register(app: typer.Typer) -> None:
    app.command()(protect)
    app.command()(status)
    app.command()(jobs)
    app.command("recovery-points")(recovery_points)
    app.command()(resync)
    app.command()(resume)
    app.command()(disable)


def protect(
    machines: Annotated[list[str] | None, typer.Argument(help="Machines of the inventory.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All machines of the inventory.")] = False,
    detach: Detach = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Protect machines: copy their disks, then replicate. Checks both sites first; replicates by the machine's policy.

    On a machine that is protected already, brings changed settings of the inventory to it.
    Example: leeward protect payment-db
    """

    async def work() -> None:
        from vault.errors import BadInput

        leeward = await connected(settings_of(vault, data))
        names = list(leeward.inventory.machines) if every else list(machines or [])
        if every and machines:
            raise BadInput("machines are named beside --all", where="leeward protect", remedy="give one of the two")
        if not names:
            raise BadInput("say which machines", where="leeward protect", remedy="name them, or give --all")
        for name in names:
            leeward.settings(name)
        output = Output(json)
        codes = await asyncio.gather(*(_protect_or_tell(leeward, name, output, detach=detach) for name in names))
        output.document([await leeward.find_machine(name) for name in names])
        if any(codes):
            raise typer.Exit(int(Exit.FAILED if len(set(codes)) > 1 else codes[0]))

    run(work)


async def _protect_or_tell(leeward: Leeward, machine: str, output: Output, *, detach: bool) -> Exit:
    """One machine that cannot be protected keeps nobody from hearing of the others."""
    from vault.errors import LeewardError

    try:
        await _protect(leeward, machine, output, detach=detach)
    except LeewardError as error:
        tell(str(error))
        return code_of(error)
    return Exit.OK


async def _protect(leeward: Leeward, machine: str, output: Output, *, detach: bool) -> None:
    from vault.lifecycle import Phase

    known = await leeward.find_machine(machine)
    if known is not None:
        await leeward.configure(machine)
    if known is not None and known.phase not in {Phase.UNPROTECTED, Phase.ENABLED, Phase.COPIED}:
        output.say(f"{machine}: {known.phase.value}; settings of the inventory taken over")
        return
    job = await leeward.protect(machine)
    output.say(f"{machine}: {job} started")
    if not detach:
        watching = asyncio.create_task(_show_progress(leeward, machine, output))
        try:
            await leeward.wait_until_protected(machine, job)
        finally:
            watching.cancel()
        output.say(f"{machine}: protected")


async def _show_progress(leeward: Leeward, machine: str, output: Output, after_s: float = 0) -> None:
    """What a job waits for before it begins, then a line for each tenth; for a bar look at ``leeward status``."""
    from vault.errors import LeewardError

    shown = ""
    await asyncio.sleep(after_s)
    while True:
        try:
            status = await leeward.machine_status(machine)
        except LeewardError:  # whoever waits for the job tells it
            return
        line = (status.job_before_its_beginning or _progress(status)) if status is not None else ""
        if line and line.split("%")[0][:-1] != shown.split("%", maxsplit=1)[0][:-1]:
            output.say(f"{machine}: {line}")
            shown = line
        await asyncio.sleep(1)


def status(
    machine: Annotated[str | None, typer.Argument(help="Only this one, with details.")] = None,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Show how the machines are protected. Phase, health, RPO, and what goes on right now."""

    async def work() -> None:
        leeward = await connected(settings_of(vault, data))
        if machine is not None and not await leeward.is_left_over(machine):
            leeward.settings(machine)
        names = [machine] if machine else list(leeward.inventory.machines)
        if machine is None:  # some may have been taken out of the inventory, and still be protected
            names += sorted(set(await leeward.protected()) - set(names))
        seen = await _with_runs(leeward, await asyncio.gather(*map(leeward.machine_status, names)))
        found = dict(zip(names, seen, strict=True))
        output = Output(json)
        output.document({name: {**_facts(one), "details": one} if one else None for name, one in found.items()})
        without = [name for name, one in found.items() if one is None]
        why = dict(zip(without, await asyncio.gather(*map(leeward.why_not_protected, without)), strict=True))
        output.table(
            ["machine", "phase", "health", "runs at", "recovered at", "RPO", "now"],
            [_status_row(name, one, why.get(name, "")) for name, one in found.items()],
        )
        if machine is not None:
            _show_details(output, found[machine])

    run(work)


async def _with_runs(leeward: Leeward, statuses: Sequence[MachineStatus | None]) -> list[MachineStatus | None]:
    """With the run that is going on of each plan that would be named as the next step."""
    from vault.lifecycle import AT_TARGET

    plans = {one.last_plan for one in statuses if one and one.last_plan and one.state.phase in AT_TARGET}
    found = dict(zip(plans, await asyncio.gather(*(leeward.going_on(plan) for plan in plans)), strict=True))
    going_on = {plan for plan, run_type in found.items() if run_type is not None}
    return [
        one.model_copy(update={"plan_going_on": one.last_plan}) if one and one.last_plan in going_on else one
        for one in statuses
    ]


def _status_row(name: str, status: MachineStatus | None, why_not_protected: str = "") -> list[str]:
    if status is None:
        now = f"{why_not_protected}; then again: leeward protect {name}" if why_not_protected else ""
        return [name, "unprotected", "-", "-", "-", "-", now or f"leeward protect {name}"]
    state = status.state
    other = state.relationship.target_site
    if state.active_site == other:
        other = state.relationship.source_site
    return [
        name,
        state.phase.value,
        status.health_level,
        state.active_site,
        other,
        "not replicating" if status.failed_over else seconds(status.rpo_s),
        _now(status),
    ]


def _facts(status: MachineStatus) -> dict[str, object]:
    return {
        "phase": status.state.phase.value,
        "health": status.health_level,
        "rpo_s": status.rpo_s,
        "failed_over": status.failed_over,
        "cache": next((one.pulse.waiting.cache for one in status.activities if one.pulse and one.pulse.waiting), None),
    }


def _now(status: MachineStatus) -> str:
    """What a machine does at this moment, the worst news first."""
    for activity in status.activities:
        if activity.pulse is not None and activity.pulse.waiting is not None:
            waiting = activity.pulse.waiting
            tries = f"try {waiting.failures}, next at {waiting.next_try:%H:%M:%S}Z"
            return f"{waiting.reason} ({tries}); {what_waits(waiting.cache)}"
        if activity.trouble and not (activity.name == WATCH and activity.waiting_for_worker):
            return activity.trouble
    if status.health.level != "ok":
        of_its_workflow = status.state.health.level != "ok"
        return "; ".join(filter(None, [status.health.reason, "" if of_its_workflow else _next_step(status)]))
    return (
        status.job_before_its_beginning
        or _progress(status)
        or _test_copies(status)
        or _unwatched(status)
        or _next_step(status)
    )


def _test_copies(status: MachineStatus) -> str:
    copies = [copy.machine for copy in status.state.tests]
    return f"test cop{'ies run' if len(copies) > 1 else 'y runs'}: {', '.join(copies)}" if copies else ""


def _unwatched(status: MachineStatus) -> str:
    old = status.state.old_copy
    waits = any(one.name == WATCH and one.waiting_for_worker for one in status.activities)
    return f"no worker at {old.site} yet that keeps the old copy off" if old is not None and waits else ""


def _next_step(status: MachineStatus) -> str:
    """After a failover nothing replicates until somebody goes on."""
    from vault.lifecycle import AT_TARGET, Phase

    plan = status.last_plan or "PLAN"
    if status.plan_going_on and status.state.phase in AT_TARGET:
        return f"not replicated; a run of {plan} is going on: leeward plan watch {plan}"
    if status.state.phase is Phase.COMMIT_PENDING:
        return f"commit pending, not replicated: leeward plan commit {plan}"
    return f"not replicated: leeward plan reverse {plan}" if status.state.phase is Phase.FAILED_OVER else ""


def what_waits(cache: CacheFill) -> str:
    share = f"{100 * cache.site_bytes / cache.site_limit:.0f}% of the cache used" if cache.site_limit else "no cache"
    full = "; cache full: newer changes stay in the change log" if cache.full else ""
    return f"{cache.cuts} cuts, {size(cache.bytes)} wait, {share}{full}"


def _progress(status: MachineStatus) -> str:
    for activity in status.activities:
        progress = activity.progress
        if progress is not None and progress.bytes_total > 0:
            share = 100 * progress.bytes_done / progress.bytes_total
            left = f", {seconds(progress.eta_s)} left" if progress.eta_s else ""
            return f"{progress.doing}: {share:.0f}% of {size(progress.bytes_total)}{left}"
        if progress is not None and activity.pulse is None:
            return progress.doing
    return ""


def _show_details(output: Output, status: MachineStatus | None) -> None:
    from console.machine_status import NOT_KNOWN

    if status is None:
        return
    point = status.last_point
    if status.failed_over:
        output.say(f"\n{_failed_over(status)}")
        if status.health_level == NOT_KNOWN:
            output.say(_since_when_unknown(status))
    elif point is not None:
        output.say(f"\nnewest recovery point {point.id}, {point.time:%Y-%m-%d %H:%M:%S}Z, {point.kind}")
    for activity in status.activities:
        output.say(f"\n{activity.name.replace('_', ' ')}, try {activity.attempt}")
        if activity.pulse is not None:
            output.say(f"  {size(activity.pulse.bytes_sent)} sent in {counted(activity.pulse.cycles, 'turn')}")
        if activity.last_failure:
            output.say(f"  last failure: {activity.last_failure}")
    output.say("")
    for line in status.state.story:
        output.say(f"{line.at:%Y-%m-%d %H:%M:%S}Z  {line.what}")
    _job_table(
        output,
        [
            [job.id, outcome(job.state), f"{job.started:%Y-%m-%d %H:%M:%S}Z", job.requested_by, job.message]
            for job in status.state.jobs
        ],
    )


def _failed_over(status: MachineStatus) -> str:
    """From which moment it was recovered, and what that moment lacks."""
    state, point = status.state, status.state.failed_over_to
    if point is None:
        return f"not replicating: recovered at {state.active_site}"
    moment = f"{point.time:%Y-%m-%d %H:%M:%S}Z, {point.kind}"
    told = f"not replicating: recovered at {state.active_site} from {point.id}, {moment}"
    began = next((job.started for job in reversed(state.jobs) if job.kind in FAILOVERS), None)
    if began is None:
        return told
    lacks = (began - point.time).total_seconds()
    if lacks <= 0:
        return f"{told}, made by the failover itself"
    return f"{told}, {seconds(lacks)} before the failover began: what was written after that moment is not there"


def _since_when_unknown(status: MachineStatus) -> str:
    recovered = status.state.recovered
    answered = f"{recovered.name} answered at {recovered.address} when it was recovered; " if recovered else ""
    return f"health not known: {answered}from then on until replication is reversed nothing looks at it"


def _job_table(output: Output, rows: list[list[str]]) -> None:
    output.table(["job", "state", "started", "asked by", "what it said"], rows)


def jobs(
    machine: Annotated[str | None, typer.Argument(help="Only this machine's.")] = None,
    plan: Annotated[str | None, typer.Option("--plan", help="Only those that a plan asked for.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Lifecycle jobs, newest first. Each is a workflow of that id in the Temporal UI."""

    async def work() -> None:
        from console.plan_files import find_plan_file, plan_name

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        lines = await leeward.jobs(machine, plan and plan_name(plan), limit)
        if not lines and machine is not None:  # what was taken out of the inventory may have had some
            leeward.settings(machine)
        if not lines and plan is not None:
            find_plan_file(plan, settings)
        output = Output(json)
        output.document(lines)
        output.table(
            ["job", "machine", "state", "started", "took", "plan", "why it failed"],
            [
                [
                    line.id,
                    line.machine,
                    line.status,
                    f"{line.started:%Y-%m-%d %H:%M:%S}Z",
                    seconds((line.finished - line.started).total_seconds() if line.finished else None),
                    line.plan,
                    line.message,
                ]
                for line in lines
            ],
            empty="no jobs",
        )

    run(work)


def recovery_points(machine: Machine, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """List the moments to which a machine can be recovered. The newest comes first."""

    async def work() -> None:
        from vault.domain import utc

        leeward = await connected(settings_of(vault, data))
        leeward.settings(machine)
        points = (await leeward.recovery_points(machine)).points
        output = Output(json)
        output.document(points)
        output.table(
            ["recovery point", "time", "kind", "changed", "group"],
            [[point.id, utc(point.time), point.kind, size(point.bytes), point.group] for point in reversed(points)],
            empty="no recovery points yet",
        )

    run(work)


def resync(
    machine: Machine, detach: Detach = False, vault: Vault = None, data: Data = None, json: Json = False
) -> None:
    """Compare a machine with its replica, send what differs. Now, without waiting for the policy's window."""
    from vault.lifecycle import JobKind

    _one_job(machine, JobKind.RESYNCHRONIZE, Output(json), detach=detach, vault=vault, data=data)


def resume(machine: Machine, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Go on with replication that an error halted. Remove the error's cause first.

    What waits for its next try, replication or a step of a job (also of one that a plan's run asked for), is tried at
    once. A warning of a job that failed is taken as seen.
    """

    async def work() -> None:
        leeward = await connected(settings_of(vault, data))
        leeward.settings(machine)
        before = await leeward.find_machine(machine)
        resumed = await leeward.resume_replication(machine)
        output = Output(json)
        if before is not None and before.halted:
            output.say(f"{machine}: replication goes on")
        for name in resumed.tried_now:
            output.say(f"{machine}: {name.replace('_', ' ')} is tried now")
        if not resumed.tried_now and not (before is not None and before.halted):
            output.say(f"{machine}: nothing was halted, and nothing waits for its next try")
        output.document({**resumed.state.model_dump(mode="json"), "tried_now": resumed.tried_now})

    run(work)


def disable(
    machine: Machine,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the recovery points without asking.")] = False,
    source_unreachable: Annotated[
        bool, typer.Option("--source-unreachable", help="Go on when the site where it runs does not answer.")
    ] = False,
    detach: Detach = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Stop protecting a machine and delete its replica. All its recovery points go, too; the machine itself stays.

    So does a replica that existed before its first copy, in Hyper-V. A machine that was taken out of the inventory is
    disabled by the settings that it was protected with; what a site cannot clean up without its entry is told.
    """
    from vault.lifecycle import JobKind

    if not yes:
        guarded(lambda: confirm(_question(machine, settings_of(vault, data))))
    options = {"source_unreachable": source_unreachable}
    _one_job(machine, JobKind.DISABLE, Output(json), detach=detach, vault=vault, data=data, **options)


def _question(machine: str, settings: Settings) -> str:
    from vault.loading import load_inventory

    if machine in load_inventory(settings.vault).machines:
        return f"Delete all recovery points of '{machine}'?"
    return (
        f"'{machine}' is not in the inventory. End what protects it all the same, and delete all its recovery points?"
    )


def _one_job(
    machine: str, kind: object, output: Output, *, detach: bool, vault: Vault, data: Data, **options: bool
) -> None:
    async def work() -> None:
        from vault.lifecycle import JobKind

        leeward = await connected(settings_of(vault, data))
        if kind is JobKind.DISABLE and await leeward.is_left_over(machine):
            options["not_in_inventory"] = True
        else:
            leeward.settings(machine)
        job = await leeward.request(machine, JobKind(str(kind)), **options)
        if detach:
            output.say(f"{machine}: {job} accepted; what it does now: leeward status {machine}")
            output.document({"job": job})
            return
        watching = asyncio.create_task(_show_progress(leeward, machine, output, after_s=BEGINS_USUALLY_WITHIN_S))
        try:
            result = await leeward.job_result(job)
        finally:
            watching.cancel()
        for sentence in result.sentences:
            output.say(f"{machine}: {sentence}")
        output.document(result)

    run(work)
