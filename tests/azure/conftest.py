from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_account import Account

from simulation.azure import azurite
from simulation.azure.azurite import Azurite

sys.path.append(str(Path(__file__).parents[1] / "replication"))  # for model_source
sys.path.append(str(Path(__file__).parents[1] / "hyperv"))  # for tracked_host


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """One Azurite for all tests of a process."""
    with azurite.running(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def account(server: Azurite, tmp_path: Path) -> Account:
    """Containers of its own for each test."""
    return Account(server, tmp_path)
