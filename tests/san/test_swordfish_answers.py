"""What a Swordfish service may answer within its specification: pages, tasks in several forms, errors in detail, values
of later schemas, nothing where nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.san.ports import GroupState, unwatched
from adapters.swordfish.array import ROOT, SwordfishArray
from adapters.swordfish.client import SwordfishClient, SwordfishEndpoint
from simulation.arrays.swordfish import MEMBERS_AT_ONCE, Answer, SwordfishServer
from simulation.listening import basic_login
from tests.san.pairs import MIB, POOL, ArrayPair, arrays
from vault.errors import Busy, Damaged, InvalidState, LeewardError, NotFound, Unreachable

pytestmark = pytest.mark.contract


class Service:
    """The service of the target's array, some of whose answers are others."""

    def __init__(self, pair: ArrayPair, server: SwordfishServer, array: SwordfishArray) -> None:
        self.pair, self.server, self.array = pair, server, array

    def answers(self, monkeypatch: pytest.MonkeyPatch, method: str, change: Callable[[str, Answer], Answer]) -> None:
        real = getattr(SwordfishServer, method)
        monkeypatch.setattr(self.server, method, lambda path: change(path, real(self.server, path)))

    def changed(self, monkeypatch: pytest.MonkeyPatch, **info: Any) -> None:
        """Its replicated groups' ``ReplicaInfo`` has these values; ``...``: it does not have the property."""

        def change(_: str, answer: Answer) -> Answer:
            if "ReplicaInfo" not in answer.body:
                return answer
            told = {**answer.body["ReplicaInfo"], **info}
            told = {name: value for name, value in told.items() if value is not ...}
            return answer._replace(body={**answer.body, "ReplicaInfo": told})

        self.answers(monkeypatch, "get", change)

    def fail_over(self) -> None:
        self.array.fail_over(self.array.groups()[0], unwatched)


@pytest.fixture
def west(tmp_path: Path) -> Iterator[Service]:
    password = tmp_path / "password"
    password.write_text("secret")
    with (
        arrays(tmp_path / "arrays") as pair,
        SwordfishServer(pair.west, tmp_path / "west", user="leeward", password="secret") as server,
    ):
        pair.mirrored("log")
        endpoint = SwordfishEndpoint(
            url=server.url,
            user="leeward",
            password=f"file:{password}",
            ca=str(server.certificate.certificate),
        )
        yield Service(pair, server, SwordfishArray("west", SwordfishClient(endpoint)))


# -- collections and values ---------------------------------------------------------------------------------------


def test_collections_are_read_to_their_last_page(west: Service) -> None:
    names = [f"data-{number}" for number in range(3 * MEMBERS_AT_ONCE)]
    for name in names:
        west.pair.west.create_volume(name, POOL, MIB)
    assert [volume.name for volume in west.array.volumes(names)] == names
    assert len(west.server.get(f"{ROOT}/Storage/west/Volumes").body["Members"]) == MEMBERS_AT_ONCE


def test_several_volumes_of_one_name_are_refused(west: Service) -> None:
    for _ in range(2):
        west.pair.west.create_volume("data", POOL, MIB)
    with pytest.raises(InvalidState, match="there are several volumes data"):
        west.array.volumes(["data"])


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"ReplicaState": "Partitioned"}, GroupState.OTHER),
        ({"ReplicaState": "OfALaterSchema", "ReplicaUpdateMode": "OfALaterSchema"}, GroupState.OTHER),
        ({"PercentSynced": None, "WhenSynchronized": None, "ReplicaUpdateMode": None}, GroupState.SYNCHRONIZED),
        ({"PercentSynced": ..., "WhenSynchronized": ..., "ReplicaUpdateMode": ...}, GroupState.SYNCHRONIZED),
    ],
    ids=["a value of a later version", "an unknown value", "null", "left out"],
)
def test_values_that_are_unknown_or_not_told_make_no_group_unreadable(
    west: Service, monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], expected: GroupState
) -> None:
    west.changed(monkeypatch, **info)
    (group,) = west.array.groups()
    assert (group.state, group.asynchronous, group.is_source) == (expected, False, False)


def test_what_the_array_does_with_a_group_is_told(west: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    west.changed(monkeypatch, ReplicaProgressStatus="RequiresResync")
    assert west.array.groups()[0].doing == "requires resync"


def test_storage_beside_the_array_needs_no_groups(west: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    local = f"{ROOT}/Storage/local"

    def change(path: str, answer: Answer) -> Answer:
        if path == f"{ROOT}/Storage":
            members = [{"@odata.id": local}, *answer.body["Members"]]
            return answer._replace(body={**answer.body, "Members": members})
        return Answer(200, {"@odata.id": local, "Id": "local", "Name": "disks"}) if path == local else answer

    west.answers(monkeypatch, "get", change)
    assert [group.name for group in west.array.groups()] == ["payments"]


def test_a_password_that_was_renewed_is_used_without_a_restart(west: Service, tmp_path: Path) -> None:
    west.array.groups()
    west.server.login = basic_login("leeward", "renewed")
    (tmp_path / "password").write_text("renewed")
    assert len(west.array.groups()) == 1


# -- tasks --------------------------------------------------------------------------------------------------------


def test_a_task_is_followed_at_its_monitor_whatever_form_its_address_has(
    west: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    west.answers(
        monkeypatch,
        "post",
        lambda _, answer: answer._replace(location=f"{west.server.url}{answer.location}", body={}),
    )
    west.fail_over()
    assert west.pair.at_west.active


def test_a_service_may_name_the_task_itself(west: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    west.answers(
        monkeypatch,
        "post",
        lambda _, answer: answer._replace(location=answer.location.replace("TaskMonitors", "Tasks")),
    )
    west.fail_over()
    assert west.pair.at_west.active


@pytest.mark.parametrize("state", ["Suspended", "Interrupted", "Stopping", "Service", "Cancelling"])
def test_a_task_goes_on_in_every_state_that_is_no_end(
    west: Service, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    told: list[tuple[str, int]] = []

    def change(path: str, answer: Answer) -> Answer:
        if "TaskMonitors" not in path or told:
            return answer
        return Answer(202, {"Id": "1", "Name": "1", "TaskState": state, "PercentComplete": None})

    west.answers(monkeypatch, "post", lambda _, answer: answer._replace(body={}))
    west.answers(monkeypatch, "get", change)
    west.array.fail_over(west.array.groups()[0], lambda doing, percent: told.append((doing, percent)))
    assert west.pair.at_west.active


def test_a_task_whose_end_nobody_saw_is_looked_for_in_the_group(west: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    real = SwordfishServer.get
    gone = Answer(404, {"error": {"code": "Base.1.0.ResourceMissingAtURI", "message": "gone"}})

    def change(path: str) -> Answer:
        answer = real(west.server, path)
        return gone if "TaskMonitors" in path and answer.status != 202 else answer

    monkeypatch.setattr(west.server, "get", change)
    with pytest.raises(Unreachable, match="has forgotten the task before its end was seen"):
        west.fail_over()
    west.fail_over()
    assert west.pair.at_west.active


@pytest.mark.parametrize(
    ("location", "told"),
    [("", "without telling where its task is"), ("https://elsewhere.example/tasks/1", "an address of another one")],
    ids=["no address", "another host"],
)
def test_a_task_without_a_sound_address_is_told(
    west: Service, monkeypatch: pytest.MonkeyPatch, location: str, told: str
) -> None:
    """The login is for this service alone."""
    running = {"Id": "1", "Name": "1", "TaskState": "Running"}
    west.answers(monkeypatch, "post", lambda *_: Answer(202, running, location=location))
    with pytest.raises(Damaged, match=told):
        west.fail_over()


@pytest.mark.parametrize("as_task", [True, False], ids=["in the task", "at its monitor"])
def test_a_failed_task_tells_what_happened_and_what_to_do(
    west: Service, monkeypatch: pytest.MonkeyPatch, as_task: bool
) -> None:
    message = {
        "MessageId": "Swordfish.1.0.ReplicationFailed",
        "Message": "The link is busy.",
        "Resolution": "Free it.",
    }
    failed = (
        Answer(202, {"Id": "1", "Name": "1", "TaskState": "Exception", "Messages": [message]}, location="/one")
        if as_task
        else problem(500, message)
    )
    west.answers(monkeypatch, "post", lambda *_: Answer(202, {}, location=f"{ROOT}/TaskService/TaskMonitors/1"))
    west.answers(monkeypatch, "get", lambda path, answer: failed if "TaskMonitors" in path else answer)
    with pytest.raises(InvalidState, match=r"failing over group 'payments': The link is busy — Free it"):
        west.fail_over()


# -- errors -------------------------------------------------------------------------------------------------------


def problem(status: int, *details: dict[str, Any]) -> Answer:
    told = {"code": "Base.1.0.GeneralError", "message": "See @Message.ExtendedInfo.", "@Message.ExtendedInfo": details}
    return Answer(status, {"error": told})


@pytest.mark.parametrize(
    ("answer", "expected", "told"),
    [
        (
            problem(409, {"Message": "It is busy."}, {"Message": "So is its peer.", "Resolution": "Wait."}),
            InvalidState,
            "It is busy; So is its peer — Wait; look at the group on the array, then try again",
        ),
        (
            problem(503, {"MessageId": "Base.1.0.ServiceTemporarilyUnavailable", "Resolution": "None"}),
            Unreachable,
            "ServiceTemporarilyUnavailable — check that the service runs",
        ),
        (
            Answer(500, {"error": {"code": "x", "message": "It failed"}}),
            InvalidState,
            "It failed — look into the service's log",
        ),
        (Answer(502, {}), Unreachable, "HTTP status 502 — check that the service runs"),
        (Answer(504, {}), Unreachable, "HTTP status 504"),
        (Answer(429, {}), Busy, "HTTP status 429 — the service has too much to do"),
        (Answer(404, {}), NotFound, "HTTP status 404 — check 'url' and 'array'"),
        (Answer(418, {}), InvalidState, "HTTP status 418 — look at the group on the array"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else "",
)
def test_errors_tell_their_details_and_the_next_step(
    west: Service, monkeypatch: pytest.MonkeyPatch, answer: Answer, expected: type[LeewardError], told: str
) -> None:
    west.answers(monkeypatch, "post", lambda *_: answer)
    with pytest.raises(expected) as refused:
        west.fail_over()
    assert told in str(refused.value)
    assert refused.value.recoverable is (expected in (Unreachable, Busy))
