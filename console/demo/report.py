"""The demo's HTML report: one file, no network, readable in print."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from console.demo.model import DemoResult, PhaseResult
from console.output import seconds, size
from vault.domain import utc


class Bar(NamedTuple):
    """One phase in the timeline, in percent of the whole."""

    label: str
    left: float
    width: float
    took: str
    is_bad: bool


def write_report(result: DemoResult, plan_text: str, path: Path) -> None:
    """Write the report; the folder must exist."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(loader=PackageLoader("console.demo"), autoescape=True, undefined=StrictUndefined)
    templates.filters |= {"seconds": seconds, "size": size, "utc": utc}
    html = templates.get_template("report.html.j2").render(
        result=result, bars=_timeline(result), plan_text=plan_text, runs=[p for p in result.phases if p.run is not None]
    )
    path.write_text(html)


def _timeline(result: DemoResult) -> list[Bar]:
    whole = max(result.duration_s, 0.001)
    return [
        Bar(
            label=phase.phase,
            left=100 * (phase.began - result.began).total_seconds() / whole,
            width=max(0.4, 100 * phase.duration_s / whole),
            took=seconds(phase.duration_s),
            is_bad=_is_bad(phase),
        )
        for phase in result.phases
    ]


def _is_bad(phase: PhaseResult) -> bool:
    return bool(phase.troubles) or (phase.run is not None and phase.run.state != "completed")
