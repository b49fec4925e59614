"""The product's one retry schedule (requirements §C.4)."""

from __future__ import annotations

from datetime import timedelta

RECOVERABLE_DELAYS_MINUTES = (1, 2, 4, 8, 10)
LATER_DELAY_MINUTES = 30


def delay_after_failure(failures_in_a_row: int, time_scale: float = 1.0) -> timedelta:
    """How long to wait after the n-th failure in a row: 1, 2, 4, 8, 10 minutes, then always 30.

    Args:
        failures_in_a_row: 1 after the first failure.
        time_scale: below 1 shortens every wait by that factor (lab only).

    Raises:
        ValueError: when ``failures_in_a_row`` is below 1.
    """
    if failures_in_a_row < 1:
        raise ValueError(f"failures_in_a_row must be at least 1, not {failures_in_a_row}")
    if failures_in_a_row <= len(RECOVERABLE_DELAYS_MINUTES):
        minutes = RECOVERABLE_DELAYS_MINUTES[failures_in_a_row - 1]
    else:
        minutes = LATER_DELAY_MINUTES
    return timedelta(minutes=minutes) * time_scale
