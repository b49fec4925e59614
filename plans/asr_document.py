"""An exported Azure Site Recovery recovery plan, as it is written: found in its file, its texts resolved.

Read are an ARM template with the plan among its resources, nested or not, the bare resource, and what the REST
interface or a cmdlet answers. Names of keys are compared without their case, as Azure does.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from plans.arm_expressions import CannotTell, Template, is_expression, resolve
from vault.domain import Severity, Value
from vault.errors import BadInput
from vault.validation import did_you_mean

RESOURCE_TYPE = "microsoft.recoveryservices/vaults/replicationrecoveryplans"
MAX_BYTES = 16 * 2**20
MAX_NESTING = 40
_QUOTE = 2000
"""Characters of an unknown part that are quoted."""
NoteKind = Literal["plan", "group", "machine", "action", "expression", "setting"]


class Note(Value):
    """Something a person should look at after an import. ``fail``: the plan does not load or does nothing until then.

    ``where`` is the place in the source, like ``properties.groups[2].startGroupActions[0]``.
    """

    severity: Severity
    kind: NoteKind
    where: str
    what: str
    remedy: str


class AsrAction(Value):
    """``kind`` is the action's ``instanceType``; ``details`` are its texts by their lower-case names."""

    name: str
    kind: str
    details: dict[str, str]
    types: list[str] | None
    directions: list[str] | None
    where: str
    quoted: str
    """The whole action as JSON, for what an import cannot turn into a step."""


class AsrItem(Value):
    """A protected item: the last part of its id, and every name it can be mapped by."""

    name: str
    ids: list[str]
    where: str


class AsrGroup(Value):
    kind: str
    items: list[AsrItem]
    start: list[AsrAction]
    end: list[AsrAction]
    where: str
    quoted: str


class AsrPlan(Value):
    name: str
    primary: str
    recovery: str
    groups: list[AsrGroup]
    notes: list[Note]


def read_asr_plan(raw: bytes, file: str, resource: str | None = None) -> AsrPlan:
    """The plan in an exported file.

    Args:
        resource: which of several plans, by name.

    Raises:
        BadInput: the file is no JSON, holds no recovery plan, or several of them and ``resource`` names none.
    """
    document = _json(raw, file)
    found = list(_plans(document, Template({}, {}), 0))
    if not found:
        raise BadInput(
            "there is no Site Recovery recovery plan in this file",
            where=file,
            remedy="export the resource microsoft.recoveryservices/vaults/replicationRecoveryPlans as JSON",
        )
    named = [_Parts(template, where).plan(plan) for plan, template, where in found]
    chosen = [plan for plan in named if resource is None or plan.name == resource]
    if len(chosen) == 1:
        return chosen[0]
    names = [plan.name for plan in named]
    if resource is not None and not chosen:
        raise BadInput(f"no plan '{resource}' in this file", where=file, remedy=did_you_mean(resource, names))
    raise BadInput(
        f"there are {len(named)} recovery plans in this file",
        where=file,
        remedy=f"choose one with --resource: {', '.join(sorted(set(names)))}",
    )


def _json(raw: bytes, file: str) -> Any:
    if len(raw) > MAX_BYTES:
        raise BadInput(f"the file is larger than {MAX_BYTES // 2**20} MiB", where=file, remedy="export one plan alone")
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        # Redirecting a cmdlet's output in Windows PowerShell writes UTF-16.
        return json.loads(raw.decode("utf-16" if wide else "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput("the file is not UTF-8 text", where=file, remedy="save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise BadInput(
            f"the file is not JSON: {error.msg.lower()}",
            where=f"{file}:{error.lineno}:{error.colno}",
            remedy="export the plan as JSON; Bicep has to be built first: bicep build FILE",
        ) from error
    except (RecursionError, ValueError) as error:
        raise BadInput("the file is nested too deeply, or has numbers too long", where=file) from error


def get(mapping: Any, key: str) -> Any:
    """The value of a key, whatever its case; None where there is none or ``mapping`` is no mapping."""
    if not isinstance(mapping, Mapping):
        return None
    if key in mapping:
        return mapping[key]
    return next((value for name, value in mapping.items() if name.lower() == key.lower()), None)


def _plans(node: Any, template: Template, depth: int, where: str = "") -> Iterator[tuple[Any, Template, str]]:
    """Every recovery plan below ``node`` with the template it is part of."""
    if depth > MAX_NESTING:
        return
    if isinstance(node, list):
        for index, entry in enumerate(node):
            yield from _plans(entry, template, depth + 1, f"{where}[{index}]")
        return
    if not isinstance(node, Mapping):
        return
    if _is_plan(node):
        yield node, template, where
        return
    inner = Template(_mapping(get(node, "parameters")), _mapping(get(node, "variables")))
    template = inner if get(node, "resources") is not None and (inner.parameters or inner.variables) else template
    for key in ("resources", "value", "properties", "template"):
        below = get(node, key)
        if key == "resources" and isinstance(below, Mapping):
            below = list(below.values())
        yield from _plans(below, template, depth + 1, f"{where}.{key}".lstrip("."))


def _is_plan(node: Mapping[str, Any]) -> bool:
    kind = get(node, "type")
    # A nested resource has the last part of its type alone.
    if isinstance(kind, str) and kind.lower() in (RESOURCE_TYPE, "replicationrecoveryplans"):
        return True
    groups = get(node, "groups") if get(node, "groups") is not None else get(get(node, "properties"), "groups")
    return isinstance(groups, list) and any(get(group, "groupType") is not None for group in groups)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class _Parts:
    """Reads one plan; what is not as documented becomes a note, never an exception."""

    def __init__(self, template: Template, where: str) -> None:
        self._template = template
        self._where = where
        self._notes: list[Note] = []

    def plan(self, node: Mapping[str, Any]) -> AsrPlan:
        nested = get(node, "properties")
        properties = nested if isinstance(nested, Mapping) else node
        place = self._at("properties") if isinstance(nested, Mapping) else self._where
        friendly = get(properties, "friendlyName")
        name = self.text(friendly if friendly is not None else get(node, "name"), self._at("name"))
        groups = [
            self._group(group, f"{place}.groups[{index}]".lstrip("."))
            for index, group in enumerate(self.entries(get(properties, "groups"), f"{place}.groups".lstrip(".")))
        ]
        fabrics = [
            last_part(self.text(get(properties, key), f"{place}.{key}".lstrip(".")))
            for key in ("primaryFabricId", "recoveryFabricId")
        ]
        self._settings(properties, place)
        return AsrPlan(name=last_part(name), primary=fabrics[0], recovery=fabrics[1], groups=groups, notes=self._notes)

    def _at(self, key: str) -> str:
        return f"{self._where}.{key}".lstrip(".")

    def _settings(self, properties: Mapping[str, Any], place: str) -> None:
        if str(get(properties, "failoverDeploymentModel") or "").lower() == "classic":
            where = f"{place}.failoverDeploymentModel".lstrip(".")
            self.note(
                Severity.WARN, "setting", where, "the plan recovers to classic cloud services", "plan new networks"
            )
        for key in ("providerSpecificInput", "providerSpecificDetails"):
            for index, entry in enumerate(self.entries(get(properties, key), key) if get(properties, key) else []):
                kind = str(get(entry, "instanceType") or "unknown")
                extra = sorted(name for name in _mapping(entry) if name.lower() != "instancetype")
                if extra:
                    self.note(
                        Severity.WARN,
                        "setting",
                        f"{place}.{key}[{index}]".lstrip("."),
                        f"settings of the provider {kind[:60]} are not taken over: {', '.join(extra)[:200]}",
                        "say where machines are recovered in the inventory: site, network mapping",
                    )

    def _group(self, node: Any, where: str) -> AsrGroup:
        items = [
            self._item(item, f"{where}.replicationProtectedItems[{index}]")
            for index, item in enumerate(
                self.entries(get(node, "replicationProtectedItems"), f"{where}.replicationProtectedItems")
            )
        ]
        start, end = (
            [
                self._action(action, f"{where}.{key}[{index}]")
                for index, action in enumerate(self.entries(get(node, key), f"{where}.{key}"))
            ]
            for key in ("startGroupActions", "endGroupActions")
        )
        kind = self.text(get(node, "groupType"), f"{where}.groupType")
        return AsrGroup(kind=kind, items=items, start=start, end=end, where=where, quoted=quoted(node))

    def _item(self, node: Any, where: str) -> AsrItem:
        if isinstance(node, str):
            node = {"id": node}
        given, machine = (get(node, key) for key in ("id", "virtualMachineId"))
        texts = [self.text(value, f"{where}.{key}") for value, key in ((given, "id"), (machine, "virtualMachineId"))]
        names = [last_part(text) for text in texts]
        return AsrItem(
            name=names[0] or names[1], ids=[text for text in dict.fromkeys([*texts, *names]) if text], where=where
        )

    def _action(self, node: Any, where: str) -> AsrAction:
        details = get(node, "customDetails")
        return AsrAction(
            name=self.text(get(node, "actionName"), f"{where}.actionName"),
            kind=self.text(get(details, "instanceType"), f"{where}.customDetails.instanceType"),
            details={
                key.lower(): self.text(value, f"{where}.customDetails.{key}")
                for key, value in _mapping(details).items()
                if key.lower() != "instancetype" and isinstance(value, str)
            },
            types=self._words(get(node, "failoverTypes"), f"{where}.failoverTypes"),
            directions=self._words(get(node, "failoverDirections"), f"{where}.failoverDirections"),
            where=where,
            quoted=quoted(node),
        )

    def _words(self, value: Any, where: str) -> list[str] | None:
        if value is None:
            return None
        return [self.text(word, f"{where}[{index}]") for index, word in enumerate(self.entries(value, where))]

    def entries(self, value: Any, where: str) -> list[Any]:
        """The list at a place; anything else is noted and taken for an empty one."""
        if isinstance(value, str) and is_expression(value):
            self.note(
                Severity.FAIL,
                "expression",
                where,
                f"only a deployment can tell what {value[:120]} holds",
                "export the deployed plan instead of its template",
            )
            return []
        if value is None or isinstance(value, list):
            return value or []
        self.note(Severity.FAIL, "setting", where, "this is not a list as it should be", "correct the export")
        return []

    def text(self, value: Any, where: str) -> str:
        """A text with its expression resolved; one that cannot be is kept as it is, and noted."""
        if value is None:
            return ""
        if not isinstance(value, str):
            self.note(
                Severity.WARN, "setting", where, f"this is not a text: {quoted(value)[:80]}", "check what it means"
            )
            return quoted(value)
        try:
            found = resolve(value, self._template)
        except CannotTell as reason:
            self.note(
                Severity.FAIL,
                "expression",
                where,
                f"{value[:120]} cannot be resolved: {reason}",
                "write what it stands for into the plan",
            )
            return value
        if found.used:
            self.note(
                Severity.WARN,
                "expression",
                where,
                f"'{found.text[:80]}' comes from the default of {', '.join(dict.fromkeys(found.used))}",
                "check that it is what was deployed",
            )
        return found.text

    def note(self, severity: Severity, kind: NoteKind, where: str, what: str, remedy: str) -> None:
        self._notes.append(Note(severity=severity, kind=kind, where=where, what=what, remedy=remedy))


def last_part(name: str) -> str:
    """The last part of a resource id; of an unresolved expression the last text in it."""
    if is_expression(name):
        texts = name.split("'")[1::2]
        name = texts[-1] if texts else name.strip("[]")
    return name.rstrip("/").rsplit("/", 1)[-1].strip()


def quoted(node: Any) -> str:
    """A part of the source as JSON, of a length that people read."""
    try:
        text = json.dumps(node, ensure_ascii=False, indent=1)
    except RecursionError:
        return "(nested too deeply to be quoted)"
    return text if len(text) <= _QUOTE else f"{text[:_QUOTE]} … ({len(text)} characters)"
