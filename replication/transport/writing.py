"""The changes of one writer on their way to a master target, while it holds the replica's lock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from replication.cipher import Encryption, FrameCipher, Keys
from replication.frames import Frame, FrameEncoder
from replication.manifest import disk_named
from replication.ports import Extent, ReplicaState
from replication.segment import SegmentHeader, next_frontier
from replication.transport import messages as say
from replication.transport.messages import Done, Message
from replication.transport.session import Session
from vault.errors import LeewardError


class Writing:
    """One held lock.

    What is written into the base goes out at once and nobody answers it: the answer to the next request, or the end,
    says whether all of it arrived.

    Args:
        state: asks the master target what it has.
    """

    def __init__(self, session: Session, machine: str, keys: Keys, state: Callable[[], ReplicaState]) -> None:
        self._session = session
        self._machine = machine
        self._keys = keys
        self._ask_state = state
        self._state: ReplicaState | None = None
        self._bases: dict[str, FrameEncoder] = {}
        self._unanswered = 0

    def request(self, message: Message) -> Done:
        self.settle()
        if isinstance(message, say.Create | say.Remove):
            self._close_bases()
            self._state = None
        done, _ = self._session.request(message)
        return done

    def write_base(self, disk: str, extent: Extent) -> None:
        if disk not in self._bases:
            self._bases[disk] = self._base(disk)
        self._bases[disk].add(extent)

    def checkpoint(self, disk: str, offset: int) -> None:
        """The disk's blocks go on to be read, compressed and sent while the master target syncs these."""
        message = say.CheckpointBase(disk=disk, offset=offset)

        def send() -> None:
            before = self._unanswered
            self._session.send(message)
            self._unanswered += 1
            self._answers(before)

        if disk in self._bases:
            self._bases[disk].then(send)
        else:
            send()

    def settle(self) -> None:
        """Everything sent so far has arrived, and every checkpoint is durable. Raises what went wrong with it."""
        for base in self._bases.values():
            base.flush()
        if self._unanswered:
            self._session.send(say.Settle())
            self._answers(self._unanswered + 1)

    def open_segment(self, disk: str, cut: int, epoch: str | None) -> RemoteSegmentWriter:
        encryption, cipher = self._encryption(disk)
        self.request(say.OpenSegment(disk=disk, cut=cut, epoch=epoch, encryption=encryption))
        header = SegmentHeader(
            machine=self._machine, disk=disk, disk_size=self._size(disk), sequence=0, epoch=epoch or "", cut=cut
        )
        return RemoteSegmentWriter(self._session, header, cipher)

    def finish(self) -> None:
        """Everything arrived, and the lock is free. Raises what went wrong with it."""
        self.settle()
        self._close_bases()
        self._session.finish()

    def drop(self) -> None:
        """Let go of the lock; what was not acknowledged may be there or not. Idempotent."""
        self._close_bases()
        self._session.drop()

    def _answers(self, awaited: int) -> None:
        for _ in range(awaited):
            self._session.answer()
        self._unanswered = max(0, self._unanswered - awaited)

    def _base(self, disk: str) -> FrameEncoder:
        encryption, cipher = self._encryption(disk)
        sent = 0

        def send(frame: Frame) -> None:
            nonlocal sent
            self._session.send(say.WriteBase(disk=disk, number=sent, encryption=encryption), frame)
            sent += 1

        return FrameEncoder(send, cipher)

    def _close_bases(self) -> None:
        while self._bases:
            self._bases.popitem()[1].close()

    def _encryption(self, disk: str) -> tuple[Encryption | None, FrameCipher | None]:
        key = self._keys.open(self._replica().key)
        if key is None:
            return None, None
        encryption = key.new_stream()
        return encryption, key.cipher(encryption, disk)

    def _size(self, disk: str) -> int:
        return disk_named(disk, self._replica().disks, self._machine).size

    def _replica(self) -> ReplicaState:
        if self._state is None:
            self._state = self._ask_state()
        return self._state


class RemoteSegmentWriter:
    """A :class:`replication.ports.SegmentWriter`: encodes here, stages there."""

    def __init__(self, session: Session, header: SegmentHeader, cipher: FrameCipher | None) -> None:
        self.bytes_sent = 0
        self._session = session
        self._header = header
        self._frontier = 0
        self._frames = 0
        self._open = True
        self._encoder = FrameEncoder(self._send, cipher)

    def add(self, extent: Extent) -> None:
        self._frontier = next_frontier(extent, self._frontier, self._header)
        self._encoder.add(extent)

    def close(self) -> None:
        """Idempotent."""
        if self._open:
            self._encoder.flush()
            self._session.request(say.CloseSegment(disk=self._header.disk, frames=self._frames))
            self._open = False
            self._encoder.close()

    def abandon(self) -> None:
        self._encoder.close()
        if self._open:
            self._open = False
            with suppress(LeewardError):  # a session that is over has abandoned it already
                self._session.request(say.AbandonSegment(disk=self._header.disk))

    def _send(self, frame: Frame) -> None:
        self.bytes_sent += self._session.send(say.AddFrame(disk=self._header.disk), frame)
        self._frames += 1
