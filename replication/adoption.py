"""Taking existing raw images over as the base images of a replica: by moving them, or by sending what is not there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from replication import files
from replication.compare import compare
from replication.layout import check_same_disks
from replication.pipeline import read_ahead
from replication.ports import ReplicaStore
from vault.domain import Disk


def refuse_other_sizes(images: dict[str, Path], disks: list[Disk]) -> None:
    """Raises ``InvalidState`` when an image does not have its disk's size."""
    for disk in disks:
        if disk.name in images:
            image = images[disk.name]
            check_same_disks([disk], [Disk(name=disk.name, size=image.stat().st_size)], str(image))


def move_in(image: Path, base: Path) -> None:
    """Durable when it returns. A crash leaves the image in its old place or its new one, or whole in both."""
    with files.translated(image):
        try:
            files.rename(image, base)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_across(image, base)
            files.delete(image)
        files.sync_folder(base.parent)
        files.sync_folder(image.parent)


def _copy_across(image: Path, base: Path) -> None:
    part = base.with_name(base.name + ".part")
    shutil.copyfile(image, part)
    fd = files.open_file(part, os.O_RDWR)
    try:
        files.sync(fd)
    finally:
        os.close(fd)
    files.rename(part, base)
    files.sync_folder(base.parent)


def send_in(store: ReplicaStore, images: dict[str, Path], disks: list[Disk], epoch: str) -> None:
    """``ReplicaStore.adopt`` for a replica on another host: an image is deleted once its blocks are durable there.

    The caller holds the store's lock."""
    present = {disk.name: images[disk.name] for disk in disks if images.get(disk.name, Path()).is_file()}
    refuse_other_sizes(present, disks)
    if store.exists():
        state = store.state()
        if not state.seeded and state.epoch == epoch and not present:
            return
    store.create(disks, epoch)
    for name, image in present.items():
        _send_image(store, name, image)
    store.begin_seed(None)
    for image in present.values():
        with files.translated(image):
            files.delete(image)
            files.sync_folder(image.parent)


def _send_image(store: ReplicaStore, disk: str, image: Path) -> None:
    with (
        closing(_RawImage(image)) as reader,
        closing(store.open_checksums(disk)) as theirs,
        read_ahead(compare(reader, theirs, reader.size)) as stretches,
    ):
        for compared in stretches:
            for extent in compared.differing:
                store.write_base(disk, extent)
        store.checkpoint_base(disk, reader.size)


class _RawImage:
    """A raw image as a :class:`replication.ports.BlockReader`."""

    def __init__(self, image: Path) -> None:
        self._image = image
        with files.translated(image):
            self._fd = files.open_file(image, os.O_RDONLY)
            self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        with files.translated(self._image):
            return files.read_at(self._fd, min(length, max(0, self.size - offset)), offset)

    def allocated(self) -> Iterator[tuple[int, int]]:
        with files.translated(self._image):
            yield from files.data_ranges(self._fd, self.size)

    def close(self) -> None:
        os.close(self._fd)
