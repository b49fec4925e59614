"""The messages between a process server and a master target.

One message is a head, a JSON document and a payload of blocks; all of it lies under checksums, so that a bit that flips
in the memory of either side is found before anything is stored. ``docs/formats.md`` has the bytes.
"""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from replication.checksums import checksum64
from replication.cipher import Encryption
from vault.domain import ConsistencyKind, Disk, RecoveryPoint, Retention, Value
from vault.errors import Damaged, InvalidState

MAGIC = b"LWTM"
VERSION = 2
HEAD = struct.Struct("<4sHHIQ")
"""magic, version, kind, length of the JSON, checksum of the payload; then a checksum of the head and the JSON."""
CHECKSUM = struct.Struct("<Q")
RANGE = struct.Struct("<QQ")
"""offset, length: what the answer to :class:`Allocated` consists of."""
RANGES_A_PAGE = 1 << 14

Payload = bytes | memoryview


class Message(Value):
    kind: ClassVar[int]
    waits: ClassVar[bool] = True
    """False: the sender goes on at once. An error of such a message ends the session."""


# --- questions: one message, one answer ---------------------------------------------------------------------------


class Exists(Message):
    kind = 1


class State(Message):
    kind = 2


class Resolve(Message):
    kind = 3
    choice: str


# --- a writing session: it holds the replica's lock from its first message to its end --------------------------------


class Lock(Message):
    kind = 16
    purpose: str


class Create(Message):
    kind = 17
    disks: list[Disk]
    epoch: str


class BeginSeed(Message):
    kind = 18
    moment: datetime | None = None


class WriteBase(Message):
    """Payload: a frame."""

    kind = 19
    waits = False
    disk: str
    number: int
    encryption: Encryption | None = None


class CheckpointBase(Message):
    """Answered before whatever is answered next, and no later than the next one of these."""

    kind = 20
    waits = False
    disk: str
    offset: int


class CompleteSeed(Message):
    kind = 21
    time: datetime
    consistency: ConsistencyKind


class OpenSegment(Message):
    kind = 22
    disk: str
    cut: int
    epoch: str | None = None
    encryption: Encryption | None = None


class AddFrame(Message):
    """Payload: a frame."""

    kind = 23
    waits = False
    disk: str


class CloseSegment(Message):
    """``frames`` is how many were sent: a segment that misses one is refused."""

    kind = 24
    disk: str
    frames: int


class AbandonSegment(Message):
    kind = 25
    disk: str


class Seal(Message):
    kind = 26
    cut: int
    time: datetime
    consistency: ConsistencyKind
    epoch: str | None = None
    group: str = ""


class KeepDifferences(Message):
    kind = 31
    epoch: str


class Prune(Message):
    kind = 27
    retention: Retention
    now: datetime
    in_use: list[str]


class KeepOnly(Message):
    kind = 28
    point: RecoveryPoint


class Remove(Message):
    kind = 29


class Readmit(Message):
    kind = 32


class Settle(Message):
    """Everything that came before is done, and every checkpoint durable."""

    kind = 30


# --- a reading session: its first message opens a disk ---------------------------------------------------------------


class OpenView(Message):
    kind = 48
    disk: str
    point: RecoveryPoint | None = None


class OpenChecksums(Message):
    kind = 49
    disk: str


class Read(Message):
    kind = 50
    offset: int
    length: int


class Checksums(Message):
    """Answered with 16 bytes for each block; ``Done.result`` lists the numbers of damaged ones."""

    kind = 51
    offset: int
    length: int
    block: int


class Allocated(Message):
    """The next page of ranges of the iteration called ``iterator``; an empty page is the last."""

    kind = 52
    iterator: int


# --- answers --------------------------------------------------------------------------------------------------------


class Done(Message):
    kind = 80
    result: Any = None


class Failed(Message):
    """An error of :mod:`vault.errors`, as :mod:`replication.transport.failures` writes it."""

    kind = 81
    error: str
    what: str
    where: str
    remedy: str
    recoverable: bool


KINDS: dict[int, type[Message]] = {
    message.kind: message
    for message in (
        *(Exists, State, Resolve),
        *(Lock, Create, BeginSeed, WriteBase, CheckpointBase, CompleteSeed),
        *(OpenSegment, AddFrame, CloseSegment, AbandonSegment, Seal, KeepDifferences, Prune, Settle),
        *(KeepOnly, Readmit, Remove),
        *(OpenView, OpenChecksums, Read, Checksums, Allocated),
        *(Done, Failed),
    )
}


def encode(message: Message, *payload: Payload) -> bytes:
    """The message as it is sent; the parts of ``payload`` one after another."""
    document = message.model_dump_json(exclude_none=True).encode()
    head = HEAD.pack(MAGIC, VERSION, message.kind, len(document), checksum64(*payload)) + document
    return b"".join((head, CHECKSUM.pack(checksum64(head)), *payload))


def decode(raw: bytes) -> tuple[Message, memoryview]:
    """The message and its payload.

    Raises:
        Damaged: what arrived is not what was sent.
        InvalidState: the other side speaks another version.
    """
    view = memoryview(raw)
    if len(raw) < HEAD.size:
        raise _damaged("it is cut short")
    magic, version, kind, length, of_payload = HEAD.unpack_from(view)
    begin = HEAD.size + length + CHECKSUM.size
    if magic != MAGIC or len(raw) < begin:
        raise _damaged("it is not a message, or cut short")
    head = view[: HEAD.size + length]
    if view[HEAD.size + length : begin] != CHECKSUM.pack(checksum64(head)):
        raise _damaged("its head does not match its checksum")
    payload = view[begin:]
    if checksum64(payload) != of_payload:
        raise _damaged("its blocks do not match their checksum")
    if version != VERSION or kind not in KINDS:
        raise _foreign(f"version {version} and kind {kind}")
    try:
        return KINDS[kind].model_validate_json(bytes(head[HEAD.size :])), payload
    except ValidationError as error:
        raise _foreign(f"kind {KINDS[kind].__name__} with other fields") from error


Expected = TypeVar("Expected", bound=Message)


def expect(kind: type[Expected], message: Message) -> Expected:
    """``message``, which the protocol says is of this kind."""
    if not isinstance(message, kind):
        raise _foreign(f"kind {type(message).__name__} where a {kind.__name__} is due")
    return message


def _foreign(what: str) -> InvalidState:
    return InvalidState(
        f"a message of {what} is not known here", remedy="let both sites run the same release of leeward"
    )


def _damaged(why: str) -> Damaged:
    return Damaged(
        f"a message between process server and master target was refused: {why}",
        remedy="if it happens again, check the memory of both hosts",
    )
