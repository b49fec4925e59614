from __future__ import annotations

import time
from pathlib import Path

import pytest
from lab_support import AWAY, HOME, make_inventory
from transport_wire import Wire

from adapters.links import Links
from adapters.registry import Adapters
from replication.ports import Extent
from vault.domain import Disk
from vault.errors import BadInput, NotFound

pytestmark = pytest.mark.unit

MIB = 1 << 20


def test_without_a_master_target_the_replica_is_written_where_it_is() -> None:
    assert Links(make_inventory()).remote_store(HOME, AWAY, "db") is None


def test_a_source_site_without_a_certificate_is_told_so() -> None:
    inventory = make_inventory(secondary={"master_target": "127.0.0.1:1", "pki": "file:pki"})
    with pytest.raises(BadInput, match="site 'primary' has no certificate to show") as caught:
        Links(inventory).remote_store(HOME, AWAY, "db")
    assert "leeward pki issue" in caught.value.remedy


def test_a_missing_replica_key_is_named(tmp_path: Path) -> None:
    inventory = make_inventory(
        primary={"pki": "file:pki"},
        secondary={"master_target": "127.0.0.1:1", "pki": "file:pki", "replica_key": f"file:{tmp_path / 'no.key'}"},
    )
    with pytest.raises(NotFound, match=r"no\.key"):
        Links(inventory).remote_store(HOME, AWAY, "db")
    with pytest.raises(NotFound, match=r"no\.key"):
        Adapters(inventory, tmp_path).master_target_store(AWAY, "db")


def test_the_limit_of_a_site_holds_for_all_its_machines_together(tmp_path: Path) -> None:
    """In the lab without a master target, too."""
    adapters = Adapters(make_inventory(primary={"bandwidth": {"limit": "2MiB"}}), tmp_path)
    stores = [adapters.store_across(HOME, AWAY, machine) for machine in ("db", "web")]
    began = time.monotonic()
    for store in stores:
        store.create([Disk(name="os", size=MIB)], "e")
        for offset in range(0, MIB, MIB // 4):
            store.write_base("os", Extent(offset, b"x" * (MIB // 4)))
    assert 0.7 < time.monotonic() - began < 30


def test_what_crosses_the_wire_is_limited(wire: Wire) -> None:
    taken: list[int] = []
    store = wire.remote(throttle=taken.append)
    store.create([Disk(name="os", size=4 * MIB)], "e")
    with store.lock():
        store.write_base("os", Extent(0, b"compressible " * (MIB // 13)))
        store.checkpoint_base("os", 4 * MIB)
    assert 0 < sum(taken) < MIB // 10, "the limit is for what is sent, not for what it means"
