"""A simulated host, and sessions to it by the unmodified pywinrm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from winrm_host import PASSWORD, SimulatedHost

from adapters.hyperv.session import HostSession


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedHost]:
    monkeypatch.setenv("HOST_PASSWORD", PASSWORD)
    simulated = SimulatedHost()
    yield simulated
    simulated.close()


@pytest.fixture
def session(host: SimulatedHost) -> Iterator[HostSession]:
    with HostSession(host.settings()) as session:
        yield session
