"""``docs/performance.md`` and its chart, from ``bench/results.json``: ``python -m bench.page``."""

from __future__ import annotations

import json
import math
from pathlib import Path

from bench.measuring import RESULTS
from plans.svg import BAD, CALM, GOOD, INK, LINE, PAPER, QUIET, Drawing

ROOT = Path(__file__).parents[1]
PAGE, CHART = ROOT / "docs" / "performance.md", ROOT / "docs" / "images" / "performance.svg"

WHAT = {
    "initial-tls": "Initial replication, process server → master target: compressed, encrypted, over mutual TLS",
    "initial": "Initial replication into a local replica, compared and checksummed, neither compressed nor encrypted",
    "delta-1pct": "One recovery point after 1 % random 4 KiB writes",
    "delta-2600-blocks": "The same change on a 64 GiB sparse disk as on a small one: cost follows the change",
    "resync-unchanged": "Resynchronization of a pair that is equal",
    "resync-layered": "The same with three recovery points of 1 % changes over the base image",
    "azure-initial": "Initial replication into a page blob (Azurite, over TLS)",
    "azure-delta-1pct": "One recovery point after 1 % random writes, into a page blob (Azurite, over TLS)",
    "azure-materialise": "Reading a recovery point back from a page blob (Azurite, over TLS)",
    "plan": "Planned failover by a plan in ten groups, against as many empty activities of a bare Temporal worker",
    "discovery": "Discovering machines on 20 simulated Hyper-V hosts over WinRM, at most two calls each, against "
    "the waiting that the latency of requests alone costs; the goal is 20 s besides",
}
HEAD = """# Performance

Measured by `make bench`, which writes [`bench/results.json`](../bench/results.json), this page and its chart. Every row
is a ratio against a peer, or against a limit of the machine, measured in the same run: **above 1 leeward is faster**.
Times depend on the machine, ratios much less.

![Ratios against peers and limits](images/performance.svg)

"""
FOOT = """
The image of the replication benches is a quarter random, half compressible and a quarter zeros, interleaved. A *limit*
is one stage of the work alone in one thread, the slowest of them all; nobody can beat it, and two stages that share a
core cannot both reach theirs. A row that misses its goal says so.
"""

ROW, LEFT, RIGHT, TOP, BAR = 24, 400, 560, 40, 12
LOWEST, HIGHEST = 0.05, 100.0


def main() -> None:
    rows = json.loads(RESULTS.read_text())
    PAGE.write_text(page(rows))
    CHART.write_text(chart(rows))


def page(rows: list[dict[str, object]]) -> str:
    parts = [HEAD]
    for bench in dict.fromkeys(str(row["bench"]) for row in rows):
        measured = [row for row in rows if row["bench"] == bench]
        parts.append(f"## `{bench}`\n\n{what(bench)}.\n\n")
        parts.append("| peer | leeward | peer | ratio | goal | |\n|---|---|---|---|---|---|\n")
        parts += [_line(row) for row in measured]
        parts.append(f"\n{measured[0]['date']}, {measured[0]['machine']}.\n\n")
    return "".join(parts).rstrip("\n") + "\n" + FOOT


def what(bench: str) -> str:
    """The sentence of a bench; names end with the size it was run with."""
    return WHAT[bench.rpartition("-")[0]]


def _line(row: dict[str, object]) -> str:
    goal = f"{row['goal']:.3g}" if row["goal"] is not None else ""
    verdict = "" if row["goal"] is None else "met" if _met(row) else "**missed**"
    return (
        f"| {row['peer']} | {row['ours_s']:.3g} s | {row['peer_s']:.3g} s | {row['ratio']:.3g} | {goal} | {verdict} |\n"
    )


def _met(row: dict[str, object]) -> bool:
    return float(str(row["ratio"])) >= float(str(row["goal"]))


def chart(rows: list[dict[str, object]]) -> str:
    """A bar for each ratio on a logarithmic scale; a mark where its goal is."""
    drawing = Drawing("leeward against its peers and limits: ratios above 1 mean that leeward is faster")
    height = TOP + ROW * len(rows) + 30
    drawing.rect(0, 0, LEFT + RIGHT + 70, height, fill=PAPER)
    for ratio in (0.1, 1.0, 10.0, 100.0):
        drawing.line(_x(ratio), TOP - 8, _x(ratio), height - 20, stroke=QUIET if ratio == 1 else LINE)
        drawing.text(_x(ratio), TOP - 14, f"{ratio:g}×", size=11, fill=QUIET, anchor="middle")
    for number, row in enumerate(rows):
        _bar(drawing, TOP + ROW * number, row)
    drawing.text(LEFT, height - 6, "above 1: leeward is faster; the mark is the goal", size=11, fill=QUIET)
    return drawing.svg(LEFT + RIGHT + 70, height)


def _bar(drawing: Drawing, y: float, row: dict[str, object]) -> None:
    ratio = float(str(row["ratio"]))
    colour = CALM if row["goal"] is None else GOOD if _met(row) else BAD
    drawing.text(LEFT - 12, y + BAR, f"{row['bench']}  ·  {row['peer']}", size=12, anchor="end")
    start, end = sorted((_x(1.0), _x(ratio)))
    drawing.rect(start, y + 2, max(end - start, 1), BAR, fill=colour, radius=2)
    drawing.text(LEFT + RIGHT + 10, y + BAR, f"{ratio:.3g}×", size=12, fill=colour, bold=True)
    if row["goal"] is not None:
        at = _x(float(str(row["goal"])))
        drawing.line(at, y, at, y + BAR + 4, stroke=INK, width=2)


def _x(ratio: float) -> float:
    share = math.log(min(max(ratio, LOWEST), HIGHEST) / LOWEST) / math.log(HIGHEST / LOWEST)
    return LEFT + RIGHT * share


if __name__ == "__main__":
    main()
