"""What somebody wants of a plan's schedule. Import-light, all immutable values."""

from __future__ import annotations

from activities.contracts import ScheduleVerb
from plans.timetables import Timetable
from vault.access import Access
from vault.domain import Value
from workflows.job_model import Timings
from workflows.run_model import ExerciseRequest


class ScheduleRequest(Value):
    """Change the schedule by which a plan is exercised; the record of who did it, when and why.

    Attributes:
        note: why.
        timetable, exercise: of ``set``: when, and what.
    """

    plan: str
    verb: ScheduleVerb
    by: str
    note: str = ""
    access: Access | None = None
    """Who may; None: everybody."""
    timings: Timings = Timings()
    timetable: Timetable | None = None
    exercise: ExerciseRequest | None = None
