"""From what an operator types for PLAN to the plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vault.errors import NotFound

if TYPE_CHECKING:
    from plans.model import Plan
    from vault.inventory import Inventory
    from vault.validation import Loaded
    from workers.settings import Settings

SUFFIX = ".plan.yaml"


def find_plan_file(given: str, settings: Settings) -> Path:
    """A file as it is; a name as ``<name>.plan.yaml`` beside the inventory, in its folder ``plans`` or here.

    Raises:
        NotFound: naming the places that were looked at.
    """
    if Path(given).is_file():
        return Path(given)
    beside = settings.vault.resolve().parent
    places = list(
        dict.fromkeys([beside / f"{given}{SUFFIX}", beside / "plans" / f"{given}{SUFFIX}", Path(f"{given}{SUFFIX}")])
    )
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise NotFound(f"no plan '{given}'", remedy=f"give a file, or put it at one of: {looked}")


def load_named_plan(given: str, settings: Settings, inventory: Inventory) -> Plan:
    return load_named_plan_source(given, settings, inventory).model


def load_named_plan_source(given: str, settings: Settings, inventory: Inventory) -> Loaded[Plan]:
    """With the file and those that it includes."""
    from plans.loading import load_plan_source

    return load_plan_source(find_plan_file(given, settings), inventory)


def plan_name(given: str) -> str:
    """The plan's name, for commands that talk to a run and need not read the file again."""
    name = Path(given).name
    return name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else given


@contextmanager
def hinting_at_its_name(given: str, settings: Settings) -> Iterator[None]:
    """What is refused for a plan whose file bears another name than the plan in it says so: runs have the plan's."""
    from vault.errors import InvalidState

    try:
        yield
    except (NotFound, InvalidState) as error:
        file, name = _name_within(given, settings)
        if name in {"", plan_name(given)}:
            raise
        hint = f"{file.name} has plan '{name}': leeward plan status {name}"
        raise type(error)(error.what, where=error.where, remedy=f"{error.remedy}; {hint}") from error


def _name_within(given: str, settings: Settings) -> tuple[Path, str]:
    """Of a file that is no plan (any more) nothing follows: empty."""
    from vault.errors import LeewardError
    from vault.yamlsource import read_yaml

    try:
        file = find_plan_file(given, settings)
        data = read_yaml(file).data
    except LeewardError:
        return Path(given), ""
    name = data.get("plan", data.get("name", "")) if isinstance(data, dict) else ""
    return file, name if isinstance(name, str) else ""
