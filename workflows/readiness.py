"""Before a run changes anything: is every machine in the right phase, is every site ready? (child of the plan run)"""

from __future__ import annotations

import asyncio
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from activities import contracts
from activities.contracts import CONTROL_QUEUE, PointQuestion, ReadinessQuestion, WorkflowsQuestion, site_queue
from plans.context import MachineInRun
from plans.steps import Direction
from vault.domain import LATEST_CONSISTENT, Finding, Relationship, RunType, Severity, utc
from vault.lifecycle import AT_TARGET, JobKind, Phase, refusal, refusal_of_target
from vault.words import counted
from workflows.already import already_done
from workflows.calls import call, reason
from workflows.ids import machine_id
from workflows.left_out import not_recovered, passed_over
from workflows.model import DescribeTo, MachineDescribed, Readiness, ReadinessInput, RunFacts, StageRow, StepRow

MAIN_JOB: dict[RunType, JobKind] = {
    "test": JobKind.TEST_FAILOVER,
    "cleanup": JobKind.CLEANUP_TEST,
    "planned": JobKind.PLANNED_FAILOVER,
    "unplanned": JobKind.UNPLANNED_FAILOVER,
    "failback": JobKind.PLANNED_FAILOVER,
    "commit": JobKind.COMMIT,
    "reverse": JobKind.REVERSE,
}
ASKS_THE_TARGET = frozenset({"test", "planned", "unplanned", "failback"})
DONE_NAMED = 5
"""So many machines that are done already are named in one sentence; each is named in its own row."""
ASKS_THE_SOURCE = frozenset({"planned", "failback"})
ASKED_AT_ONCE = 100
"""So many machines' answers stay a small payload."""
ASKS_BY_QUERY = "readiness-asks-by-query"
"""Patch: machines were asked by signal, and signalled back."""
MOVES = frozenset({"planned", "unplanned", "failback"})


@workflow.defn(name="PlanReadiness")
class PlanReadiness:
    """Collects every reason against the run, so that the operator sees all of them at once."""

    def __init__(self) -> None:
        self._described: dict[str, MachineDescribed] = {}
        self._findings: list[Finding] = []
        self._already: dict[str, str] = {}
        self._unprotected: list[str] = []
        self._not_recovered: dict[str, str] = {}

    @workflow.signal
    def machine_described(self, described: MachineDescribed) -> None:
        self._described[described.machine] = described

    @workflow.run
    async def run(self, given: ReadinessInput) -> Readiness:
        began = workflow.now()
        await self._describe(given)
        self._already = already_done(self._described, given.facts.run_type, MAIN_JOB[given.facts.run_type])
        self._not_recovered = not_recovered(self._described, self._unprotected, given.facts)
        self._check_phases(given)
        direction = self._direction(given)
        point = None
        if not self._problems or given.look_at_everything:
            if given.facts.point.startswith(LATEST_CONSISTENT):
                point = await self._fix_moment(given)
                given = given.model_copy(
                    update={"facts": given.facts.model_copy(update={"point": point or given.facts.point})}
                )
            await self._check_sites(given)
        problems = self._problems
        state = "refused" if problems else "done"
        sentence = "\n".join(problems) or self._all_is_ready(given)
        step = StepRow.model_validate(
            {"id": "readiness/check", "kind": "readiness", "name": "check readiness", "state": state}
        ).model_copy(update={"detail": sentence, "started": began, "finished": workflow.now()})
        row = StageRow.model_validate({"id": "readiness", "title": "check readiness", "state": state, "steps": [step]})
        return Readiness(
            row=row.model_copy(update={"started": began, "finished": workflow.now()}),
            direction=direction,
            problems=problems,
            findings=self._findings,
            machines={name: _where(one) for name, one in self._described.items() if name not in self._not_recovered},
            already=self._already,
            not_recovered=self._not_recovered,
            replicating=self._replicating(given.facts),
            tested_since=self._tested_since(given.facts),
            point=point,
        )

    def _all_is_ready(self, given: ReadinessInput) -> str:
        left = len(given.machines) - len(self._already) - len(self._not_recovered)
        done = "".join(f"; {machine} is {words}" for machine, words in sorted(self._already.items())[:DONE_NAMED])
        more = f"; and {len(self._already) - DONE_NAMED} more are" if len(self._already) > DONE_NAMED else ""
        whose = "its" if left == 1 else "their"
        passed = passed_over(given.facts.left_out, [*given.facts.left_out, *self._not_recovered])
        without = f"; {passed}" if passed else ""
        return f"{counted(left, 'machine')} and {whose} sites are ready{done}{more}{without}"

    async def _describe(self, given: ReadinessInput) -> None:
        if not workflow.patched(ASKS_BY_QUERY):
            await asyncio.gather(*(self._ask(machine) for machine in given.machines))
            return
        batches = [given.machines[at : at + ASKED_AT_ONCE] for at in range(0, len(given.machines), ASKED_AT_ONCE)]
        await asyncio.gather(*(self._query(batch, given.facts) for batch in batches))

    async def _query(self, machines: list[str], facts: RunFacts) -> None:
        found = await call(
            contracts.QUERY_WORKFLOWS,
            WorkflowsQuestion(ids=[machine_id(machine) for machine in machines], query="described"),
            queue=CONTROL_QUEUE,
            summary=f"how are {len(machines)} machines?",
            timings=facts.timings,
        )
        for machine in machines:
            answer = found.answers.get(machine_id(machine))
            if answer is None:
                self._unprotected.append(machine)
            else:
                self._described[machine] = MachineDescribed.model_validate(answer)

    async def _ask(self, machine: str) -> None:
        handle = workflow.get_external_workflow_handle(machine_id(machine))
        try:
            await handle.signal("describe_to", DescribeTo(reply_to=workflow.info().workflow_id))
        except FailureError:
            self._unprotected.append(machine)
            return
        await workflow.wait_condition(lambda: machine in self._described)

    def _check_phases(self, given: ReadinessInput) -> None:
        job = MAIN_JOB[given.facts.run_type]
        for machine, words in self._not_recovered.items():
            self._note(Severity.WARN, machine, words)
        for machine in self._unprotected:
            if machine not in self._not_recovered:
                what = f"machine '{machine}' is not protected"
                self._note(Severity.FAIL, machine, what, f"leeward protect {machine}")
        self._check_targets(given.facts.plan, job)
        for machine, described in sorted(self._described.items()):
            why_not = refusal(machine, described.phase, job)
            if machine in self._not_recovered:
                continue
            if machine in self._already:
                self._note(Severity.PASS, machine, self._already[machine])
            elif refusal_of_target(described.relationship, job) is not None:
                pass  # whatever its phase: told once for all machines of the site
            elif why_not is not None:
                self._note(Severity.FAIL, machine, why_not.what, why_not.remedy)
            else:
                self._note(Severity.PASS, machine, f"is {described.phase}")
            if described.health.level != "ok":
                self._note(Severity.WARN, machine, described.health.reason, f"leeward status {machine}")
        self._check_copies(given.facts)

    def _check_targets(self, plan: str, job: JobKind) -> None:
        """Once for each site, whatever the number of machines."""
        relationships = [described.relationship for _, described in sorted(self._described.items())]
        for relationship in {(one.target_site, one.only_moves): one for one in relationships}.values():
            why_not = refusal_of_target(relationship, job)
            if why_not is not None:
                self._note(Severity.FAIL, plan, why_not.what, why_not.remedy)

    def _check_copies(self, facts: RunFacts) -> None:
        copies = [copy for described in self._described.values() for copy in described.tests]
        if facts.run_type == "cleanup" and facts.of_run is not None:
            runs = sorted({copy.run_id for copy in copies if copy.run_id})
            if facts.of_run not in runs:
                remedy = f"these have: {', '.join(runs) or 'none'}"
                self._note(Severity.FAIL, facts.plan, f"no machine has a test copy of run {facts.of_run}", remedy)

    def _direction(self, given: ReadinessInput) -> Direction | None:
        """All machines of a run must go the same way, and the way its type says."""
        run_type = given.facts.run_type
        passed = self._already.keys() | self._not_recovered.keys()
        ways = {described.reversed for name, described in self._described.items() if name not in passed}
        if len(ways) > 1:
            away = sorted(name for name, described in self._described.items() if described.reversed)
            what = f"the plan's machines do not run at the same side: {', '.join(away)} were failed over"
            self._note(Severity.FAIL, given.facts.plan, what, "bring them to one side first")
            return None
        is_reversed = ways == {True}
        if run_type == "planned" and is_reversed:
            remedy = f"leeward plan failback {given.facts.plan}"
            self._note(Severity.FAIL, given.facts.plan, "the machines run at the recovery site", remedy)
        if run_type == "failback" and not is_reversed and self._described:
            self._note(Severity.FAIL, given.facts.plan, *self._why_no_failback(given.facts.plan))
        return "recovery-to-primary" if is_reversed else "primary-to-recovery"

    def _why_no_failback(self, plan: str) -> tuple[str, str]:
        if any(described.phase in AT_TARGET for described in self._described.values()):
            remedy = f"commit and reverse first: leeward plan commit {plan}, leeward plan reverse {plan}"
            return "the machines were failed over, and nothing replicates them back yet", remedy
        return "the machines already run at their primary site", "nothing to fail back; see leeward status"

    async def _fix_moment(self, given: ReadinessInput) -> str | None:
        """The newest common moment, chosen once: what is the newest changes while the run takes its time."""
        choice, timings = given.facts.point, given.facts.timings
        group = choice.removeprefix(LATEST_CONSISTENT)
        members = [one.relationship for one in self._described.values() if one.relationship.group == group]
        if not members:
            what = f"no machine of the plan is in consistency group '{group}'"
            self._note(Severity.FAIL, given.facts.plan, what, "see 'consistency_groups' in the inventory")
            return None
        try:
            chosen = await call(
                contracts.FIX_MOMENT,
                PointQuestion(relationship=members[0], choice=choice),
                queue=site_queue(members[0].target_site),
                summary=f"which moment do all machines of {group} have?",
                timings=timings,
                once=True,
                site_must_answer=True,
            )
        except ActivityError as error:
            self._note(Severity.FAIL, f"consistency group {group}", reason(error))
            return None
        self._note(Severity.PASS, f"consistency group {group}", f"its newest common moment is {utc(chosen.point.time)}")
        return chosen.choice

    async def _check_sites(self, given: ReadinessInput) -> None:
        relationships = [given.shaped(one) for name, one in self._described.items() if name not in self._already]
        moving, leaving = [], []
        if given.facts.run_type in MOVES:
            moving = sorted(self._described)
            leaving = sorted(name for described in self._described.values() for name in described.copies)
        if given.facts.run_type in ASKS_THE_TARGET:
            for site in sorted({relationship.target_site for relationship in relationships}):
                there = [relationship for relationship in relationships if relationship.target_site == site]
                question = ReadinessQuestion(
                    site=site,
                    side="target",
                    relationships=there,
                    point=given.facts.point,
                    recovering=True,
                    tested=self._tested(given.facts),
                    leaving=leaving,
                    moving=moving,
                    left_out=list(given.facts.left_out),
                )
                await self._check_site(given, question)
        if given.facts.run_type == "unplanned" and not given.facts.source_unreachable:
            await self._require_reachable_sources(given, relationships)
        if given.facts.run_type in ASKS_THE_SOURCE:
            for site in sorted({relationship.source_site for relationship in relationships}):
                there = [relationship for relationship in relationships if relationship.source_site == site]
                await self._check_site(given, ReadinessQuestion(site=site, side="source", relationships=there))

    async def _require_reachable_sources(self, given: ReadinessInput, relationships: list[Relationship]) -> None:
        """Without proof that the source is off only the operator can say so; better before than in the middle."""
        for site in sorted({relationship.source_site for relationship in relationships}):
            before = len(self._problems)
            await self._check_site(given, ReadinessQuestion(site=site, side="source", relationships=[]))
            if len(self._problems) > before:
                what = f"so nobody can prove that the machines are off at {site}"
                remedy = "when you know that they cannot run there, say so with --source-unreachable"
                self._note(Severity.FAIL, f"site {site}", what, remedy)

    async def _check_site(self, given: ReadinessInput, question: ReadinessQuestion) -> None:
        try:
            answer = await call(
                contracts.CHECK_READINESS,
                question,
                queue=site_queue(question.site),
                summary=f"is {question.site} ready as {question.side}?",
                timings=given.facts.timings,
                once=True,
                site_must_answer=True,
            )
        except ActivityError as error:
            self._note(Severity.FAIL, f"site {question.site}", reason(error))
            return
        self._findings = without_repeats([*self._findings, *answer.findings])

    def _tested(self, facts: RunFacts) -> list[str]:
        tested = [name for name, described in self._described.items() if described.tests]
        return tested if facts.run_type == "test" else []

    def _tested_since(self, facts: RunFacts) -> datetime | None:
        copies = [copy for described in self._described.values() for copy in described.tests]
        made = [copy.made for copy in copies if copy.made is not None and copy.is_of(facts.plan, facts.of_run)]
        return min(made, default=None) if facts.run_type == "cleanup" else None

    def _replicating(self, facts: RunFacts) -> list[Relationship]:
        if facts.run_type not in {"test", "cleanup"}:
            return []
        return [one.relationship for one in self._described.values() if one.phase is Phase.PROTECTED]

    @property
    def _problems(self) -> list[str]:
        return [str(finding) for finding in self._findings if finding.severity is Severity.FAIL]

    def _note(self, severity: Severity, subject: str, what: str, remedy: str = "") -> None:
        self._findings.append(Finding(severity=severity, subject=subject, what=what, remedy=remedy))


def without_repeats(findings: list[Finding]) -> list[Finding]:
    """In their order. Several thousand of a large plan: comparing each with each takes longer than a workflow may."""
    return list(dict.fromkeys(findings))


def _where(described: MachineDescribed) -> MachineInRun:
    """Where the machine is before the run; recovered machines replace their entry."""
    relationship: Relationship = described.relationship
    if described.recovered is not None:
        return MachineInRun(
            name=described.recovered.name,
            site=described.recovered.site,
            network=described.recovered.network,
            address=described.recovered.address,
            recovery_point=described.recovered.point.id,
        )
    return MachineInRun(name=described.machine, site=relationship.source_site)
