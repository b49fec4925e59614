"""Master targets for tests. The contract of a replica store is tested beside the local one, and run here by wire."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transport_wire import Wire

from replication.cipher import SiteKey

sys.path.append(str(Path(__file__).parents[1] / "replication"))
sys.path.append(str(Path(__file__).parents[1] / "azure"))  # for test_replica_store_contract


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    wire = Wire(tmp_path)
    wire.start()
    yield wire
    wire.close()


@pytest.fixture
def site_key() -> SiteKey:
    return SiteKey(bytes(range(32)), "env:SITE_KEY")


@pytest.fixture
def encrypted(tmp_path: Path, site_key: SiteKey) -> Iterator[Wire]:
    wire = Wire(tmp_path, site_key=site_key)
    wire.start()
    yield wire
    wire.close()
