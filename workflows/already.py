"""What a run meets done: machines that another run has brought to where this one would (requirements §D).

A machine may be in several plans, and a plan may be run again after it ended halfway. Such a machine is left as it is,
and the run says so and goes on with the others.
"""

from __future__ import annotations

from collections.abc import Mapping

from vault.domain import RunType
from vault.lifecycle import LIFECYCLE, WITH_RECOVERY_POINTS, JobKind, Phase
from workflows.model import MachineDescribed

FAILED_OVER = frozenset({Phase.COMMIT_PENDING, Phase.FAILED_OVER})
"""It was failed over, and its replication has not been reversed since."""
COMMITTED_ALREADY = "committed already"
COMMITTED_BY_ITSELF = f"{COMMITTED_ALREADY}: array replication does so by itself when it fails over"
_WORDS: dict[RunType, str] = {
    "planned": "recovered",
    "unplanned": "recovered",
    "failback": "failed back",
    "commit": "committed",
    "reverse": "protected the other way",
}


def already_done(described: Mapping[str, MachineDescribed], run_type: RunType, job: JobKind) -> dict[str, str]:
    """By machine, the sentence that says so. Empty when the run has nothing else to do: then it makes no sense, except
    that a commit of machines that commit by themselves says just that."""
    if run_type == "commit" and all(_committed_by_itself(one) for one in described.values()):
        return dict.fromkeys(described, COMMITTED_BY_ITSELF)
    done = _already_done(described, run_type, job)
    return {name: COMMITTED_BY_ITSELF if _said_so(described[name], run_type) else words for name, words in done.items()}


def _said_so(described: MachineDescribed, run_type: RunType) -> bool:
    return run_type == "commit" and _committed_by_itself(described)


def _committed_by_itself(described: MachineDescribed) -> bool:
    recovered = described.recovered
    return described.phase is Phase.FAILED_OVER and recovered is not None and recovered.committed


def _already_done(described: Mapping[str, MachineDescribed], run_type: RunType, job: JobKind) -> dict[str, str]:
    ways = {one.reversed for one in described.values() if _has_work(one, run_type, job)}
    if run_type not in _WORDS or len(ways) != 1:
        return {}
    is_reversed = ways.pop()
    return {name: sentence(one, run_type) for name, one in described.items() if _is_done(one, run_type, is_reversed)}


def sentence(described: MachineDescribed, run_type: RunType) -> str:
    by = f" by {described.recovered_by}" if described.recovered_by else ""
    health = f"; {described.health.reason}" if described.health.reason else ""
    return f"already {_WORDS[run_type]}: at {described.active_site}{by}{health}"


def _has_work(described: MachineDescribed, run_type: RunType, job: JobKind) -> bool:
    wrong_side = run_type in {"planned", "failback"} and described.reversed != (run_type == "failback")
    return described.phase in LIFECYCLE[job].starts_in and not wrong_side


def _is_done(described: MachineDescribed, run_type: RunType, is_reversed: bool) -> bool:
    """``is_reversed``: the side from which the run moves its machines."""
    if described.reversed == is_reversed:
        done_in = {"commit": frozenset({Phase.FAILED_OVER}), "reverse": frozenset[Phase]()}
        return described.phase in done_in.get(run_type, FAILED_OVER)
    # An unplanned failover goes either way, so which of the two sides such a machine should be at is not known.
    return run_type != "unplanned" and described.phase in WITH_RECOVERY_POINTS
