"""HTML pages of reports: one file each, no network, readable in print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports.model import Report
from reports.timeline import timeline
from reports.trend import PlanReadiness, trend_chart
from vault.domain import utc
from vault.words import seconds, size

VERDICTS = {
    "passed": "Passed",
    "remarks": "Completed, with remarks",
    "failed": "Failed",
    "refused": "Refused: nothing was changed",
    "cancelled": "Cancelled",
}


def report_page(report: Report) -> str:
    """The report of one run."""
    outputs = [(stage, row) for stage in report.run.stages for row in stage.steps if row.output.strip()]
    return _page(
        "report.html.j2",
        report=report,
        run=report.run,
        measured=report.measured,
        plan=report.plan,
        timeline=_markup(timeline(report.run)),
        outputs=outputs,
    )


def readiness_page(plans: list[PlanReadiness], made: str) -> str:
    """Readiness over all plans, with the trend of each one's recovery time."""
    charts = {plan.plan: _markup(trend_chart(plan)) for plan in plans if plan.trend}
    return _page("readiness.html.j2", plans=plans, charts=charts, made=made)


def _markup(svg: str) -> Any:
    """A picture of ours, whose texts are escaped already."""
    from markupsafe import Markup

    return Markup(svg)


def _page(template: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"seconds": seconds, "size": size, "utc": utc}
    return templates.get_template(template).render(**values, verdicts=VERDICTS)
