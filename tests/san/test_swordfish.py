"""Swordfish, the second dialect: the same arrays, moved by another language, with the bytes to show for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from adapters.san.ports import GroupControl, GroupState, Step, unwatched
from adapters.smis.values import CopyState, Operation
from adapters.swordfish import resources
from adapters.swordfish.array import ROOT, SwordfishArray
from adapters.swordfish.client import SwordfishClient, SwordfishEndpoint
from simulation.arrays.array import Array
from simulation.arrays.swordfish import SwordfishServer, _link
from tests.san.pairs import MIB, POOL, SECOND_POOL, ArrayPair, arrays, until, until_state
from vault.errors import AuthenticationRefused, BadInput, InvalidState, NotFound, Unreachable

pytestmark = pytest.mark.contract


class Services(NamedTuple):
    pair: ArrayPair
    servers: dict[str, SwordfishServer]
    password: Path

    def array(self, name: str, *, patience_s: float = 300, ca: str | None = None) -> SwordfishArray:
        server = self.servers[name]
        endpoint = SwordfishEndpoint(
            url=server.url,
            user="leeward",
            password=f"file:{self.password}",
            ca=ca or str(server.certificate.certificate),
        )
        return SwordfishArray(name, SwordfishClient(endpoint, patience_s=patience_s))


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    password = tmp_path / "password"
    password.write_text("secret")

    def server(array: Array) -> SwordfishServer:
        return SwordfishServer(array, tmp_path / array.name, user="leeward", password="secret")

    with arrays(tmp_path / "arrays") as pair, server(pair.east) as east, server(pair.west) as west:
        yield Services(pair, {"east": east, "west": west}, password)


def test_groups_are_discovered_with_their_state(services: Services) -> None:
    services.pair.mirrored("log", "data")
    array: GroupControl = services.array("west")
    (group,) = array.groups()
    assert (group.name, group.state, group.is_source, group.is_active) == (
        "payments",
        GroupState.SYNCHRONIZED,
        False,
        False,
    )
    assert [volume.name for volume in group.volumes] == ["log", "data"]
    assert array.supports() == {Step.FAIL_OVER, Step.FAIL_BACK, Step.REVERSE, Step.RESUME}
    assert str(array.check()[0]) == "array west: answers"
    services.pair.do(services.pair.east, Operation.SUSPEND)
    (group,) = array.groups()
    assert group.state is GroupState.SUSPENDED
    assert group.whole_at is not None
    services.array("east").resume(services.array("east").groups()[0], unwatched)
    until_state(services.pair.at_west, CopyState.SYNCHRONIZED)


def test_the_pool_of_a_volume_is_told_by_its_capacity_sources(services: Services) -> None:
    services.pair.mirrored("log")
    services.pair.east.create_volume("data", SECOND_POOL, MIB)
    array: GroupControl = services.array("east")
    assert array.pools_of(array.volumes(["log", "data"])) == {"log": [POOL], "data": [SECOND_POOL]}


def test_capacity_sources_that_are_links_are_followed(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = services.pair.east.create_volume("log", POOL, MIB)
    server = services.servers["east"]
    path, pool = f"{ROOT}/Storage/east/Volumes/{volume.id}", f"{ROOT}/Storage/east/StoragePools/{POOL}"
    served = server._resources()
    served[f"{path}/CapacitySources/0"] = {
        "Id": "0",
        "ProvidingPools": {"@odata.id": "/none", "Members": [_link(pool)]},
    }
    served[path]["CapacitySources"] = [_link(f"{path}/CapacitySources/0")]
    monkeypatch.setattr(server, "_resources", lambda: served)
    array = services.array("east")
    assert array.pools_of(array.volumes(["log"])) == {"log": [POOL]}


@pytest.mark.parametrize(
    "sources",
    [
        [
            {
                "ProvidingPools": {
                    "@odata.id": "/pools",
                    "Members": [{"@odata.id": "/redfish/v1/Storage/east/StoragePools/gold"}],
                }
            }
        ],
        [{"ProvidingVolumes": {"@odata.id": "/volumes"}}],
        [],
    ],
    ids=["members embedded", "other sources", "none"],
)
def test_other_forms_of_capacity_sources_are_read_too(services: Services, sources: list[dict[str, object]]) -> None:
    volume = resources.Volume.model_validate({"Id": "1", "Name": "log", "CapacityBytes": 1, "CapacitySources": sources})
    expected = [POOL] if "ProvidingPools" in str(sources) else []
    assert services.array("east")._pools_of(volume) == expected


def test_a_planned_failover_and_the_way_back_move_what_was_written(services: Services) -> None:
    group, (log,) = services.pair.mirrored("log")
    services.pair.east.write(log.id, 0, b"before")
    west, east = services.array("west"), services.array("east")
    west.fail_over(west.groups()[0], unwatched)
    west.fail_over(west.groups()[0], unwatched)
    west.reverse(west.groups()[0], unwatched)
    assert (west.groups()[0].is_active, east.groups()[0].is_active) == (True, False)
    theirs = services.pair.at_west.volumes[0]
    assert services.pair.west.read(theirs, 0, 6) == b"before"
    services.pair.west.write(theirs, 0, b"after!")
    assert services.pair.both_hold(group)
    east.fail_over(east.groups()[0], unwatched)
    assert services.pair.east.read(log.id, 0, 6) == b"after!"
    assert east.groups()[0].state is GroupState.SYNCHRONIZED


def test_a_failover_without_the_source_is_refused(services: Services) -> None:
    services.pair.mirrored("log")
    services.pair.link.is_cut = True
    until_state(services.pair.at_west, CopyState.BROKEN)
    west = services.array("west")
    (group,) = west.groups()
    assert group.state is GroupState.LINK_LOST
    with pytest.raises(InvalidState, match="nobody knows whether it still takes writes"):
        west.fail_over(group, unwatched)
    with pytest.raises(InvalidState, match="cannot make the target of group 'payments' active without its source"):
        west.fail_over(group, unwatched, force=True)
    with pytest.raises(InvalidState, match="not the active source"):
        west.resume(group, unwatched)
    assert not services.pair.at_west.active


def test_a_task_that_stands_still_is_given_up(services: Services) -> None:
    services.pair.mirrored("log")
    services.pair.west.jobs.hold.set()
    west = services.array("west", patience_s=0.3)
    with pytest.raises(InvalidState, match=r"task 'job-\d+' stands at 0 %"):
        west.fail_over(west.groups()[0], unwatched)


def test_logins_certificates_names_and_dead_services(services: Services) -> None:
    with pytest.raises(BadInput, match="certificate is not trusted"):
        services.array("west", ca=str(services.servers["east"].certificate.certificate)).groups()
    with pytest.raises(NotFound, match="there is no storage 'north'"):
        SwordfishArray("north", services.array("west")._client).groups()
    services.password.write_text("wrong")
    with pytest.raises(AuthenticationRefused, match="the login is refused"):
        services.array("west").groups()
    services.password.write_text("secret")
    west = services.array("west")
    services.servers["west"].close()
    until(lambda: _is_silent(west))


def _is_silent(array: SwordfishArray) -> bool:
    try:
        array.groups()
    except Unreachable:
        return True
    return False
