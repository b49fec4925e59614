"""A plan, or a run of it, as a picture: stages from top to bottom, steps and machines from left to right."""

from __future__ import annotations

from typing import NamedTuple

from plans.model import DEFAULT_PRIORITY, Plan, PlanMachine
from plans.stages import Stage, StageKind, stages, start_waves
from plans.steps import RECOVERING, Direction, Step
from plans.svg import AMBER, CALM, INK, LINE, PAPER, QUIET, Drawing, fitted, text_width, wrapped
from plans.words import does, words
from plans.yamltext import duration
from vault.domain import RunType
from vault.words import counted

WIDTH = 980.0
MARGIN = 20.0
BOX = 258.0
GAP = 20.0
ROW_GAP = 10.0
PAD = 16.0
HEAD = 34.0
WORDS = 86.0
"""The column that says what a row is."""
BETWEEN = 24.0
PER_ROW = 3
LINE_HEIGHT = 15.0
COLOURS = {
    "machine": CALM,
    "script": "#0f766e",
    "check": "#6d4bb0",
    "call": "#9d4a72",
    "manual": AMBER,
    "wait": "#8795a3",
}


class _Box(NamedTuple):
    kind: str
    label: str
    detail: str


class _Stage(NamedTuple):
    """``rows``: what happens one after the other; the boxes of one row are there together (machines of a wave)."""

    title: str
    note: str
    rows: list[tuple[str, list[_Box]]]


def plan_graph(plan: Plan, run_type: RunType | None = None, direction: Direction | None = None) -> str:
    """The picture as SVG text: of the plan as it is written, or of what a run of one type does."""
    return _Picture(plan, _run(plan, run_type, direction) if run_type else _written(plan), run_type).drawn()


def _written(plan: Plan) -> list[_Stage]:
    parts = [_Stage("before everything", "", _steps("step by step", plan.before))] if plan.before else []
    for group in plan.groups:
        rule = f"a failed step: {group.on_failure}" if group.on_failure else ""
        parts.append(
            _Stage(
                group.name,
                rule,
                [*_steps("before", group.before), *_waves(start_waves(group.machines)), *_steps("after", group.after)],
            )
        )
    return [*parts, *([_Stage("after everything", "", _steps("step by step", plan.after))] if plan.after else [])]


def _run(plan: Plan, run_type: RunType, direction: Direction | None) -> list[_Stage]:
    return [
        _Stage(
            stage.title,
            "",
            [
                *_steps("before", stage.before),
                *_waves(stage.waves, starts=stage.kind is StageKind.RECOVER),
                *_steps("after", stage.after),
            ],
        )
        for stage in stages(plan, run_type, direction)
        if _does_something(stage)
    ]


def _does_something(stage: Stage) -> bool:
    return bool(stage.machines or stage.before or stage.after)


def _steps(word: str, steps: list[Step]) -> list[tuple[str, list[_Box]]]:
    """Steps go one after the other; as many as fit stand in a row, joined by arrows."""
    boxes = [_Box(step.kind, step.name, _what(step)) for step in steps]
    return [(word if index == 0 else "", boxes[index : index + PER_ROW]) for index in range(0, len(boxes), PER_ROW)]


def _waves(waves: list[list[PlanMachine]], *, starts: bool = True) -> list[tuple[str, list[_Box]]]:
    rows = []
    for number, wave in enumerate(waves):
        rows += [row for entry in wave for row in _steps(f"before {entry.machine}", entry.before)]
        boxes = [_Box("machine", entry.machine, _settings(entry) if starts else "") for entry in wave]
        word = "machines" if number == 0 else "then"
        rows += [
            (word if index == 0 else "", boxes[index : index + PER_ROW]) for index in range(0, len(boxes), PER_ROW)
        ]
        rows += [row for entry in wave for row in _steps(f"after {entry.machine}", entry.after)]
    return rows


def _settings(entry: PlanMachine) -> str:
    if not entry.start:
        return "stays off"
    notes = [f"priority {entry.priority}"] if entry.priority != DEFAULT_PRIORITY else []
    notes += [wish] if (wish := words(entry.target.in_run("planned"))) else []
    notes += [f"after {', '.join(entry.depends_on)}"] if entry.depends_on else []
    notes += [f"starts {duration(entry.start_delay)} later"] if entry.start_delay else []
    return "; ".join(notes)


def _what(step: Step) -> str:
    notes = [does(step)]
    notes += [f"only {', '.join(step.runs)}"] if tuple(step.runs) != RECOVERING else []
    return "; ".join(notes)


class _Picture:
    def __init__(self, plan: Plan, parts: list[_Stage], run_type: RunType | None) -> None:
        self._plan = plan
        self._parts = parts
        self._run_type = run_type
        self._drawing = Drawing(f"Recovery plan {plan.name}" + (f", {run_type} run" if run_type else ""))
        self._y = MARGIN

    def drawn(self) -> str:
        self._heading()
        for index, part in enumerate(self._parts):
            if index:
                self._arrow_down()
            self._stage(index + 1, part)
        self._legend()
        return self._drawing.svg(WIDTH, self._y + MARGIN)

    def _heading(self) -> None:
        title = self._plan.name + (f": {self._run_type} run" if self._run_type else "")
        self._drawing.text(MARGIN, self._y + 16, fitted(title, WIDTH - 2 * MARGIN, 18), size=18, bold=True)
        facts = f"{counted(len(self._plan.machines), 'machine')} in {counted(len(self._plan.groups), 'group')}"
        facts += f"; recovery time objective {duration(self._plan.rto)}" if self._plan.rto else ""
        if self._run_type is None:
            facts += f"; a failed step: {self._plan.on_failure}; commit: {self._plan.commit}"
        self._drawing.text(MARGIN, self._y + 35, facts, size=12, fill=QUIET)
        self._y += 52

    def _arrow_down(self) -> None:
        x = WIDTH / 2
        self._drawing.line(x, self._y, x, self._y + BETWEEN - 6, stroke=QUIET, width=1.4)
        self._drawing.path(
            f"M {x - 5:.1f} {self._y + BETWEEN - 9:.1f} L {x:.1f} {self._y + BETWEEN - 2:.1f}"
            f" L {x + 5:.1f} {self._y + BETWEEN - 9:.1f}",
            stroke=QUIET,
            width=1.4,
        )
        self._y += BETWEEN

    def _stage(self, number: int, part: _Stage) -> None:
        heights = [max(_height(box) for box in boxes) for _, boxes in part.rows]
        height = HEAD + sum(heights) + ROW_GAP * (len(heights) - 1) + PAD
        self._drawing.rect(MARGIN, self._y, WIDTH - 2 * MARGIN, height, fill="#f6f8fa", stroke=LINE, radius=6)
        room = WIDTH - 2 * MARGIN - 2 * PAD - text_width(part.note, 11) - 10
        self._drawing.text(MARGIN + PAD, self._y + 22, fitted(f"{number}. {part.title}", room, 14), size=14, bold=True)
        self._drawing.text(WIDTH - MARGIN - PAD, self._y + 22, part.note, size=11, fill=QUIET, anchor="end")
        y = self._y + HEAD
        for (word, boxes), row_height in zip(part.rows, heights, strict=True):
            self._drawing.text(MARGIN + PAD, y + 19, fitted(word, WORDS - 6, 11), size=11, fill=QUIET)
            self._row(y, boxes, row_height)
            y += row_height + ROW_GAP
        self._y += height

    def _row(self, y: float, boxes: list[_Box], height: float) -> None:
        middle = y + height / 2
        for index, box in enumerate(boxes):
            x = MARGIN + PAD + WORDS + index * (BOX + GAP)
            if index and box.kind != "machine":
                self._drawing.path(
                    f"M {x - GAP + 3:.1f} {middle:.1f} L {x - 3:.1f} {middle:.1f}"
                    f" M {x - 7:.1f} {middle - 4:.1f} L {x - 3:.1f} {middle:.1f} L {x - 7:.1f} {middle + 4:.1f}"
                )
            self._box(x, y, box, height)

    def _box(self, x: float, y: float, box: _Box, height: float) -> None:
        hint = f"{box.kind}: {box.label}{f' ({box.detail})' if box.detail else ''}"
        self._drawing.rect(x, y, BOX, height, fill=PAPER, stroke="#b9c4cf", radius=4, hint=hint)
        self._drawing.rect(x, y, 5, height, fill=COLOURS[box.kind], radius=2)
        lines = _label(box)
        baseline = y + (height - (len(lines) + bool(box.detail)) * LINE_HEIGHT) / 2 + 11.5
        for number, line in enumerate(lines):
            bold = box.kind == "machine"
            self._drawing.text(x + 14, baseline + number * LINE_HEIGHT, line, size=12.5, fill=INK, bold=bold)
        if box.detail:
            detail = fitted(box.detail, BOX - 22, 10.5)
            self._drawing.text(x + 14, baseline + len(lines) * LINE_HEIGHT, detail, size=10.5, fill=QUIET)

    def _legend(self) -> None:
        used = [
            kind for kind in COLOURS if any(box.kind == kind for p in self._parts for _, row in p.rows for box in row)
        ]
        x, self._y = MARGIN, self._y + 24
        for kind in used:
            self._drawing.rect(x, self._y - 9, 10, 10, fill=COLOURS[kind], radius=2)
            self._drawing.text(x + 15, self._y, kind, size=11, fill=QUIET)
            x += 15 + text_width(kind, 11) + 20


def _label(box: _Box) -> list[str]:
    return wrapped(box.label, BOX - 22, 12.5, 2)


def _height(box: _Box) -> float:
    return 16 + LINE_HEIGHT * (len(_label(box)) + bool(box.detail))
