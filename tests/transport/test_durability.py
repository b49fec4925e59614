"""What a master target acknowledged survives its power cut: the promise behind every answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from model_source import ModelSource
from power import Power, PowerCut
from transport_wire import TARGET, Wire, until_free

from replication import stream
from replication.cipher import SiteKey
from replication.ports import Extent
from replication.transport.pki import Identity
from replication.transport.server import MasterTarget
from vault.domain import ConsistencyKind, Progress
from vault.errors import LeewardError

pytestmark = pytest.mark.chaos

SIZES = {"os": 200_000, "data": 70_000}
CUTS = 20


def quiet(_: Progress) -> None: ...


class PoweredMasterTarget(MasterTarget):
    """Its process is gone when the power is."""

    def _write(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            yield from super()._write(requests, context)
        except PowerCut:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the power is off")


class Site:
    def __init__(self, folder: Path, rng: random.Random, site_key: SiteKey | None) -> None:
        self.folder = folder
        self.rng = rng
        self.wire = Wire(folder, site_key=site_key)
        self.server = PoweredMasterTarget(
            Identity(self.wire.pki, TARGET), self.wire.local, lambda *_: None, "127.0.0.1:0"
        )
        self.wire.address = self.server.start()
        self.source = ModelSource(SIZES)
        self.cuts = 0

    def close(self) -> None:
        self.server.stop(0)
        self.wire.close()

    def write(self) -> None:
        disk = self.rng.choice(list(SIZES))
        length = self.rng.choice([1, 4096, 50_000])
        self.source.write(disk, self.rng.randrange(SIZES[disk] - length + 1), self.rng.randbytes(length))

    def until_acknowledged(self, operation: Callable[[], object], check: Callable[[], None], effects: int = 40) -> None:
        """Cut the target's power at a random effect; what was acknowledged before must be there; then again."""
        while True:
            stash = self.folder / f"stash-{self.cuts}-{self.rng.getrandbits(48):x}"
            stash.mkdir()
            power = Power(stash, self.rng, self.rng.randrange(1, effects) if self.rng.random() < 0.8 else None)
            try:
                with power.on():
                    self._attempt(operation, power)
            except PowerCut:
                self.cuts += 1
                check()
            else:
                check()
                return

    def _attempt(self, operation: Callable[[], object], power: Power) -> None:
        try:
            until_free(operation)
        except LeewardError as error:
            if power._off:
                raise PowerCut from error
            raise


@pytest.fixture(params=["plain", "encrypted"])
def site(request: pytest.FixtureRequest, tmp_path: Path, site_key: SiteKey) -> Iterator[Site]:
    site = Site(tmp_path, random.Random(request.param), site_key if request.param == "encrypted" else None)
    yield site
    site.close()


def test_acknowledged_recovery_points_survive_a_power_cut(site: Site) -> None:
    acknowledged: dict[str, dict[str, bytes]] = {}

    def check() -> None:
        store = site.wire.local()
        points = {point.id: point for point in store.state().points} if store.exists() else {}
        assert acknowledged.keys() <= points.keys()
        for point in points.values():
            for name in SIZES:
                view = store.view(name, point)
                assert view.read(0, view.size) == site.source.moments[point.time][name]
                view.close()

    def replicate() -> None:
        point = stream.replicate_cut(site.source, site.wire.remote(), ConsistencyKind.CRASH, quiet)
        acknowledged[point.id] = site.source.moments[point.time]

    def seed() -> None:
        point = stream.copy_initial(site.source, site.wire.remote(), quiet, checkpoint_bytes=65536)
        acknowledged[point.id] = site.source.moments[point.time]

    site.write()
    epoch = site.source.start_tracking()
    site.until_acknowledged(lambda: site.wire.remote().create(site.source.disks(), epoch), lambda: None)
    site.write()
    site.until_acknowledged(seed, check)
    while site.cuts < CUTS or len(acknowledged) < 4:
        site.write()
        site.until_acknowledged(replicate, check)


def test_an_acknowledged_checkpoint_survives_a_power_cut(site: Site) -> None:
    """Blocks below the offset are there, and a new try does not send them again."""
    site.wire.remote().create(site.source.disks(), site.source.start_tracking())
    image = bytearray(SIZES["os"])
    acknowledged = 0

    def check() -> None:
        state = site.wire.local().state()
        assert state.seeded_bytes["os"] >= acknowledged
        held = (site.wire.replicas / "db" / "base-os.raw").read_bytes()
        assert held[:acknowledged] == image[:acknowledged]

    def step(begin: int, end: int) -> None:
        nonlocal acknowledged
        image[begin:end] = site.rng.randbytes(end - begin)
        store = site.wire.remote()
        with store.lock():
            store.write_base("os", Extent(begin, bytes(image[begin:end])))
            store.checkpoint_base("os", end)
        acknowledged = end

    for begin in range(0, SIZES["os"], 10_000):
        site.until_acknowledged(lambda b=begin: step(b, min(b + 10_000, SIZES["os"])), check, effects=14)
    assert site.cuts >= 5
