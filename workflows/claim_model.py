"""What machines and the claims on their replication group say to each other. Import-light."""

from __future__ import annotations

from vault.domain import MachineName, Value
from vault.lifecycle import MOVES_ITS_GROUP, JobKind


class Claim(Value):
    """A machine's job that needs the whole group to stand still, or to move with it.

    Attributes:
        id: of the request for the job.
        holder: the machine's workflow, which gets the answer; ``holder_run`` is that very run of it.
        run_id: the plan run that asks; empty: an operator or the policy asks for this machine alone.
        job: the job's workflow once it has begun; ``job_run`` is that very run of it.
    """

    id: str
    machine: MachineName
    kind: JobKind
    holder: str
    holder_run: str
    requested_by: str
    plan: str | None = None
    run_id: str = ""
    job: str = ""
    job_run: str = ""

    def goes_with(self, other: Claim) -> bool:
        """Machines of one run go together; and what makes a mirror whole several machines may do side by side."""
        if self.machine == other.machine or (self.run_id and self.run_id == other.run_id):
            return True
        return self.kind not in MOVES_ITS_GROUP and other.kind not in MOVES_ITS_GROUP

    def refuses(self, other: Claim, group: str) -> str:
        """The sentence for ``other``, which does not go with this one."""
        run = f", run {self.run_id}" if self.run_id else ""
        look = f"leeward plan status {self.plan}" if self.plan else f"leeward jobs {self.machine}"
        return (
            f"machine '{other.machine}' cannot run {other.kind} now: '{self.machine}' of its replication group "
            f"'{group}' runs {self.kind}, asked by {self.requested_by}{run} — wait until that is done: {look}"
        )


class ClaimReturn(Value):
    id: str


class ClaimAnswer(Value):
    """``refusal`` empty: the claim is given."""

    id: str
    refusal: str = ""


class ClaimsState(Value):
    """Everything that the claims of a group know; it survives continue-as-new as this one value."""

    group: str
    claims: list[Claim] = []
