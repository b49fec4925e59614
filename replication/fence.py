"""What keeps the source out of a local replica once its machine was failed over to it.

The mark is a file beside the manifest, not a field of it: a failover waits for no writer, and the manifest is its
writer's. A gate makes the two one after the other: whoever replaces the manifest for the source holds it shared and
looks for the mark inside; whoever makes the mark holds it exclusively. So nothing is sealed or dropped behind a mark.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from replication import files, manifest, rules
from vault.domain import RecoveryPoint
from vault.errors import Damaged

MAGIC = "leeward-failed-over"

logger = logging.getLogger(__name__)


class Fence:
    """``failed-over.json`` in one replica's folder; the folder itself is the gate."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mark = root / "failed-over.json"
        self.unfinished = root / "failed-over.json.part"
        """The writer's cleaning leaves it alone: a mark is made without the writer's lock."""

    def is_marked(self) -> bool:
        with files.translated(self._mark):
            return self._mark.exists()

    def point(self) -> RecoveryPoint | None:
        """The recovery point that the machine was failed over to. Raises ``Damaged``."""
        with files.translated(self._mark):
            try:
                raw = self._mark.read_bytes()
            except FileNotFoundError:
                return None
        try:
            return RecoveryPoint.model_validate(manifest.open_document(raw, str(self._mark), MAGIC))
        except (Damaged, ValidationError) as error:
            raise Damaged(
                "the machine was failed over to this replica, but the file that says so is damaged",
                where=str(self._mark),
                remedy="commit or cancel the failover: the one writes the file anew, the other removes it",
            ) from error

    def refuse_source(self) -> None:
        """Raises ``InvalidState`` when the machine was failed over."""
        if self.is_marked():
            rules.refuse_failed_over(self.point(), str(self._root))

    def refuse_other(self, point: RecoveryPoint) -> None:
        """Raises ``InvalidState`` when the machine was failed over to another point. A damaged mark gets this one: who
        commits to it knows where the machine came from."""
        try:
            rules.refuse_other_failover(self.point(), point, str(self._root))
        except Damaged as damage:
            logger.warning("%s; it is written anew for %s", damage.what, point.id)
            with self.closing():
                self.mark(point)

    @contextmanager
    def source_may(self) -> Iterator[None]:
        """No failover begins until the end. Raises ``InvalidState`` when one has begun."""
        with self._gate(fcntl.LOCK_SH):
            self.refuse_source()
            yield

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Whoever is inside :meth:`source_may` comes to its end first, and nobody else enters."""
        with self._gate(fcntl.LOCK_EX):
            yield

    def mark(self, point: RecoveryPoint) -> None:
        """Inside :meth:`closing`. Durable."""
        with files.translated(self._mark):
            files.replace_contents(self._mark, manifest.seal_document(point.model_dump(mode="json"), MAGIC))

    def unmark(self) -> None:
        """Durable. Not marked: nothing happens."""
        with files.translated(self._mark):
            if self.is_marked():
                files.delete(self._mark)
                files.sync_folder(self._root)

    @contextmanager
    def _gate(self, how: int) -> Iterator[None]:
        with files.translated(self._root):
            fd = files.open_file(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)
