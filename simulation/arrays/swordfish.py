"""The Swordfish service of an array: resources as JSON over HTTPS with basic authentication, actions as tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from adapters.smis.values import CopyState, JobState, Operation
from simulation.arrays.array import Array
from simulation.arrays.jobs import Job
from simulation.arrays.operations import hand_over, modify, resume
from simulation.arrays.refusal import ArrayRefusal, LinkDown
from simulation.arrays.state import Group, Volume
from simulation.listening import HttpConnection, TlsListener, basic_login
from simulation.winrm.certificate import make_certificate

ROOT = "/redfish/v1"
MONITORS = f"{ROOT}/TaskService/TaskMonitors/"
MEMBERS_AT_ONCE = 2
STATES = {
    CopyState.INITIALIZED: "Initialized",
    CopyState.UNSYNCHRONIZED: "Unsynchronized",
    CopyState.SYNCHRONIZED: "Synchronized",
    CopyState.BROKEN: "Broken",
    CopyState.SPLIT: "Split",
    CopyState.SUSPENDED: "Suspended",
    CopyState.FAILED_OVER: "Failedover",
}
TASKS = {JobState.RUNNING: "Running", JobState.COMPLETED: "Completed", JobState.EXCEPTION: "Exception"}
Action = Callable[[Array, Group], Job | None]


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    location: str = ""


class SwordfishServer:
    """Listens on 127.0.0.1 until :meth:`close`."""

    def __init__(self, array: Array, certificates: Path, *, user: str, password: str) -> None:
        self.array = array
        self.certificate = make_certificate(certificates)
        self.login = basic_login(user, password)
        self._storage = f"{ROOT}/Storage/{array.name}"
        self._listener = _Listener(self)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.port}"

    def close(self) -> None:
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- requests ---------------------------------------------------------------------------------------------

    def get(self, path: str) -> Answer:
        if path.startswith(MONITORS):
            return self._monitor(path)
        name, _, skipped = path.partition("?$skip=")
        body = self._resources().get(name)
        if body is None:
            return _problem(404, f"there is no {path}")
        return Answer(200, {"@odata.id": path, **_page(name, body, int(skipped or 0))})

    def _monitor(self, path: str) -> Answer:
        """202 while the action goes on, then the action's own answer."""
        job = self.array.jobs.all.get(path.removeprefix(MONITORS))
        if job is None:
            return _problem(404, f"there is no {path}")
        if job.state is JobState.RUNNING:
            return Answer(202, self.get(f"{ROOT}/TaskService/Tasks/{job.id}").body, location=path)
        return Answer(204, {}) if job.state is JobState.COMPLETED else _problem(409, job.error)

    def post(self, path: str) -> Answer:
        for group in self._replicated():
            for name, action in ACTIONS.items():
                if path == self._action(group, name):
                    return self._act(group, action)
        return _problem(404, f"there is no action {path}")

    def _act(self, group: Group, action: Action) -> Answer:
        try:
            job = action(self.array, group)
        except LinkDown as lost:
            return _problem(503, lost.what)
        except ArrayRefusal as refusal:
            return _problem(409, refusal.what)
        if job is None:
            return Answer(204, {})
        return Answer(202, self.get(f"{ROOT}/TaskService/Tasks/{job.id}").body, location=f"{MONITORS}{job.id}")

    # --- resources --------------------------------------------------------------------------------------------

    def _resources(self) -> dict[str, dict[str, Any]]:
        state, storage = self.array.state, self._storage
        volumes = {f"{storage}/Volumes/{volume.id}": volume for volume in list(state.volumes.values())}
        pools = {f"{storage}/StoragePools/{pool}": pool for pool in list(state.pools)}
        groups = {self._group_path(group): group for group in list(state.groups.values())}
        tasks = {f"{ROOT}/TaskService/Tasks/{job.id}": job for job in list(self.array.jobs.all.values())}
        return {
            ROOT: {"Id": "RootService", "Name": "array", "Storage": _link(f"{ROOT}/Storage")},
            f"{ROOT}/Storage": {"Members": [_link(storage)]},
            storage: {
                "Id": self.array.name,
                "Name": self.array.name,
                "Volumes": _link(f"{storage}/Volumes"),
                "StoragePools": _link(f"{storage}/StoragePools"),
                "ConsistencyGroups": _link(f"{storage}/ConsistencyGroups"),
            },
            f"{storage}/Volumes": {"Members": [_link(path) for path in volumes]},
            f"{storage}/ConsistencyGroups": {"Members": [_link(path) for path in groups]},
            f"{storage}/StoragePools": {"Members": [_link(path) for path in pools]},
            **{path: {"Id": pool, "Name": pool} for path, pool in pools.items()},
            **{path: _volume(path, volume) for path, volume in volumes.items()},
            **{
                _providing_pools(path): {"Members": [_link(f"{storage}/StoragePools/{volume.pool}")]}
                for path, volume in volumes.items()
            },
            **{path: self._group(group) for path, group in groups.items()},
            **{path: _task(job) for path, job in tasks.items()},
        }

    def _group(self, group: Group) -> dict[str, Any]:
        body: dict[str, Any] = {
            "Id": group.id,
            "Name": group.name,
            "Volumes": [_link(f"{self._storage}/Volumes/{volume}") for volume in group.volumes],
        }
        if group.peer:
            whole_at = group.in_sync_until or datetime.now(UTC)
            body["ReplicaInfo"] = {
                "ReplicaState": STATES[group.state],
                "ReplicaRole": "Source" if group.is_source else "Target",
                "ReplicaType": "Mirror",
                "ReplicaUpdateMode": "Asynchronous" if group.asynchronous else "Synchronous",
                "PercentSynced": 100 if group.state is CopyState.SYNCHRONIZED else 0,
                "FailedCopyStopsHostIO": group.blocks_on_failure,
                "WhenSynchronized": whole_at.isoformat() if group.target_is_whole else None,
            }
            body["ReplicaTargets"] = [_link(f"{ROOT}/Storage/{group.peer}/ConsistencyGroups/{group.peer_group}")]
            body["Actions"] = {f"#ConsistencyGroup.{name}": {"target": self._action(group, name)} for name in ACTIONS}
        return body

    def _replicated(self) -> list[Group]:
        return [group for group in list(self.array.state.groups.values()) if group.peer]

    def _group_path(self, group: Group) -> str:
        return f"{self._storage}/ConsistencyGroups/{group.id}"

    def _action(self, group: Group, name: str) -> str:
        return f"{self._group_path(group)}/Actions/ConsistencyGroup.{name}"


def _link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def _volume(path: str, volume: Volume) -> dict[str, Any]:
    source = {
        "@odata.id": f"{path}#/CapacitySources/0",
        "Id": "0",
        "Name": "0",
        "ProvidingPools": _link(_providing_pools(path)),
    }
    return {"Id": volume.id, "Name": volume.name, "CapacityBytes": volume.size, "CapacitySources": [source]}


def _providing_pools(volume: str) -> str:
    return f"{volume}/CapacitySources/0/ProvidingPools"


def _page(path: str, body: dict[str, Any], skipped: int) -> dict[str, Any]:
    """A collection answers with a few members, and where the others are."""
    if "Members" not in body:
        return body
    members, end = body["Members"], skipped + MEMBERS_AT_ONCE
    more = {"Members@odata.nextLink": f"{path}?$skip={end}"} if end < len(members) else {}
    return {**body, "Members@odata.count": len(members), "Members": members[skipped:end], **more}


def _problem(status: int, message: str) -> Answer:
    """As Redfish words it: what happened is in the details."""
    details = [{"MessageId": "Base.1.0.GeneralError", "Message": message, "Resolution": "None"}]
    general = "A general error has occurred. See ExtendedInfo for more information."
    return Answer(
        status,
        {"error": {"code": "Base.1.0.GeneralError", "message": general, "@Message.ExtendedInfo": details}},
    )


def _task(job: Job) -> dict[str, Any]:
    return {
        "Id": job.id,
        "Name": job.name,
        "TaskState": TASKS[job.state],
        "PercentComplete": job.percent,
        "Messages": [{"MessageId": "Base.1.0.GeneralError", "Message": job.error}] if job.error else [],
    }


def _reverse(array: Array, group: Group) -> Job | None:
    """The target becomes the source, and mirrors to the old one from then on; the old one stops first."""
    if group.is_source:
        return array.jobs.start(f"hand group {group.name} over", lambda _: hand_over(array, group))

    def work(job: Job) -> None:
        for operation in (Operation.FAILOVER, Operation.REVERSE_ROLES):
            part = modify(array, group, operation, force=False)
            while part is not None and part.state is JobState.RUNNING:
                job.percent = part.percent
                part.ended.wait(0.05)
            if part is not None and part.state is not JobState.COMPLETED:
                raise ArrayRefusal(part.error)

    return array.jobs.start(f"reverse group {group.name}", work)


ACTIONS: dict[str, Action] = {
    "ReverseReplicationRelationship": _reverse,
    "ResumeReplication": resume,
    "SuspendReplication": lambda array, group: modify(array, group, Operation.SUSPEND, force=False),
    "SplitReplication": lambda array, group: modify(array, group, Operation.SPLIT, force=False),
}
"""Actions of ConsistencyGroup v1."""


class _Listener(TlsListener):
    def __init__(self, server: SwordfishServer) -> None:
        self.swordfish = server
        super().__init__(server.certificate.context(), 0, _Connection, "Swordfish")


class _Connection(HttpConnection):
    content_type = "application/json"
    server: _Listener

    def do_GET(self) -> None:
        self._answer(lambda: self.server.swordfish.get(self.path))

    def do_POST(self) -> None:
        self.read_body()
        self._answer(lambda: self.server.swordfish.post(self.path))

    def _answer(self, answering: Callable[[], Answer]) -> None:
        accepted = self.headers.get("Authorization") == self.server.swordfish.login
        answer = answering() if accepted else _problem(401, "the login is refused")
        body = json.dumps(answer.body).encode() if answer.status != 204 else b""
        location = [("Location", answer.location)] if answer.location else []
        self.respond(answer.status, body, *location, ("OData-Version", "4.0"))
