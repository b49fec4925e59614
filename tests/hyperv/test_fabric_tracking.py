"""Resilient change tracking of simulated hosts: what a running guest wrote, read from its checkpoints over WinRM."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_fabric import SmallFabric, quiet

from adapters.hyperv.disk_folders import located
from adapters.hyperv.operations import OPERATIONS
from adapters.hyperv.tracking import ResilientChangeTracking
from adapters.lab.database import scan_images
from replication import stream
from replication.bitmap import BitmapChangeSource
from replication.local import LocalReplicaStore
from simulation.hyperv.dispatch import HANDLERS
from simulation.hyperv.fabric import FOLDER
from vault.domain import ConsistencyKind, PowerState
from vault.hyperv import DiskFolder

pytestmark = pytest.mark.contract


def test_every_operation_is_answered() -> None:
    assert HANDLERS.keys() == OPERATIONS.keys()


def test_a_running_machine_is_followed_to_its_last_transaction(small: SmallFabric, tmp_path: Path) -> None:
    folders = [DiskFolder(path=FOLDER, folder=str(small.fabric.disk_folder("east")))]

    def source() -> BitmapChangeSource:
        device = ResilientChangeTracking(small.east.hosts, "db", lambda host: located(folders, host))
        return BitmapChangeSource(device)

    store = LocalReplicaStore(tmp_path / "replica", machine="db")
    store.create(source().disks(), source().start_tracking())
    stream.copy_initial(source(), store, quiet)
    begun = small.acknowledged()
    small.wait_for(lambda: small.acknowledged() > begun)
    point = stream.replicate_cut(source(), store, ConsistencyKind.APPLICATION, quiet)
    assert point.kind is ConsistencyKind.APPLICATION
    assert point.bytes < 8 << 20
    assert small.east.shut_down("db", 20, quiet) is PowerState.OFF
    last = stream.send_last_changes(source(), store, quiet)
    images = tmp_path / "images"
    images.mkdir()
    recovered = scan_images(store.materialise(last, images, quiet))
    assert (recovered.last, recovered.damaged) == (small.acknowledged(), 0)
    assert recovered.last > begun
    left = [path.name for path in small.fabric.disk_folder("east").rglob("*.avhdx")]
    assert not left, "checkpoints that are not needed any more stay"
