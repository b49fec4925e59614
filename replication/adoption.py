"""Taking existing raw images over as the base images of a replica, by moving them."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from replication import files
from replication.layout import check_same_disks
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
