"""What a master target does with the messages of one session. It knows a replica store, and no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from replication.checksums import CHECKSUM_LENGTH
from replication.cipher import Encryption, FrameCipher
from replication.compare import SAME_RELEASE
from replication.frames import FRAME_MAX, Frame, check_frame, plain_of
from replication.local import LocalReplicaStore
from replication.ports import BlockChecksums, BlockReader, ReplicaState
from replication.ranges import PIECE
from replication.segment import SegmentFile
from replication.transport import messages as say
from replication.transport.filling import Filling
from replication.transport.messages import RANGE, RANGES_A_PAGE, Done, Message
from vault.errors import BadInput, Damaged, InvalidState

READ_MAX = 8 << 20
CHECKSUMS_MAX = 1 << 30
Answer = tuple[Done, bytes]


def answer(store: LocalReplicaStore, question: Message) -> Done:
    """One question, one answer; nothing changes."""
    match question:
        case say.Exists():
            return Done(result=store.exists())
        case say.State():
            return Done(result=_as_told(store.state()))
        case say.Resolve(choice=choice):
            return Done(result=store.resolve(choice).model_dump(mode="json"))
    raise _out_of_place(question)


def _as_told(state: ReplicaState) -> dict[str, Any]:
    """A source of an earlier release understands it, unless its machine was failed over."""
    return state.model_dump(mode="json", exclude=None if state.failed_over_to else {"failed_over_to"})


class WritingSession:
    """The changes of one writer, in the order they came. The caller holds the store's lock, in this thread.

    A ``Done`` for ``CheckpointBase``, ``CloseSegment``, ``Seal`` … means that it survives a power cut: the store has
    synced it before.
    """

    def __init__(self, store: LocalReplicaStore) -> None:
        self._store = store
        self._filling = Filling(store)
        self._segments: dict[str, SegmentFile] = {}
        self._ciphers: dict[Encryption, FrameCipher | None] = {}

    def perform(self, message: Message, payload: memoryview) -> Iterator[Done]:
        """Gives the answers that are due now, in the order of the messages they answer."""
        match message:
            case say.WriteBase():
                self._write_base(message, payload)
            case say.AddFrame(disk=disk):
                self._segment(disk).append(_checked(payload))
            case say.CheckpointBase(disk=disk, offset=offset):
                yield from [Done()] * self._filling.checkpoint(disk, offset)
            case _:
                yield from [Done()] * self._filling.settle()
                yield Done(result=self._change(message))

    def _change(self, message: Message) -> Any:
        store = self._store
        match message:
            case say.Create(disks=disks, epoch=epoch):
                store.create(disks, epoch)
            case say.BeginSeed(moment=moment):
                store.begin_seed(moment)
            case say.Settle():
                pass
            case say.CompleteSeed(time=time, consistency=kind):
                return store.complete_seed(time, kind).model_dump(mode="json")
            case say.OpenSegment(disk=disk, cut=cut, epoch=epoch, encryption=encryption):
                self._abandon(disk)
                self._segments[disk] = store.open_frames(disk, cut, epoch=epoch, encryption=encryption)
            case say.CloseSegment(disk=disk, frames=frames):
                self._close_segment(disk, frames)
            case say.AbandonSegment(disk=disk):
                self._abandon(disk)
            case say.Seal() | say.KeepDifferences():
                return self._keep(message)
            case say.Prune(retention=retention, now=now, in_use=in_use):
                return store.prune(retention, now, in_use=frozenset(in_use))
            case _:
                self._settle_failover(message)
        return None

    def _settle_failover(self, message: Message) -> None:
        match message:
            case say.KeepOnly(point=point):
                self._store.keep_only(point)
            case say.Readmit():
                self._store.readmit()
            case say.Remove():
                self._store.remove()
            case _:
                raise _out_of_place(message)

    def _keep(self, message: say.Seal | say.KeepDifferences) -> Any:
        """What was staged."""
        if isinstance(message, say.KeepDifferences):
            self._store.keep_differences(message.epoch)
            return None
        cut, time, kind = message.cut, message.time, message.consistency
        return self._store.seal(cut, time, kind, epoch=message.epoch, group=message.group).model_dump(mode="json")

    def finish(self) -> Iterator[Done]:
        """All messages have come: do what is left to do. Gives the answers that are due."""
        yield from [Done()] * self._filling.settle()

    def close(self) -> None:
        """What was not closed is abandoned."""
        self._filling.close()
        for disk in list(self._segments):
            self._abandon(disk)

    def _write_base(self, message: say.WriteBase, payload: memoryview) -> None:
        frame, cipher = _checked(payload), self._cipher(message.disk, message.encryption)
        self._filling.add(message.disk, frame, lambda: plain_of(frame, _damaged, cipher, message.number))

    def _cipher(self, disk: str, encryption: Encryption | None) -> FrameCipher | None:
        if encryption is None:
            return self._store.frame_cipher(disk, None)
        if encryption not in self._ciphers:
            self._ciphers[encryption] = self._store.frame_cipher(disk, encryption)
        return self._ciphers[encryption]

    def _segment(self, disk: str) -> SegmentFile:
        if disk not in self._segments:
            raise InvalidState(f"no segment of '{disk}' is open in this session", remedy=SAME_RELEASE)
        return self._segments[disk]

    def _close_segment(self, disk: str, frames: int) -> None:
        segment = self._segment(disk)
        if segment.frames != frames:
            raise Damaged(
                f"{frames} frames of '{disk}' were sent, {segment.frames} arrived", remedy="send the changes again"
            )
        segment.close()
        del self._segments[disk]

    def _abandon(self, disk: str) -> None:
        segment = self._segments.pop(disk, None)
        if segment is not None:
            segment.abandon()


class ReadingSession(Protocol):
    """One open disk, until :meth:`close`."""

    def perform(self, message: Message) -> Answer: ...
    def close(self) -> None: ...


class _Ranges:
    """The pages of every iteration over what a disk holds."""

    def __init__(self, allocated: Callable[[], Iterator[tuple[int, int]]]) -> None:
        self._allocated = allocated
        self._iterators: dict[int, Iterator[tuple[int, int]]] = {}

    def page(self, number: int) -> Answer:
        if number not in self._iterators:
            self._iterators[number] = self._allocated()
        page = islice(self._iterators[number], RANGES_A_PAGE)
        return Done(), b"".join([RANGE.pack(*found) for found in page])


class ViewSession:
    """Blocks at a recovery point."""

    def __init__(self, view: BlockReader) -> None:
        self._view = view
        self._ranges = _Ranges(view.allocated)
        self.close = view.close

    def perform(self, message: Message) -> Answer:
        match message:
            case say.Read(offset=offset, length=length):
                _require_at_most(length, READ_MAX)
                return Done(), self._view.read(offset, length)
            case say.Allocated(iterator=number):
                return self._ranges.page(number)
        raise _out_of_place(message)


class ChecksumSession:
    """What a disk holds, by checksums."""

    def __init__(self, checksums: BlockChecksums) -> None:
        self._checksums = checksums
        self._ranges = _Ranges(checksums.allocated)
        self.close = checksums.close

    def perform(self, message: Message) -> Answer:
        match message:
            case say.Checksums(offset=offset, length=length, block=block):
                _require_at_most(length, CHECKSUMS_MAX)
                _require_at_most(block, READ_MAX)
                return self._of_blocks(offset, length, block)
            case say.Allocated(iterator=number):
                return self._ranges.page(number)
        raise _out_of_place(message)

    def _of_blocks(self, offset: int, length: int, block: int) -> Answer:
        """Piece by piece, so that memory stays small however much is asked for."""
        found: list[bytes] = []
        piece = max(block, PIECE - PIECE % block)
        for start in range(offset, offset + length, piece):
            found += self._checksums.checksums(start, min(piece, offset + length - start), block)
        damaged = [number for number, checksum in enumerate(found) if not checksum]
        return Done(result=damaged), b"".join([checksum or bytes(CHECKSUM_LENGTH) for checksum in found])


def open_reading(store: LocalReplicaStore, first: Message) -> tuple[ReadingSession, Done]:
    """The session that ``first`` opens, and the answer to it: a view tells its size."""
    match first:
        case say.OpenView(disk=disk, point=point):
            view = store.view(disk, point)
            return ViewSession(view), Done(result=view.size)
        case say.OpenChecksums(disk=disk):
            return ChecksumSession(store.open_checksums(disk)), Done()
    raise _out_of_place(first)


def _checked(payload: memoryview) -> Frame:
    if len(payload) > FRAME_MAX:
        raise _damaged(f"a frame has {len(payload)} bytes", 0)
    return check_frame(payload, _damaged)


def _damaged(what: str, position: int) -> Damaged:
    return Damaged(
        f"{what} at byte {position} of what arrived; it was not stored",
        remedy="if it happens again, check the memory of both hosts",
    )


def _require_at_most(length: int, most: int) -> None:
    if not 0 < length <= most:
        raise BadInput(f"{length} bytes were asked for at once, at most {most} are given", remedy=SAME_RELEASE)


def _out_of_place(message: Message) -> InvalidState:
    return InvalidState(f"a message {type(message).__name__} has no place here", remedy=SAME_RELEASE)
