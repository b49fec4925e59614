from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from replication.checksums import checksum64
from replication.frames import encode_frame
from replication.transport import failures
from replication.transport import messages as say
from replication.transport.messages import CHECKSUM, HEAD, KINDS, MAGIC, decode, encode
from vault import errors
from vault.domain import ConsistencyKind, Disk, RecoveryPoint, Retention
from vault.errors import Damaged, InvalidState, LeewardError

pytestmark = pytest.mark.unit

NOW = datetime(2026, 6, 1, tzinfo=UTC)
POINT = RecoveryPoint(id="rp-1", sequence=1, time=NOW)
EXAMPLES = [
    say.Exists(),
    say.State(),
    say.Resolve(choice="latest"),
    say.Lock(purpose="delta replication"),
    say.Create(disks=[Disk(name="os", size=1 << 40)], epoch="e"),
    say.BeginSeed(moment=None),
    say.BeginSeed(moment=NOW),
    say.WriteBase(disk="os", number=3),
    say.CheckpointBase(disk="os", offset=1 << 35),
    say.Settle(),
    say.CompleteSeed(time=NOW, consistency=ConsistencyKind.CRASH),
    say.OpenSegment(disk="os", cut=0, epoch="e"),
    say.AddFrame(disk="os"),
    say.CloseSegment(disk="os", frames=0),
    say.AbandonSegment(disk="os"),
    say.Seal(cut=1, time=NOW, consistency=ConsistencyKind.APPLICATION, group="erp"),
    say.KeepDifferences(epoch="e"),
    say.Prune(retention=Retention(), now=NOW, in_use=["rp-1"]),
    say.KeepOnly(point=POINT),
    say.Readmit(),
    say.Remove(),
    say.OpenView(disk="os", point=POINT),
    say.OpenChecksums(disk="os"),
    say.Read(offset=0, length=1),
    say.Checksums(offset=0, length=1, block=1),
    say.Allocated(iterator=0),
    say.Done(result={"any": [1, "thing"]}),
    failures.to_wire(errors.NoSpace("full", where="here", remedy="make room")),
]


def test_every_message_arrives_as_it_was_sent() -> None:
    assert {type(message) for message in EXAMPLES} == set(KINDS.values())
    for message in EXAMPLES:
        arrived, payload = decode(encode(message, b"blocks ", memoryview(b"and more")))
        assert arrived == message
        assert bytes(payload) == b"blocks and more"
    assert len(decode(encode(say.Exists()))[1]) == 0


def test_every_flipped_bit_and_every_cut_is_detected() -> None:
    frame = encode_frame(b"", b"some blocks")
    sound = encode(say.AddFrame(disk="os"), frame.head, frame.payload)
    rng = random.Random(1)
    for position in range(len(sound)):
        broken = bytearray(sound)
        broken[position] ^= 1 << rng.randrange(8)
        with pytest.raises(Damaged):
            decode(bytes(broken))
        with pytest.raises(Damaged):
            decode(sound[:position])
    with pytest.raises(Damaged):
        decode(sound + b"\0")


def craft(version: int, kind: int, document: bytes) -> bytes:
    head = HEAD.pack(MAGIC, version, kind, len(document), checksum64(b"")) + document
    return head + CHECKSUM.pack(checksum64(head))


@pytest.mark.parametrize(
    ("version", "kind", "document"),
    [(1, 1, b"{}"), (2, 999, b"{}"), (2, 1, b'{"new": 1}'), (2, 3, b"{}"), (2, 1, b"[")],
)
def test_another_release_is_not_called_damage(version: int, kind: int, document: bytes) -> None:
    with pytest.raises(InvalidState, match="is not known here") as caught:
        decode(craft(version, kind, document))
    assert "same release" in caught.value.remedy


def test_a_message_out_of_place_is_refused() -> None:
    with pytest.raises(InvalidState, match="kind Exists where a Lock is due"):
        say.expect(say.Lock, say.Exists())


CLASSES = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, LeewardError) and found is not errors.InputErrors
]


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_arrives_with_its_class_and_its_words(error: type[LeewardError]) -> None:
    raised = error("the disk is full", where="site recovery", remedy="free space")
    arrived = failures.from_wire(decode(encode(failures.to_wire(raised)))[0])  # type: ignore[arg-type]
    assert type(arrived) is error
    assert (str(arrived), arrived.recoverable) == (str(raised), raised.recoverable)


def test_several_errors_at_once_and_classes_of_another_release() -> None:
    both = errors.InputErrors([errors.BadInput("one"), errors.BadInput("two")])
    assert type(failures.from_wire(failures.to_wire(both))) is errors.BadInput
    for recoverable, expected in ((True, errors.Recoverable), (False, errors.NotRecoverable)):
        unknown = say.Failed(error="Later", what="w", where="", remedy="", recoverable=recoverable)
        assert type(failures.from_wire(unknown)) is expected
    unforeseen = failures.from_wire(failures.unforeseen(ZeroDivisionError("by zero")))
    assert "ZeroDivisionError: by zero" in str(unforeseen)
    assert not unforeseen.recoverable
