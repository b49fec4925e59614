"""Turn a Site Recovery recovery plan into a leeward plan: YAML with comments, and notes on what a person must do.

Nothing is dropped silently. What leeward does in another way is written as near as possible and noted; what it does not
know is kept as a manual step that quotes the source.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from plans.asr_document import AsrAction, AsrGroup, AsrItem, AsrPlan, Note
from plans.asr_steps import Step, StepWriter
from plans.yamltext import comment, plain, quoted
from vault.domain import Severity, Value
from vault.errors import BadInput

MAX_NAME = 63
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Imported(Value):
    """The plan's text and what is left for a person."""

    name: str
    text: str
    notes: list[Note]
    machines: list[str]


class _Group(NamedTuple):
    name: str
    origin: str
    machines: list[tuple[str, str]]
    """Name and remark."""
    before: list[Step]
    after: list[Step]


def import_asr_plan(
    source: AsrPlan,
    machines: Collection[str] | None,
    *,
    name: str | None = None,
    renamed: Mapping[str, str] | None = None,
) -> Imported:
    """The leeward plan for ``source``.

    Args:
        machines: the inventory's; None: there is none to match with.
        name: the plan's name, instead of the source's.
        renamed: a protected item's id, or the last part of it, → the machine's name in the inventory.

    Raises:
        BadInput: the plan has no machines at all, or ``renamed`` names an item that it does not have.
    """
    return _Import(source, machines, dict(renamed or {})).plan(name)


class _Import:
    def __init__(self, source: AsrPlan, machines: Collection[str] | None, renamed: dict[str, str]) -> None:
        self._source = source
        self._known = machines
        for given in renamed.values():
            _check_name(given, "--map")
        self._renamed = {key.lower(): value for key, value in renamed.items()}
        self._unused = dict(renamed)
        self._notes = list(source.notes)
        self._writer = StepWriter(self._notes)
        self._placed: dict[str, AsrItem] = {}
        self._before: list[Step] = []

    def plan(self, name: str | None) -> Imported:
        groups = self._groups()
        if not groups:
            raise BadInput(
                f"the plan '{self._source.name[:60]}' protects no machine",
                remedy="export it after machines were added to its groups",
            )
        if self._unused:
            raise BadInput(
                f"no protected item of the plan is called '{next(iter(self._unused))}'",
                where="--map",
                remedy="the plan has: " + ", ".join(sorted(item.name for item in self._items())[:14]),
            )
        if name is not None:
            _check_name(name, "--name")
        plan_name = name or self._sanitised(self._source.name, "plan")
        lines = [*self._head(plan_name)]
        lines += self._section("before", self._before, "")
        lines.append("groups:")
        for index, group in enumerate(groups):
            lines += [*([""] if index else []), *self._group_lines(group)]
        lines += ["", "commit: manual", "reverse_replication: manual"]
        return Imported(name=plan_name, text="\n".join(lines) + "\n", notes=self._notes, machines=list(self._placed))

    # -- groups --------------------------------------------------------------------------------------------------

    def _items(self) -> Iterable[AsrItem]:
        return (item for group in self._source.groups for item in group.items)

    def _groups(self) -> list[_Group]:
        """Groups that hold machines; the steps of those without any move to a neighbour, so that the order stays."""
        groups: list[_Group] = []
        waiting: list[Step] = []
        for group in self._source.groups:
            kind = group.kind.lower()
            if kind == "shutdown":
                self._before += self._writer.steps(group.start)
                waiting += self._moved(group.end, "after the shutdown")
            elif kind == "failover":
                waiting += self._moved(group.start, "before the failover")
                waiting += self._moved(group.end, "between making the machines and starting them")
            else:
                known = kind == "boot"
                before = [*waiting, *([] if known else [self._unknown_group(group)]), *self._writer.steps(group.start)]
                after, machines = self._writer.steps(group.end), self._machines(group.items)
                waiting = []
                if machines:
                    number = len(groups) + 1
                    title = f"group-{number}" if known else self._sanitised(f"{group.kind[:40]}-{number}", "group")
                    groups.append(_Group(title, f"{group.kind or 'no type'}, {group.where}", machines, before, after))
                else:
                    self._without_machines(group, bool(before or after))
                    waiting = [*before, *after]
        left_over = self._machines_outside_boot_groups()
        if left_over:
            groups.append(_Group("not-started", "in no boot group of the source", left_over, waiting, []))
        elif groups:
            groups[-1].after.extend(waiting)
        return groups

    def _moved(self, actions: list[AsrAction], moment: str) -> list[Step]:
        for action in actions:
            self._writer.note(
                Severity.WARN,
                "action",
                action.where,
                f"'{action.name[:80]}' ran {moment}; leeward makes and starts a group's machines in one go",
                "it runs before the first group now: check that this is the right moment",
            )
        return self._writer.steps(actions)

    def _without_machines(self, group: AsrGroup, has_steps: bool) -> None:
        if has_steps:
            self._writer.note(
                Severity.WARN,
                "group",
                group.where,
                "a group without machines; its steps moved to the next group, or the end of the last one",
                "check the order of the steps",
            )

    def _unknown_group(self, group: AsrGroup) -> Step:
        self._writer.note(
            Severity.FAIL,
            "group",
            group.where,
            f"the group type '{group.kind[:60]}' is unknown",
            "its machines are recovered in its place: decide whether that is right, then remove the manual step",
        )
        return self._writer.manual(f"Decide about the group of type {group.kind or 'none'}", group.quoted, [])

    def _machines_outside_boot_groups(self) -> list[tuple[str, str]]:
        found = []
        for group in self._source.groups:
            if group.kind.lower() not in ("shutdown", "failover"):
                continue
            for item in group.items:
                if self._lookup(item)[0] not in self._placed:
                    self._writer.note(
                        Severity.WARN,
                        "machine",
                        item.where,
                        f"'{item.name[:80]}' is in no boot group: it was failed over and not started",
                        "it stays off; move it to a group and remove 'start: false' if it shall run",
                    )
                    found += self._machines([item])
        return found

    # -- machines ------------------------------------------------------------------------------------------------

    def _machines(self, items: list[AsrItem]) -> list[tuple[str, str]]:
        found = []
        for item in items:
            name, how = self._lookup(item)
            for identifier in item.ids:
                self._unused = {key: value for key, value in self._unused.items() if key.lower() != identifier.lower()}
            earlier = self._placed.get(name)
            if earlier is not None and not set(earlier.ids).isdisjoint(item.ids):
                self._writer.note(
                    Severity.WARN,
                    "machine",
                    item.where,
                    f"'{name}' is in the plan twice, first at {earlier.where}",
                    "it is kept where it was first",
                )
                continue
            if earlier is not None:
                name, how = self._unlike(name), "unknown"
            self._placed[name] = item
            found.append((name, self._unmatched(item, name) if how == "unknown" else how))
        return found

    def _unlike(self, name: str) -> str:
        """A name that no other machine of the plan has: two items must not become one because of their letters."""
        number = 2
        while f"{name[:55]}-{number}" in self._placed:
            number += 1
        return f"{name[:55]}-{number}"

    def _lookup(self, item: AsrItem) -> tuple[str, str]:
        """The machine's name and a comment: how it was found when that is not obvious, ``unknown`` when it was not."""
        for identifier in item.ids:
            if identifier.lower() in self._renamed:
                name = self._renamed[identifier.lower()]
                return name, f"was {item.name}" if self._known is None or name in self._known else "unknown"
        name = self._sanitised(item.name, "unnamed-machine")
        if self._known is None or name in self._known:
            return name, ""
        alike = [known for known in self._known if _folded(known) == _folded(name)]
        if len(alike) == 1:
            return alike[0], f"was {item.name}"
        return name, "unknown"

    def _unmatched(self, item: AsrItem, name: str) -> str:
        close = difflib.get_close_matches(name, sorted(self._known or ()), n=2, cutoff=0.55)
        hint = f": is it {' or '.join(close)}?" if close else ""
        self._writer.note(
            Severity.FAIL,
            "machine",
            item.where,
            f"'{item.name[:80]}' is not in the inventory{hint}",
            f"import again with --map {item.name[:80]}=NAME, or add the machine to the inventory",
        )
        return f"not in the inventory{hint}"

    def _sanitised(self, name: str, otherwise: str) -> str:
        clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:MAX_NAME].rstrip("-._")
        return clean or otherwise

    # -- text ----------------------------------------------------------------------------------------------------

    def _head(self, name: str) -> list[str]:
        origin = f"{self._source.primary or 'its primary site'} to {self._source.recovery or 'its recovery site'}"
        lines = [
            f"# Imported from the Azure Site Recovery plan {comment(self._source.name)}.",
            "# Review it like a new plan: check it, then test it.",
        ]
        if self._notes:
            lines += ["#", "# Left to do:"]
            lines += [f"# - {comment(f'{note.where}: {note.what} — {note.remedy}')}" for note in self._notes]
        return [*lines, "", f"plan: {quoted(name)}", f"description: {quoted(f'Recovers from {plain(origin)}')}", ""]

    def _section(self, name: str, steps: list[Step], indent: str) -> list[str]:
        if not steps:
            return []
        lines = [f"{indent}{name}:"]
        for step in steps:
            first, *rest = step.lines
            lines += [f"{indent}  - {first}", *(f"{indent}    {line}" if line else "" for line in rest)]
        return lines

    def _group_lines(self, group: _Group) -> list[str]:
        stays_off = group.name == "not-started"
        lines = [f"  - name: {quoted(group.name)}  # {comment(group.origin)}", "    machines:"]
        for name, remark in group.machines:
            entry = f"      - machine: {quoted(name)}" if stays_off else f"      - {quoted(name)}"
            lines.append(entry + (f"  # {comment(remark)}" if remark else ""))
            lines += ["        start: false"] if stays_off else []
        return [*lines, *self._section("before", group.before, "    "), *self._section("after", group.after, "    ")]


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _check_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"'{name[:80]}' is not a valid name",
            where=where,
            remedy="use letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 63 characters",
        )
