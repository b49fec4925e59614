"""Actions of a Site Recovery plan as steps of a leeward plan, with notes on what is not the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from plans.asr_document import AsrAction, Note, NoteKind, last_part
from plans.steps import RECOVERING, Direction
from plans.yamltext import comment, duration, literal, plain, quoted, template_free
from vault.domain import RunType, Severity

MAX_TITLE = 100
MAX_PATH = 1000
MAX_INSTRUCTIONS = 4000
_ORDER: tuple[RunType, ...] = (*RECOVERING, "cleanup", "commit", "reverse")
_RUNS: dict[str, RunType | None] = {
    "testfailover": "test",
    "test": "test",
    "testfailovercleanup": "cleanup",
    "plannedfailover": "planned",
    "planned": "planned",
    "unplannedfailover": "unplanned",
    "unplanned": "unplanned",
    "failback": "failback",
    "commit": "commit",
    "reversereplicate": "reverse",
    # Phases of Site Recovery that are no run of a plan in leeward.
    "changepit": None,
    "completemigration": None,
    "disableprotection": None,
    "finalizefailback": None,
    "repairreplication": None,
    "switchprotection": None,
}
_DIRECTIONS: dict[str, Direction] = {
    "primarytorecovery": "primary-to-recovery",
    "recoverytoprimary": "recovery-to-primary",
}
_TIMEOUT = re.compile(
    r"P(?:(?P<weeks>\d{1,4})W)?(?:(?P<days>\d{1,5})D)?"
    r"(?:T(?:(?P<hours>\d{1,6})H)?(?:(?P<minutes>\d{1,6})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,6})?)S)?)?",
    re.ASCII | re.IGNORECASE,
)
_CLOCK = re.compile(r"(?:(?P<days>\d{1,5})\.)?(?P<hours>\d{1,6}):(?P<minutes>\d{1,2}):(?P<seconds>\d{1,2})", re.ASCII)
_SECONDS = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


class Step(NamedTuple):
    """A step's lines of YAML, the first without its dash."""

    lines: list[str]


class StepWriter:
    """Writes the steps of one plan; each has a name of its own."""

    def __init__(self, notes: list[Note]) -> None:
        """``notes`` is added to."""
        self._notes = notes
        self._titles: set[str] = set()

    def steps(self, actions: list[AsrAction]) -> list[Step]:
        return [self._step(action) for action in actions]

    def _step(self, action: AsrAction) -> Step:
        when = self._when(action)
        kind = action.kind.lower()
        if kind == "manualactiondetails":
            return self.manual(action.name, action.details.get("description", ""), when, markdown=True)
        if kind == "scriptactiondetails" and 0 < len(action.details.get("path", "")) <= MAX_PATH:
            return self._script(action, when)
        if kind == "automationrunbookactiondetails" and action.details.get("runbookid"):
            return self._runbook(action, when)
        what = f"the kind of action '{action.kind[:60]}' is unknown"
        if kind in ("scriptactiondetails", "automationrunbookactiondetails"):
            what = f"the {'script has no usable path' if kind.startswith('script') else 'runbook has no id'}"
        self.note(
            Severity.FAIL, "action", action.where, what, "it is a manual step that quotes it: replace it by what it did"
        )
        return self.manual(action.name, action.quoted, when)

    def _script(self, action: AsrAction, when: list[str]) -> Step:
        path, place = plain(action.details["path"]), action.details.get("fabriclocation", "")
        self.note(
            Severity.WARN,
            "action",
            action.where,
            f"'{action.name[:80]}' ran {path[:120]} on the {place.lower() or 'site'}'s VMM server",
            "it runs on leeward's host now: put it there, and read LEEWARD_CONTEXT instead of the RecoveryPlanContext",
        )
        command = template_free(f"& '{path.replace(chr(39), chr(39) * 2)}'")
        return Step(
            [
                f"script: {quoted(self._title(action.name))}",
                f"# it ran on the VMM server of the site: {comment(place or 'unknown')}",
                "interpreter: pwsh",
                *self._timeout(action),
                *when,
                f"run: {quoted(command)}",
            ]
        )

    def _runbook(self, action: AsrAction, when: list[str]) -> Step:
        runbook = plain(action.details["runbookid"])
        parts = [part for part in runbook.split("/") if part]
        account = next((parts[i + 1] for i, p in enumerate(parts[:-1]) if p.lower() == "automationaccounts"), "")
        self.note(
            Severity.WARN,
            "action",
            action.where,
            f"'{action.name[:80]}' started the runbook {last_part(runbook)[:80]}",
            "it is a manual step: start it by hand, or replace it by a script that does",
        )
        limit = action.details.get("timeout", "")
        text = f"Start the runbook **{last_part(runbook)}**"
        text += f" of the automation account **{account}**" if account else ""
        place = action.details.get("fabriclocation", "").lower()
        text += f" at the {place} site" if place else ""
        text += f" and wait until it has completed{f' (it had {limit})' if limit else ''}, then approve.\n\n`{runbook}`"
        return self.manual(action.name, text, when, markdown=True)

    def manual(self, name: str, text: str, when: list[str], *, markdown: bool = False) -> Step:
        text = plain(text)
        if len(text) > MAX_INSTRUCTIONS:
            text = f"{text[:MAX_INSTRUCTIONS]} …"
        if not markdown:
            text = "From the imported plan:\n\n" + "\n".join(f"    {line}" for line in text.splitlines())
        lines = [f"manual: {quoted(self._title(name))}", *when]
        return Step(lines + (literal("instructions", template_free(text)) if text.strip() else []))

    def _title(self, name: str) -> str:
        """A step's name: one line, and the only one of its kind in the plan."""
        base = " ".join(comment(name).split())[:MAX_TITLE].strip() or "Unnamed step"
        title, number = base, 1
        while title in self._titles:
            number += 1
            title = f"{base} ({number})"
        self._titles.add(title)
        return title

    def _timeout(self, action: AsrAction) -> list[str]:
        given = action.details.get("timeout", "")
        if not given:
            return []
        seconds = parse_timeout(given)
        if seconds is None:
            self.note(
                Severity.WARN,
                "action",
                action.where,
                f"the timeout '{given[:60]}' is not understood",
                "the step has the usual 10 minutes: give it a timeout",
            )
            return []
        return [f"timeout: {duration(seconds)}"]

    def _when(self, action: AsrAction) -> list[str]:
        """``runs`` and ``directions`` where they are not the defaults, with what has no counterpart noted."""
        ways: list[Direction] = self._known_words(action, action.directions, _DIRECTIONS, "direction")
        runs: list[RunType] = self._known_words(action, action.types, _RUNS, "failover type")
        if action.types is not None and not runs:
            self.note(
                Severity.FAIL,
                "action",
                action.where,
                f"'{action.name[:80]}' is for nothing that a plan of leeward runs",
                "it is kept for every recovery: say in 'runs' when it shall run, or remove it",
            )
        # A planned failover on the way back is a run of its own in leeward.
        if "planned" in runs and ways != ["primary-to-recovery"]:
            runs = [run for run in runs if run != "planned" or ways != ["recovery-to-primary"]] + ["failback"]
        lines = []
        if runs and set(runs) != set(RECOVERING):
            lines.append(f"runs: [{', '.join(run for run in _ORDER if run in runs)}]")
        if len(ways) == 1:
            lines.append(f"directions: [{ways[0]}]")
        return lines

    def _known_words(
        self, action: AsrAction, words: list[str] | None, known: Mapping[str, Any], what: str
    ) -> list[Any]:
        found = []
        for word in words or []:
            meaning = known.get(word.lower())
            if meaning is not None:
                found.append(meaning)
                continue
            has_none = word.lower() in known
            self.note(
                Severity.WARN,
                "action",
                action.where,
                f"the {what} '{word[:60]}' {'has no counterpart in leeward' if has_none else 'is unknown'}",
                f"'{action.name[:60]}' does not run then",
            )
        return list(dict.fromkeys(found))

    def note(self, severity: Severity, kind: NoteKind, where: str, what: str, remedy: str) -> None:
        self._notes.append(Note(severity=severity, kind=kind, where=where, what=what, remedy=remedy))


def parse_timeout(text: str) -> float | None:
    """Seconds of an ISO 8601 duration (``PT1H30M``) or of ``hh:mm:ss``; None for anything else, and for no time."""
    match = _TIMEOUT.fullmatch(text.strip()) or _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    seconds = sum(float(value) * _SECONDS[unit] for unit, value in match.groupdict().items() if value)
    return seconds or None
