"""One stream of messages each way, at the process server's end."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import grpc

from replication.frames import Frame
from replication.transport.failures import at, done
from replication.transport.messages import Done, Message, Payload, decode, encode
from vault.errors import LeewardError, Unreachable

SENDING_BYTES = 8 << 20
"""Messages of one session that wait to be sent: with what is read ahead and encoded, less than the stream's window."""
ANSWERS_WITHIN_S = 900.0
"""The longest change at a master target, merging an old point, is long done by then."""
ENDS_WITHIN_S = 60.0

Throttle = Callable[[int], None]
"""Called with the bytes about to be sent; takes its time."""


class Answers(Protocol):
    """A gRPC call, as far as a session needs it."""

    def __iter__(self) -> Iterator[bytes]: ...
    def cancel(self) -> bool: ...


Call = Callable[[Iterator[bytes]], Answers]
"""Begins the call that the session is."""


def unlimited(_: int) -> None: ...


class Session:
    """Used by one thread at a time.

    At most :data:`SENDING_BYTES` wait to be sent: a slow link or a slow master target makes :meth:`send` wait.

    Args:
        explain: what a broken connection means.
        where: the other end, for messages.
    """

    def __init__(
        self, call: Call, explain: Callable[[grpc.RpcError], LeewardError], throttle: Throttle, where: str
    ) -> None:
        self._explain = explain
        self._throttle = throttle
        self._where = where
        self._outbox = _Outbox()
        self._inbox: queue.SimpleQueue[bytes | grpc.RpcError | None] = queue.SimpleQueue()
        self._answered = False
        self._over: LeewardError | None = None
        self._call = call(iter(self._outbox))
        self._receiver = threading.Thread(target=self._receive, name="answers", daemon=True)
        self._receiver.start()

    def request(self, message: Message) -> tuple[Done, memoryview]:
        """Send, and wait for the answer.

        Raises the error that the master target answers, or ``Unreachable``. A connection that breaks before the first
        answer of the session is a ``grpc.RpcError`` still: nothing was done, so it may be tried again."""
        self.send(message)
        return self.answer()

    def send(self, message: Message, frame: Frame | None = None) -> int:
        """Send without waiting; returns the bytes sent. Raises the error that ended the session, when one did."""
        parts: tuple[Payload, ...] = (frame.head, frame.payload) if frame else ()
        raw = encode(message, *parts)
        self._throttle(len(raw))
        if not self._outbox.put(raw):
            self._raise_why_it_ended()
        return len(raw)

    def answer(self) -> tuple[Done, memoryview]:
        """The next answer; raises as :meth:`request`."""
        return self._raise_answer(self._next())

    def finish(self) -> None:
        """Everything sent was dealt with, and the other side let go of its lock. Raises what went wrong with it."""
        self._outbox.finish()
        while (raw := self._next()) is not None:
            self._raise_answer(raw)

    def drop(self) -> None:
        """End it, whatever waits to be sent. The other side has let go when this returns, or is gone. Idempotent."""
        self._outbox.close()
        self._receiver.join(ENDS_WITHIN_S)
        if self._receiver.is_alive():
            self._call.cancel()
            self._receiver.join()

    def _next(self) -> bytes | grpc.RpcError | None:
        """What comes next; None is the end."""
        if self._over is not None:
            raise self._over
        try:
            return self._inbox.get(timeout=ANSWERS_WITHIN_S)
        except queue.Empty:
            self._call.cancel()
            self._over = Unreachable(
                f"no answer within {ANSWERS_WITHIN_S:.0f} s",
                where=self._where,
                remedy="look at the log and the disks of the master target",
            )
            raise self._over from None

    def _raise_answer(self, raw: bytes | grpc.RpcError | None) -> tuple[Done, memoryview]:
        if isinstance(raw, bytes):
            self._answered = True
            with at(self._where):
                answer, payload = decode(raw)
                return done(answer), payload
        if raw is None:
            self._over = Unreachable(
                "the master target ended the session", where=self._where, remedy="it stops or restarts; see its log"
            )
            raise self._over
        self._over = self._explain(raw)
        if not self._answered:
            raise raw
        raise self._over from raw

    def _raise_why_it_ended(self) -> None:
        """The stream is over though this side was not done: the last answer says why."""
        while True:
            self.answer()

    def _receive(self) -> None:
        try:
            for raw in self._call:
                self._inbox.put(raw)
            self._inbox.put(None)
        except grpc.RpcError as error:
            self._inbox.put(error)
        finally:
            self._outbox.close()


class _Outbox:
    """Messages on their way to gRPC, which takes the next one when the last is on the wire."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._finishing = False
        self._closed = False

    def put(self, raw: bytes) -> bool:
        """Waits for room. False when nothing more is taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._bytes == 0 or self._bytes + len(raw) <= SENDING_BYTES)
            if self._closed or self._finishing:
                return False
            self._waiting.append(raw)
            self._bytes += len(raw)
            self._changed.notify_all()
            return True

    def finish(self) -> None:
        """What waits is sent, then the stream ends."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()

    def close(self) -> None:
        """The stream ends; what waits is forgotten."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._finishing or bool(self._waiting))
                if not self._waiting:
                    return
                raw = self._waiting.popleft()
                self._bytes -= len(raw)
                self._changed.notify_all()
            yield raw
