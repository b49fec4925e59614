"""A simulated host, and sessions to it by the unmodified pywinrm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_fabric import SmallFabric
from winrm_host import PASSWORD, SimulatedHost

from adapters.hyperv import jobs
from adapters.hyperv.session import HostSession


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedHost]:
    monkeypatch.setenv("HOST_PASSWORD", PASSWORD)
    simulated = SimulatedHost(tmp_path / "host")
    yield simulated
    simulated.close()


@pytest.fixture
def session(host: SimulatedHost) -> Iterator[HostSession]:
    with HostSession(host.settings()) as session:
        yield session


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFabric]:
    """A fabric of one host at each of two sites. Jobs are looked at often."""
    monkeypatch.setattr(jobs, "FIRST_POLL_S", 0.02)
    fabric = SmallFabric(tmp_path)
    yield fabric
    fabric.close()
