"""A replica at another site's master target, behind the same port as a local one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from replication import adoption
from replication.cipher import Keys, SiteKey
from replication.ports import BlockChecksums, BlockReader, Extent, ReplicaState, Report, SegmentWriter
from replication.transport import messages as say
from replication.transport.connection import Connection
from replication.transport.messages import Done, Message
from replication.transport.reading import RemoteChecksums, RemoteView
from replication.transport.writing import Writing
from replication.view import write_images
from vault.domain import ConsistencyKind, Disk, RecoveryPoint, Retention
from vault.errors import InvalidState


class RemoteReplicaStore:
    """A :class:`replication.ports.ReplicaStore` over a :class:`Connection`.

    Frames are compressed and encrypted here, so that the wire and the master target's segments hold the same bytes.
    A call that returns has the other side's word that what the port promises is durable. Writes into the base are sent
    on without waiting: an error of one shows at a later call, at the latest at the checkpoint that would make it count.

    Args:
        site_key: the target site's key; None: replicas are not encrypted.
    """

    def __init__(self, connection: Connection, machine: str, *, site_key: SiteKey | None = None) -> None:
        self._connection = connection
        self._machine = machine
        self._keys = Keys(machine, site_key)
        self._held = threading.local()

    # --- questions ----------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return bool(self._ask(say.Exists()).result)

    def state(self) -> ReplicaState:
        if (held := self._held_here()) is not None:
            held.settle()
        return self._state_now()

    def _state_now(self) -> ReplicaState:
        return ReplicaState.model_validate(self._ask(say.State()).result)

    def resolve(self, choice: str) -> RecoveryPoint:
        return RecoveryPoint.model_validate(self._ask(say.Resolve(choice=choice)).result)

    def open_checksums(self, disk: str) -> BlockChecksums:
        session, _ = self._connection.session(self._machine, "Read", say.OpenChecksums(disk=disk))
        return RemoteChecksums(session)

    def view(self, disk: str, point: RecoveryPoint | None = None) -> BlockReader:
        session, opened = self._connection.session(self._machine, "Read", say.OpenView(disk=disk, point=point))
        return RemoteView(session, int(opened.result))

    def materialise(self, point: RecoveryPoint, folder: Path, report: Report) -> list[Path]:
        with ExitStack() as opened:
            views = {}
            for disk in self.state().disks:
                views[disk.name] = self.view(disk.name, point)
                opened.callback(views[disk.name].close)
            return write_images(views, folder, report, f"fetching the disks of {self._machine} at {point.id}")

    # --- changes --------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, purpose: str = "replication") -> Iterator[None]:
        with self._writing(purpose):
            yield

    def create(self, disks: list[Disk], epoch: str) -> None:
        self._change("creating the replica", say.Create(disks=disks, epoch=epoch))

    def begin_seed(self, moment: datetime | None) -> None:
        self._change("seeding", say.BeginSeed(moment=moment))

    def write_base(self, disk: str, extent: Extent) -> None:
        with self._writing("seeding") as writing:
            writing.write_base(disk, extent)

    def checkpoint_base(self, disk: str, offset: int) -> None:
        with self._writing("seeding") as writing:
            writing.checkpoint(disk, offset)

    def complete_seed(self, time: datetime, kind: ConsistencyKind) -> RecoveryPoint:
        done = self._change("seeding", say.CompleteSeed(time=time, consistency=kind))
        return RecoveryPoint.model_validate(done.result)

    def adopt(self, images: dict[str, Path], disks: list[Disk], epoch: str) -> None:
        with self.lock("adopting images"):
            adoption.send_in(self, images, disks, epoch)

    def open_segment(self, disk: str, cut: int, *, epoch: str | None = None) -> SegmentWriter:
        writing = self._held_here()
        if writing is None:
            raise InvalidState("segments are staged and sealed under one lock", where=self._connection.where)
        return writing.open_segment(disk, cut, epoch)

    def seal(
        self, cut: int, time: datetime, kind: ConsistencyKind, *, epoch: str | None = None, group: str = ""
    ) -> RecoveryPoint:
        done = self._change("sealing", say.Seal(cut=cut, time=time, consistency=kind, epoch=epoch, group=group))
        return RecoveryPoint.model_validate(done.result)

    def keep_differences(self, epoch: str) -> None:
        self._change("resynchronization", say.KeepDifferences(epoch=epoch))

    def prune(self, retention: Retention, now: datetime, *, in_use: frozenset[str] = frozenset()) -> list[str]:
        done = self._change("pruning recovery points", say.Prune(retention=retention, now=now, in_use=sorted(in_use)))
        return [str(dropped) for dropped in done.result]

    def keep_only(self, point: RecoveryPoint) -> None:
        self._change("dropping all other recovery points", say.KeepOnly(point=point))

    def readmit(self) -> None:
        self._change("taking changes again", say.Readmit())

    def remove(self) -> None:
        self._change("removing the replica", say.Remove())

    # --- inside ---------------------------------------------------------------------------------------------------

    def _ask(self, question: Message) -> Done:
        return self._connection.ask(self._machine, question)

    def _change(self, purpose: str, message: Message) -> Done:
        with self._writing(purpose) as writing:
            return writing.request(message)

    @contextmanager
    def _writing(self, purpose: str) -> Iterator[Writing]:
        """This thread's session: the one it holds already, or one for this call."""
        if (held := self._held_here()) is not None:
            yield held
            return
        session, _ = self._connection.session(self._machine, "Write", say.Lock(purpose=purpose))
        writing = self._held.writing = Writing(session, self._machine, self._keys, self._state_now)
        try:
            yield writing
            writing.finish()
        finally:
            self._held.writing = None
            writing.drop()

    def _held_here(self) -> Writing | None:
        held: Writing | None = getattr(self._held, "writing", None)
        return held
