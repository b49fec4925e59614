"""Where a worker finds the files of a host's virtual disks: the site's ``disk_folders``."""

from __future__ import annotations

import ntpath
from pathlib import Path

from adapters.hyperv.virtual_disks.opening import Locate
from vault.errors import BadInput
from vault.hyperv import DiskFolder


def located(folders: list[DiskFolder], host: str) -> Locate:
    """What turns a path on ``host`` into one of this worker, by the longest folder that it is in.

    It raises ``BadInput`` for a path that is in none, so no name in a hostile file leads out of them."""

    def locate(path: str) -> Path:
        plain = ntpath.normpath(path)
        best: tuple[str, DiskFolder] | None = None
        for folder in folders:
            root = ntpath.normpath(folder.path).rstrip("\\") + "\\"
            fits = folder.host in (None, host) and plain.casefold().startswith(root.casefold())
            if fits and (best is None or len(root) > len(best[0])):
                best = (root, folder)
        if best is None:
            raise BadInput(
                "no worker of the site knows where this virtual disk is",
                where=f"host {host}, {path}",
                remedy="mount its folder on the worker and name it in 'disk_folders' of the site's 'hyperv'",
            )
        return Path(best[1].folder, *plain[len(best[0]) :].split("\\"))

    return locate
