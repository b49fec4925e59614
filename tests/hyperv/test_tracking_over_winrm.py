"""Change tracking as workers do it: the packaged scripts over WinRM, checkpoints as jobs on the host."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tracked_host import TrackedHost
from winrm_host import PASSWORD, SimulatedHost

from adapters.hyperv.hosts import HyperVHosts
from adapters.hyperv.operations import OPERATIONS
from adapters.hyperv.session import HostSession
from adapters.hyperv.tracking import ResilientChangeTracking
from replication import stream
from replication.bitmap import BitmapChangeSource
from replication.local import LocalReplicaStore
from simulation.winrm.answering import Request, Result
from vault.domain import ConsistencyKind, Progress

pytestmark = pytest.mark.contract

MIB = 1 << 20


def no_report(_: Progress) -> None:
    """Nobody watches."""


class TrackedOverWinRM(SimulatedHost):
    def __init__(self, folder: Path, tracked: TrackedHost) -> None:
        self._tracked = tracked
        super().__init__(folder)

    def _answer(self, request: Request) -> Result:
        operation: Any = OPERATIONS[request.script]
        answer = self._tracked.run(operation, operation.takes.model_validate(request.parameters), timeout_s=60)
        return dict(answer.model_dump(mode="json"))


def test_a_machine_is_copied_and_followed_over_winrm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_PASSWORD", PASSWORD)
    tracked = TrackedHost(tmp_path / "host", {"SCSI 0:0": 2 * MIB})
    store = LocalReplicaStore(tmp_path / "replica", machine="db")
    with (
        closing(tracked.disks),
        closing(TrackedOverWinRM(tmp_path / "winrm", tracked)) as server,
        HostSession(server.settings()) as session,
    ):

        def source() -> BitmapChangeSource:
            hosts = HyperVHosts("east", {"hv1": session})
            return BitmapChangeSource(ResilientChangeTracking(hosts, "db", lambda host: tracked.locate))

        tracked.write("SCSI 0:0", 0, b"before--" * 1024)
        first = source()
        store.create(first.disks(), first.start_tracking())
        stream.copy_initial(first, store, no_report)
        tracked.write("SCSI 0:0", MIB, b"after---" * 64)
        point = stream.replicate_cut(source(), store, ConsistencyKind.APPLICATION, no_report)
    assert (point.bytes, point.kind) == (512, ConsistencyKind.APPLICATION)
    with closing(store.view("scsi-0-0")) as view:
        assert view.read(0, view.size) == tracked.content["SCSI 0:0"]
    assert {"create_checkpoint", "changed_ranges", "write_tracking", "destroy_reference_point"} <= set(tracked.ran)
