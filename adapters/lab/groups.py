"""Cutting several lab machines at one moment: all storage locks are held together, in the order of their names.

Every cutter of a group takes the same locks in the same order, so of two at the same time one waits, sees that the
moment was made, and leaves it at that.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from adapters.lab.documents import read_document, write_document
from adapters.lab.layout import MachineFolder
from adapters.lab.storage import StorageState, load_state
from adapters.ports import GroupRhythm
from replication.bitmap import CutsInTwoSteps
from vault.domain import ConsistencyKind
from vault.errors import Busy, NotFound

FORMAT, VERSION = "leeward-lab-group", 1
PATIENCE_S = 2.0
"""While one member's writes are waited for, those of the others stand still."""
MOST_PENDING = 8
"""Cuts that may wait in a member: one that cannot send them holds back the group's moments, not its own disk space."""
EARLY = 0.95
"""A moment is due once this share of its interval is over: who looks a little too early need not come again."""


@dataclass(frozen=True)
class Member:
    folder: MachineFolder
    source: CutsInTwoSteps


@dataclass(frozen=True)
class LastMoments:
    """When the group was cut last, and when with its applications quiesced; ns since 1970, 0: never."""

    any_ns: int = 0
    app_ns: int = 0


def cut_group(group: str, members: dict[str, Member], notes: Path, rhythm: GroupRhythm, kind: ConsistencyKind) -> str:
    """Make a moment of the group unless one is not due yet; empty, or why the group cannot be cut now."""
    why_not = _why_not(members)
    if why_not or _due(notes, rhythm, kind) is None:
        return why_not
    try:
        return _cut_all(group, members, notes, rhythm, kind)
    except Busy as error:
        return f"{error.where}: {error.what}"


def _cut_all(group: str, members: dict[str, Member], notes: Path, rhythm: GroupRhythm, kind: ConsistencyKind) -> str:
    with ExitStack() as held:
        wanted = _due(notes, rhythm, kind) or kind
        holds = {name: held.enter_context(members[name].source.prepared(wanted)) for name in sorted(members)}
        cutters = [held.enter_context(holds[name]()) for name in sorted(members)]
        why_not, due = _why_not(members), _due(notes, rhythm, kind)
        if not why_not and due is not None:
            time_ns = time.time_ns()
            reached = {cut(time_ns, group).kind for cut in cutters}
            _note(notes, time_ns, app=reached == {ConsistencyKind.APPLICATION})
    return why_not


def _why_not(members: dict[str, Member]) -> str:
    for name, member in sorted(members.items()):
        state = load_state(member.folder)
        pending, follows = _pending(state)
        if not follows:
            return f"'{name}' is not replicated from here, or not yet"
        if pending >= MOST_PENDING:
            return f"'{name}' has {pending} cuts to send first"
    return ""


def _pending(state: StorageState) -> tuple[int, bool]:
    """How many cuts wait, and whether replication follows: only it makes the first cut of a tracking period."""
    if state.map is not None:
        return len(state.map.cuts), state.map.marking and state.map.number > 0
    return len(state.sealed), state.logging and state.number > 1


def _due(notes: Path, rhythm: GroupRhythm, kind: ConsistencyKind) -> ConsistencyKind | None:
    """The kind of moment that is due; None: none is."""
    last, now_ns = _last(notes), time.time_ns()
    if kind is ConsistencyKind.APPLICATION and _is_over(last.app_ns, now_ns, rhythm.app_consistent_every_s):
        return ConsistencyKind.APPLICATION
    return ConsistencyKind.CRASH if _is_over(last.any_ns, now_ns, rhythm.frequency_s) else None


def _is_over(last_ns: int, now_ns: int, interval_s: float | None) -> bool:
    """Also when the clock was set back."""
    return interval_s is not None and not 0 <= now_ns - last_ns < interval_s * EARLY * 1e9


def _last(notes: Path) -> LastMoments:
    try:
        return LastMoments(**read_document(notes, FORMAT, VERSION))
    except NotFound:
        return LastMoments()


def _note(notes: Path, time_ns: int, *, app: bool) -> None:
    notes.parent.mkdir(parents=True, exist_ok=True)
    app_ns = time_ns if app else _last(notes).app_ns
    write_document(notes, FORMAT, VERSION, {"any_ns": time_ns, "app_ns": app_ns})
