"""Seeding a machine that runs: exported while its guest writes, carried, imported, and followed by deltas only."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from lab_support import AWAY, HOME, lab_machine, make_inventory, no_report, running_lab

from adapters.lab.database import scan_images
from adapters.lab.faults import Fault, SiteFaults
from adapters.lab.guest import LARGEST_BATCH
from adapters.registry import Adapters
from replication import media
from replication.cipher import write_new_key
from vault.domain import Progress
from vault.errors import AuthenticationRefused, InvalidState, Unreachable

pytestmark = pytest.mark.contract

BYTES_OF_A_TRANSACTION = 4096 + 64
INVENTORY = make_inventory({"db": lab_machine(rate=400, disks={"system": "2MiB", "data": "64MiB"})})
RELATIONSHIP = INVENTORY.relationship("db")


def test_a_running_machine_is_seeded_by_media_and_then_followed_by_its_changes(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", INVENTORY) as lab:
        lab.up()
        lab.wait_for_transactions(2000)
        provider = Adapters(INVENTORY, tmp_path).provider(RELATIONSHIP)
        provider.enable(RELATIONSHIP)
        waiting = provider.seed_missing(RELATIONSHIP)
        assert waiting is not None and waiting.doing == (f"waiting for the seed of 'db' at {AWAY}: leeward seed import")
        made = provider.export_seed(RELATIONSHIP, tmp_path / "medium", no_report)
        assert made.complete and not list(lab.folder().path.glob("*.snap"))
        lab.wait_for_transactions(2500)
        seen: list[Progress | None] = []
        first = provider.import_seed(
            RELATIONSHIP, tmp_path / "medium", lambda _: seen.append(provider.seed_missing(RELATIONSHIP))
        )
        assert first.time == made.moment
        assert {one.doing for one in seen if one} == {f"import of the seed of 'db' at {AWAY}"}
        assert provider.seed_missing(RELATIONSHIP) is None
        sent: list[Progress] = []
        point = provider.copy_initial(RELATIONSHIP, sent.append)
        assert all(progress.doing.startswith("changes of cut") for progress in sent)
        provider.finalize(RELATIONSHIP)
        store = lab.site(AWAY).replica_store("db")
        held = []
        for known in (first, point):
            found = scan_images(store.materialise(known, tmp_path / known.id, no_report))
            assert found.damaged == 0
            assert datetime.fromtimestamp(found.last_begin_ns / 1e9, UTC) <= known.time
            held.append(found.last)
        assert 2000 <= held[0] < 2500 <= held[1]
        since_the_export = held[1] - held[0] + LARGEST_BATCH
        assert point.bytes <= since_the_export * BYTES_OF_A_TRANSACTION


def test_protecting_a_machine_after_its_seed_was_brought_keeps_what_the_seed_has(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", INVENTORY) as lab:
        lab.up()
        lab.wait_for_transactions(500)
        provider = Adapters(INVENTORY, tmp_path).provider(RELATIONSHIP)
        provider.export_seed(RELATIONSHIP, tmp_path / "medium", no_report)
        provider.import_seed(RELATIONSHIP, tmp_path / "medium", no_report)
        provider.enable(RELATIONSHIP)
        sent: list[Progress] = []
        provider.copy_initial(RELATIONSHIP, sent.append)
        assert all(progress.doing.startswith("changes of cut") for progress in sent)
        with pytest.raises(InvalidState, match="complete replica already"):
            provider.export_seed(RELATIONSHIP, tmp_path / "again", no_report)


def test_when_the_logs_outgrew_the_disk_on_the_way_source_and_seed_are_compared(tmp_path: Path) -> None:
    inventory = make_inventory({"db": lab_machine(rate=2000, disks={"system": "2MiB", "data": "4MiB"})})
    relationship = inventory.relationship("db")
    with running_lab(tmp_path / "lab", inventory) as lab:
        lab.up()
        provider = Adapters(inventory, tmp_path).provider(relationship)
        provider.enable(relationship)
        provider.export_seed(relationship, tmp_path / "medium", no_report)
        source = lab.site().change_source("db")
        lab.wait_for_transactions(1500)
        assert source.tracking().resync_required
        provider.import_seed(relationship, tmp_path / "medium", no_report)
        lab.site().power_off("db")
        provider.copy_initial(relationship, no_report)
        store = lab.site(AWAY).replica_store("db")
        for path in store.materialise(store.resolve("latest"), tmp_path / "out", no_report):
            assert path.read_bytes() == (lab.folder().path / path.name).read_bytes()


def test_an_export_with_the_target_out_of_reach_says_so_and_fits_all_the_same(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", INVENTORY) as lab:
        lab.up()
        provider = Adapters(INVENTORY, tmp_path).provider(RELATIONSHIP)
        provider.enable(RELATIONSHIP)
        faults = SiteFaults(lab.root, AWAY)
        faults.set(Fault.LINK_DOWN)
        said: list[str] = []
        provider.export_seed(RELATIONSHIP, tmp_path / "medium", lambda progress: said.append(progress.doing))
        assert said[0] == f"{AWAY} is not told about this export: the link is down"
        with pytest.raises(Unreachable):
            provider.copy_initial(RELATIONSHIP, no_report)
        provider.import_seed(RELATIONSHIP, tmp_path / "medium", no_report)
        faults.clear()
        provider.copy_initial(RELATIONSHIP, no_report)
        assert len(provider.recovery_points(RELATIONSHIP)) == 2


def test_the_medium_says_what_it_is(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", INVENTORY) as lab:
        lab.site().define("db")
        provider = Adapters(INVENTORY, tmp_path).provider(RELATIONSHIP)
        provider.export_seed(RELATIONSHIP, tmp_path / "medium", no_report)
        known = media.load(tmp_path / "medium")
        assert (known.machine, known.site, known.complete) == ("db", HOME, True)
        assert {disk.name: disk.size for disk in known.disks} == {"system": 2 * 2**20, "data": 64 * 2**20}


def test_where_the_target_has_a_replica_key_the_medium_is_encrypted(tmp_path: Path) -> None:
    write_new_key(tmp_path / "key")
    described = {"db": lab_machine(disks={"system": "4MiB"})}
    inventory = make_inventory(described, secondary={"replica_key": f"file:{tmp_path / 'key'}"})
    relationship = inventory.relationship("db")
    with running_lab(tmp_path / "lab", inventory) as lab:
        lab.up()
        lab.wait_for_transactions(20)
        provider = Adapters(inventory, tmp_path).provider(relationship)
        provider.enable(relationship)
        provider.export_seed(relationship, tmp_path / "medium", no_report)
        assert b"LWRDGDB" in (lab.folder().path / "system.raw").read_bytes()
        assert not any(b"LWRDGDB" in path.read_bytes() for path in (tmp_path / "medium").rglob("*.seg"))
        without = Adapters(make_inventory(described), tmp_path).provider(relationship)
        with pytest.raises(AuthenticationRefused):
            without.import_seed(relationship, tmp_path / "medium", no_report)
        provider.import_seed(relationship, tmp_path / "medium", no_report)
        provider.copy_initial(relationship, no_report)
        store = lab.site(AWAY).replica_store("db")
        assert scan_images(store.materialise(store.resolve("latest"), tmp_path / "out", no_report)).damaged == 0
