"""Bits that flip inside either end, beyond what TLS protects: found on arrival, and nothing of them is stored."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_source import ModelSource
from transport_wire import Wire

from replication import stream
from replication.frames import Frame
from replication.local import LocalReplicaStore
from replication.transport import session
from replication.transport.messages import Message, Payload, encode
from replication.transport.remote import RemoteReplicaStore
from vault.domain import ConsistencyKind, Progress, RecoveryPoint
from vault.errors import Damaged, InvalidState, LeewardError, NotRecoverable

pytestmark = pytest.mark.contract

FLIPS = 25


def quiet(_: Progress) -> None: ...


class Pair:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.rng = random.Random(5)
        self.source = ModelSource({"os": 300_000, "data": 100_000})
        self.noise(250_000)
        self.store.create(self.source.disks(), self.source.start_tracking())

    @property
    def store(self) -> RemoteReplicaStore:
        return self.wire.remote()

    def noise(self, length: int) -> None:
        self.source.write("os", self.rng.randrange(300_000 - length + 1), self.rng.randbytes(length))

    def check(self, points: list[RecoveryPoint] | None = None) -> None:
        store = self.wire.local()
        for point in points or store.state().points:
            for name in self.source.images:
                view = store.view(name, point)
                assert view.read(0, view.size) == self.source.moments[point.time][name]
                view.close()


@pytest.fixture(params=["wire", "encrypted"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.getfixturevalue(request.param))


def flipping(rng: random.Random, which: int) -> Callable[..., bytes]:
    """Flips one bit of the ``which``-th message, after its checksums were made."""
    sent = 0

    def encode_and_flip(message: Message, *payload: Payload) -> bytes:
        nonlocal sent
        raw = bytearray(encode(message, *payload))
        if sent == which:
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        sent += 1
        return bytes(raw)

    return encode_and_flip


def test_a_flipped_bit_in_any_message_is_found(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    found = 0

    def attempt(transfer: Callable[[], object], which: int) -> None:
        nonlocal found
        before = pair.wire.local().state().points
        with monkeypatch.context() as patched:
            patched.setattr(session, "encode", flipping(pair.rng, which))
            try:
                transfer()
            except LeewardError as error:
                assert isinstance(error, Damaged), error
                assert not error.recoverable
                found += 1
        assert pair.wire.local().state().points[: len(before)] == before
        pair.check()

    for which in range(FLIPS):
        attempt(lambda: stream.copy_initial(pair.source, pair.store, quiet, checkpoint_bytes=65536), which)
        if pair.wire.local().state().seeded:
            break
    stream.copy_initial(pair.source, pair.store, quiet)
    for which in range(FLIPS):
        pair.noise(50_000)
        attempt(lambda: stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, quiet), which % 9)
    stream.send_last_changes(pair.source, pair.store, quiet)
    pair.check()
    assert pair.source.moments[pair.wire.local().state().points[-1].time] == pair.source.images
    assert found >= FLIPS


def test_a_frame_that_was_damaged_before_it_became_a_message_is_found(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message's checksum is right then; the frame's own is not."""
    stream.copy_initial(pair.source, pair.store, quiet)
    pair.noise(50_000)
    real = session.Session.send

    def send(self: session.Session, message: Message, frame: Frame | None = None) -> int:
        if frame is not None:
            payload = bytearray(frame.payload)
            payload[pair.rng.randrange(len(payload))] ^= 1
            frame = frame._replace(payload=bytes(payload))
        return real(self, message, frame)

    with monkeypatch.context() as patched:
        patched.setattr(session.Session, "send", send)
        with pytest.raises(Damaged, match=r"a frame's data does not match its checksum .*it was not stored"):
            stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, quiet)
    assert not list(pair.wire.replicas.rglob("*.part"))
    stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, quiet)
    pair.check()


@pytest.mark.parametrize("seed", range(10))
def test_a_bit_that_flips_in_a_staged_segment_is_never_applied(
    pair: Pair, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the master target's disk, after its blocks were acknowledged and before they are sealed."""
    pair.rng = random.Random(seed)
    stream.copy_initial(pair.source, pair.store, quiet)
    before = pair.wire.local().state().points
    pair.noise(50_000)
    seal = LocalReplicaStore.seal

    def flip_and_seal(self: LocalReplicaStore, *given: Any, **named: Any) -> RecoveryPoint:
        staged = max(pair.wire.replicas.rglob("*-os.seg"))
        raw = bytearray(staged.read_bytes())
        raw[pair.rng.randrange(len(raw))] ^= 1 << pair.rng.randrange(8)
        staged.write_bytes(raw)
        return seal(self, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(LocalReplicaStore, "seal", flip_and_seal)
        damaged = stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, quiet)
    store = pair.wire.local()
    with pytest.raises(Damaged) as found:
        view = store.view("os", damaged)
        try:
            view.read(0, view.size)
        finally:
            view.close()
    assert not found.value.recoverable
    pair.check(before)
    stream.resynchronize(pair.source, pair.store, quiet)
    assert pair.wire.local().state().points[: len(before)] == before
    pair.check([*before, pair.wire.local().state().points[-1]])
    assert pair.source.moments[pair.wire.local().state().points[-1].time] == pair.source.images


def test_a_lost_frame_is_missed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.copy_initial(pair.source, pair.store, quiet)
    pair.noise(50_000)
    real = session.Session.send

    def send(self: session.Session, message: Message, frame: Frame | None = None) -> int:
        return real(self, message, frame) if frame is None else 0

    with monkeypatch.context() as patched:
        patched.setattr(session.Session, "send", send)
        with pytest.raises(Damaged, match="1 frames of 'os' were sent, 0 arrived"):
            stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, quiet)
    stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, quiet)
    pair.check()


def test_an_error_nobody_foresaw_is_not_retried_and_says_where_to_look(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(machine: str) -> object:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(pair.wire, "store_of", fails)
    with pytest.raises(NotRecoverable, match=r"ZeroDivisionError: a bug.*read the master target's log"):
        pair.store.exists()
    with pytest.raises(NotRecoverable, match="ZeroDivisionError"), pair.store.lock():
        raise AssertionError("the lock was given")


def test_a_replica_of_another_key_is_refused_before_anything_is_sent(encrypted: Wire, tmp_path: Path) -> None:
    from replication.cipher import SiteKey

    pair = Pair(encrypted)
    stream.copy_initial(pair.source, pair.store, quiet)
    encrypted.site_key = SiteKey(bytes(32), "env:OTHER")
    pair.noise(1000)
    before = pair.wire.local().state().points
    for transfer in (
        lambda: stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, quiet),
        lambda: pair.store.view("os"),
    ):
        with pytest.raises(NotRecoverable, match="does not open the key of 'db'"):
            transfer()
    encrypted.site_key = None
    with pytest.raises(NotRecoverable, match="no site key is configured"):
        stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, quiet)
    assert pair.wire.local().state().points == before
    with pytest.raises(InvalidState, match="one lock"):
        pair.store.open_segment("os", 99)
