from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
from model_source import ModelSource

from replication import files, stream
from replication.cipher import FrameCipher, SiteKey, write_new_key
from replication.frames import EXTENT, ZEROS, Frame, check_frame, encode_frame, plain_of
from replication.local import LocalReplicaStore
from replication.segment_reader import SegmentReader
from vault.domain import ConsistencyKind, Progress, Retention
from vault.errors import AuthenticationRefused, BadInput, Damaged, InvalidState, NoSpace

pytestmark = pytest.mark.unit

CRASH = ConsistencyKind.CRASH
SECRET = b"the salary of the managing director " * 200
KEY = SiteKey(bytes(32), "env:KEY")
OTHER = SiteKey(bytes([1]) * 32, "env:OTHER")


def quiet(_: Progress) -> None: ...


def damaged(what: str, position: int) -> Damaged:
    return Damaged(f"{what} at byte {position}")


class Pair:
    def __init__(self, folder: Path, site_key: SiteKey | None) -> None:
        self.folder = folder
        self.source = ModelSource({"os": 200_000})
        self.store = self.opened(site_key)
        self.store.create(self.source.disks(), self.source.start_tracking())
        stream.copy_initial(self.source, self.store, quiet)
        self.delta()

    def opened(self, site_key: SiteKey | None, machine: str = "db") -> LocalReplicaStore:
        return LocalReplicaStore(self.folder / "replica", machine=machine, site_key=site_key)

    def delta(self) -> None:
        self.source.write("os", 1000, SECRET)
        stream.replicate_cut(self.source, self.store, CRASH, quiet)

    def latest(self, store: LocalReplicaStore) -> bytes:
        view = store.view("os")
        try:
            return view.read(0, view.size)
        finally:
            view.close()

    def files(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, KEY)


def test_segments_hold_ciphertext_and_a_pruned_base_can_boot(tmp_path: Path, pair: Pair) -> None:
    assert SECRET[:36] not in pair.files()
    assert pair.latest(pair.opened(KEY)) == pair.source.images["os"]
    pair.store.prune(Retention(count=1, hours=1000), pair.source.now())
    assert (pair.folder / "replica" / "base-os.raw").read_bytes() == pair.source.images["os"]
    readable = Pair(tmp_path / "plain", None)
    (segment,) = (readable.folder / "replica/segments").glob("0000000003*")
    assert b"AES" not in segment.read_bytes()


def test_the_keys_are_nowhere_in_the_clear(pair: Pair) -> None:
    wrapped = pair.store.state().key
    assert wrapped is not None
    key = KEY.unwrap("db", wrapped)._key
    for secret in (key, key.hex().encode(), bytes(32).hex().encode()):
        assert secret not in pair.files()


@pytest.mark.parametrize("site_key", [OTHER, None])
def test_a_wrong_key_is_named_and_changes_nothing(pair: Pair, site_key: SiteKey | None) -> None:
    before = pair.files()
    stranger = pair.opened(site_key)
    expected = "no site key is configured here"
    if site_key:
        expected = f"site key {OTHER.id} does not open the key of 'db', which site key {KEY.id}"
    for attempt in (
        lambda: stranger.view("os"),
        lambda: stream.replicate_cut(pair.source, stranger, CRASH, quiet),
        lambda: stream.resynchronize(pair.source, stranger, quiet),
        lambda: stranger.materialise(pair.store.state().points[-1], pair.folder / "out", quiet),
    ):
        with pytest.raises(AuthenticationRefused, match=expected):
            attempt()
    assert pair.latest(pair.store) == pair.source.images["os"]
    points = stranger.state().points
    with pytest.raises(AuthenticationRefused, match=expected):
        stranger.prune(Retention(count=1, hours=1000), pair.source.now())
    assert pair.store.state().points == points
    assert pair.latest(pair.store) == pair.source.images["os"]
    assert len(pair.files()) == pytest.approx(len(before), rel=0.1)


def test_a_machines_key_does_not_open_another_machines_replica(pair: Pair) -> None:
    with pytest.raises(AuthenticationRefused, match="does not open the key of 'web'"):
        pair.opened(KEY, "web").view("os")


def test_a_replica_made_without_encryption_is_not_written_as_if_it_had_it(tmp_path: Path) -> None:
    pair = Pair(tmp_path, None)
    with pytest.raises(InvalidState, match="made without encryption"):
        stream.replicate_cut(pair.source, pair.opened(KEY), CRASH, quiet)


def test_an_exchanged_segment_does_not_decrypt(pair: Pair) -> None:
    """Even when its checksums are made to fit: a frame belongs to its stream, its disk and its number."""
    key = pair.store._keys.open(pair.store.state().key)
    assert key is not None
    one, two = key.new_stream(), key.new_stream()
    table = EXTENT.pack(0, len(SECRET), 0)
    frame = encode_frame(table, SECRET, key.cipher(one, "os"), 7)
    raw = memoryview(frame.head + bytes(frame.payload))

    def opened(cipher: FrameCipher | None, number: int, frame: Frame | None = None) -> bytes:
        return plain_of(frame or check_frame(raw, damaged), damaged, cipher, number)

    assert opened(key.cipher(one, "os"), 7) == SECRET
    for cipher, number in ((key.cipher(one, "os"), 8), (key.cipher(one, "data"), 7), (key.cipher(two, "os"), 7)):
        with pytest.raises(Damaged, match="does not belong here"):
            opened(cipher, number)
    with pytest.raises(Damaged, match="not encrypted as its stream says"):
        opened(None, 7)
    moved = frame._replace(table=EXTENT.pack(4096, len(SECRET), 0))
    with pytest.raises(Damaged, match="does not belong here"):
        opened(key.cipher(one, "os"), 7, moved)


def test_a_frame_of_zeros_is_bound_as_well(pair: Pair) -> None:
    key = pair.store._keys.open(pair.store.state().key)
    assert key is not None
    cipher = key.cipher(key.new_stream(), "os")
    frame = encode_frame(EXTENT.pack(0, 1 << 20, ZEROS), b"", cipher, 0)
    assert plain_of(frame, damaged, cipher, 0) == b""
    with pytest.raises(Damaged):
        plain_of(frame._replace(table=EXTENT.pack(1 << 20, 1 << 20, ZEROS)), damaged, cipher, 0)


def test_no_two_streams_have_the_same_key(pair: Pair) -> None:
    for _ in range(5):
        pair.delta()
    salts = set()
    for path in (pair.folder / "replica/segments").iterdir():
        reader = SegmentReader(path, pair.store._keys.open(pair.store.state().key))
        assert reader.header.encryption is not None
        salts.add(reader.header.encryption.salt)
        reader.close()
    assert len(salts) == 7
    same = [encode_frame(EXTENT.pack(0, len(SECRET), 0), SECRET, FrameCipher(bytes(32), b""), n) for n in (0, 1)]
    assert same[0].payload != same[1].payload


def test_a_flipped_bit_in_an_encrypted_segment_is_found(pair: Pair) -> None:
    path = pair.folder / "replica/segments/0000000003-os.seg"
    sound = path.read_bytes()
    rng = random.Random(2)
    for position in range(len(sound)):
        broken = bytearray(sound)
        broken[position] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        with pytest.raises((Damaged, InvalidState)):
            pair.latest(pair.store)
    path.write_bytes(sound)
    assert pair.latest(pair.store) == pair.source.images["os"]


@pytest.mark.parametrize("text", ["00" * 32, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", f"{'00' * 32}\n"])
def test_a_site_key_is_read_by_reference(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_KEY", text)
    assert SiteKey.from_reference("env:SITE_KEY").id == KEY.id


@pytest.mark.parametrize("text", ["short", "zz" * 32, "00" * 16, "é" * 64])
def test_what_is_no_key_is_refused_without_being_quoted(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_KEY", text)
    with pytest.raises(BadInput, match="env:SITE_KEY") as caught:
        SiteKey.from_reference("env:SITE_KEY")
    assert text not in str(caught.value)
    assert "leeward pki key" in caught.value.remedy


def test_a_new_key_is_durable_before_anything_is_encrypted_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be gone with everything that it opens. One that could not be written whole is not there."""
    synced: list[bytes] = []
    real = files.sync

    def sync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").resolve()
        synced.append(path.read_bytes() if path.is_file() else b"folder")
        real(fd)

    monkeypatch.setattr(files, "sync", sync)
    write_new_key(tmp_path / "key")
    assert synced == [(tmp_path / "key").read_bytes(), b"folder"]
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidState, match="exists already"):
        write_new_key(tmp_path / "key")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(files, "write_at", full)
    with pytest.raises(NoSpace):
        write_new_key(tmp_path / "other")
    assert not (tmp_path / "other").exists()
