"""The arrays as processes, as the demo runs them: they serve, go on where they were, and die with their site's host."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from adapters.lab.faults import Fault, SiteFaults
from adapters.lab.nbd import NbdDisk
from simulation.arrays import process
from simulation.arrays.settings import VolumeSettings, pair
from tests.san.pairs import until
from vault.errors import InvalidState, Unreachable

pytestmark = pytest.mark.contract


def test_an_array_survives_its_process_and_dies_with_its_host(tmp_path: Path) -> None:
    lab_root = tmp_path / "lab"
    settings = pair(tmp_path / "arrays", lab_root, ("east", "west"), "secret")["east"]
    settings.volumes = [VolumeSettings(name="log", size=2**20, host="host-1")]
    try:
        process.start(settings)
        with closing(NbdDisk(settings.portal, "host-1/log")) as disk:
            disk.write(0, b"kept")
        assert process.stop(settings.folder)
        assert not process.stop(settings.folder)
        process.start(settings)
        with closing(NbdDisk(settings.portal, "host-1/log")) as disk:
            assert disk.read(0, 4) == b"kept"
        SiteFaults(lab_root, "east").set(Fault.HOST_DEAD)
        until(lambda: not _serves(settings.portal))
        assert not process.stop(settings.folder)
    finally:
        process.stop(settings.folder)


def _serves(portal: str) -> bool:
    try:
        NbdDisk(portal, "host-1/log").close()
    except Unreachable:
        return False
    return True


def test_an_array_that_cannot_start_says_why(tmp_path: Path) -> None:
    settings = pair(tmp_path / "arrays", tmp_path / "lab", ("east", "west"), "secret")["east"]
    settings.data_port = settings.link_port
    with pytest.raises(InvalidState, match=r"did not start: .*Address already in use"):
        process.start(settings)
