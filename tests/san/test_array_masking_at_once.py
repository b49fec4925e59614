"""Two workers of a site mask at once: what one of them has seen is not so any more when it asks for its change.

SMI-S has no lock for that. An array must refuse a second view of a host ("target/initiator combination already
exposed"), and a view goes with its last volume; so whoever is refused looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pywbem

from adapters.san.ports import Volume
from simulation.arrays.cim_methods import Answered
from simulation.arrays.cim_server import CimFault
from tests.san.house import WEST, House, house
from tests.san.pairs import MIB, POOL
from vault.errors import InvalidState

pytestmark = pytest.mark.contract
PORTS = ["port-1", "port-2"]
BOTH = {"log": PORTS, "data": PORTS}


class Workers:
    """``mine`` and ``theirs`` know nothing of each other."""

    def __init__(self, san: House) -> None:
        self.san = san
        self.mine, self.theirs = san.array(WEST), san.array(WEST)
        self.volumes = {volume.name: volume for volume in self.mine.volumes(["log", "data"])}

    def before(self, wanted: str, happens: Callable[[], object]) -> None:
        """``happens`` once, when a request of that method has arrived and is not answered yet."""

        def disturb(method: str, _: dict[str, Any]) -> None:
            if method == wanted:
                self.san.servers[WEST].disturb = None
                happens()

        self.san.servers[WEST].disturb = disturb

    def named(self, *names: str) -> list[Volume]:
        return [self.volumes[name] for name in names]

    def seen(self) -> dict[str, list[str]]:
        return {volume.name: sorted(volume.hosts) for volume in self.san.pair.west.state.volumes.values()}


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    with house(tmp_path) as made:
        for name in ("log", "data"):
            made.pair.west.create_volume(name, POOL, MIB)
        yield Workers(made)


def test_a_host_s_first_view_is_made_once(workers: Workers) -> None:
    workers.before("ExposePaths", lambda: workers.theirs.expose(workers.named("data"), PORTS))
    workers.mine.expose(workers.named("log"), PORTS)
    assert workers.seen() == BOTH


def test_a_view_that_has_one_of_the_initiators_meanwhile_gets_the_volume_and_the_other_its_own(
    workers: Workers,
) -> None:
    workers.before("ExposePaths", lambda: workers.theirs.expose(workers.named("data"), PORTS[:1]))
    workers.mine.expose(workers.named("log"), PORTS)
    assert workers.seen() == {"log": PORTS, "data": PORTS[:1]}


def test_a_view_that_went_with_its_last_volume_is_made_anew(workers: Workers) -> None:
    workers.theirs.expose(workers.named("data"), PORTS)
    workers.before("ExposePaths", lambda: workers.theirs.hide(workers.named("data"), PORTS))
    workers.mine.expose(workers.named("log"), PORTS)
    assert workers.seen() == {"log": PORTS, "data": []}


def test_what_the_other_one_has_exposed_or_hidden_meanwhile_is_as_it_is_wanted(workers: Workers) -> None:
    workers.before("ExposePaths", lambda: workers.theirs.expose(workers.named("log", "data"), PORTS))
    workers.mine.expose(workers.named("log", "data"), PORTS)
    assert workers.seen() == BOTH
    workers.before("HidePaths", lambda: workers.theirs.hide(workers.named("log", "data"), PORTS))
    workers.mine.hide(workers.named("log", "data"), PORTS)
    assert workers.seen() == {"log": [], "data": []}


def test_a_view_that_went_while_it_is_looked_at_is_no_error(workers: Workers) -> None:
    """Between the question for an initiator's views and the one for the volumes in them."""
    workers.theirs.expose(workers.named("data"), PORTS)
    questions = []

    def disturb(method: str, _: dict[str, Any]) -> CimFault | None:
        questions.append(method)
        if method != "Associators" or questions.count(method) != 3:
            return None
        workers.san.servers[WEST].disturb = None
        workers.theirs.hide(workers.named("data"), PORTS)
        return CimFault(pywbem.CIM_ERR_NOT_FOUND, "there is no such view")

    workers.san.servers[WEST].disturb = disturb
    workers.mine.expose(workers.named("log"), PORTS)
    assert workers.seen() == {"log": PORTS, "data": []}


def test_a_refusal_that_no_other_worker_is_the_reason_of_is_told(workers: Workers) -> None:
    server = workers.san.servers[WEST]
    asked = []

    def refuse(method: str, _: dict[str, Any]) -> Answered | None:
        asked.append(method)
        return Answered(4103) if method == "ExposePaths" else None

    server.disturb = refuse
    with pytest.raises(InvalidState, match="too many mappings"):
        workers.mine.expose(workers.named("log"), PORTS)
    assert asked.count("ExposePaths") == 1
