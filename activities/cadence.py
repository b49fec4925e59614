"""When the next cut, and the next try to send, are due: by a host's clock, which may be set while replication runs.

Pauses inside one process are measured on a clock that nobody sets. Moments that outlive a process (in heartbeats) are
of the host's clock; when that was set back behind them, what they hold up is due at once: better early than an hour
late.
"""

from __future__ import annotations

from datetime import datetime

from activities.contracts import ReplicationPulse, Waiting
from vault.domain import Relationship
from vault.retry import LATER_DELAY_MINUTES

ON_TIME = 0.95
"""A cut is due once this share of its interval is over: who looks a little too early need not come again."""
LONGEST_DELAY_S = LATER_DELAY_MINUTES * 60
"""No try is ever put off for longer; one that seems to be was put off by another clock."""


def is_over(began: datetime, now: datetime, seconds: float) -> bool:
    """Whether so much time has passed."""
    return not 0 <= (now - began).total_seconds() < seconds


def try_is_due(waiting: Waiting, now: datetime) -> bool:
    return _seconds_to_next_try(waiting, now) == 0


def cut_is_due(relationship: Relationship, waiting: Waiting, now: datetime) -> bool:
    return is_over(waiting.cut_at, now, relationship.frequency_s * ON_TIME)


def app_consistent_is_due(relationship: Relationship, pulse: ReplicationPulse, now: datetime) -> bool:
    every, last = relationship.app_consistent_every_s, pulse.last_app_consistent
    return every is not None and (last is None or is_over(last, now, every))


def seconds_until_next(relationship: Relationship, pulse: ReplicationPulse, took_s: float, now: datetime) -> float:
    """Until the next cut is due, or the next try to send when that is sooner. ``took_s``: the cycle that ended now."""
    pause = relationship.pace_s - took_s
    return min(pause, _seconds_to_next_try(pulse.waiting, now)) if pulse.waiting else pause


def _seconds_to_next_try(waiting: Waiting, now: datetime) -> float:
    left = (waiting.next_try - now).total_seconds()
    return left if 0 < left <= LONGEST_DELAY_S else 0
