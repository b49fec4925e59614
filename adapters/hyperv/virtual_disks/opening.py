"""Opens a virtual disk with all the files that it leans on."""

from __future__ import annotations

import ntpath
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from adapters.hyperv.virtual_disks.files import DiskFile
from adapters.hyperv.virtual_disks.layers import Layer
from adapters.hyperv.virtual_disks.vhd import VhdLayer
from adapters.hyperv.virtual_disks.vhdx import VhdxLayer
from adapters.hyperv.virtual_disks.vhdx_head import SIGNATURE
from vault.errors import Damaged, NotFound

Locate = Callable[[str], Path]
"""A file's path on its host → where this process finds it. Raises ``NotFound``."""

DEEPEST_CHAIN = 64
"""Hyper-V keeps at most 50 checkpoints of a machine."""


def open_virtual_disk(path: str, locate: Locate) -> Layer:
    """The disk in the file that its host calls ``path``, and its parents.

    Raises:
        NotFound: one of the files is not there.
        Damaged: one of the files does not hold together, or a parent is not the one its child was made from.
    """
    top = layer = _open(path, locate)
    try:
        for _ in range(DEEPEST_CHAIN):
            if not layer.has_parent:
                return top
            path, parent = _parent(path, layer, locate)
            layer.parent = parent
            layer = parent
        raise Damaged(f"more than {DEEPEST_CHAIN} files lean on each other", where=top.file.name)
    except BaseException:
        top.close()
        raise


def _open(path: str, locate: Locate) -> VhdLayer | VhdxLayer:
    file = DiskFile(locate(path), path)
    try:
        is_vhdx = file.size >= len(SIGNATURE) and file.read(0, len(SIGNATURE)) == SIGNATURE
        return VhdxLayer(file) if is_vhdx else VhdLayer(file)
    except BaseException:
        file.close()
        raise


def _parent(path: str, child: VhdLayer | VhdxLayer, locate: Locate) -> tuple[str, VhdLayer | VhdxLayer]:
    candidates = _paths_of_parent(path, child)
    for candidate in candidates:
        try:
            parent = _open(candidate, locate)
        except NotFound:
            continue
        try:
            _check_is_parent(child, parent)
        except BaseException:
            parent.close()
            raise
        return candidate, parent
    raise NotFound(
        "the parent of a differencing disk is not there",
        where=path,
        remedy=f"looked for {', '.join(candidates) or 'nothing, it names no path'}; reconnect it: Set-VHD -ParentPath",
    )


def _paths_of_parent(path: str, child: VhdLayer | VhdxLayer) -> list[str]:
    """In the order of [MS-VHDX] 2.6.2.6.3; a path by the volume's GUID says nothing to another computer."""
    if isinstance(child, VhdxLayer):
        named = [child.locator.get(key, "") for key in ("relative_path", "absolute_win32_path")]
    else:
        named = child.parent_paths
    return [ntpath.normpath(ntpath.join(ntpath.dirname(path), _plain(name))) for name in named if name]


def _plain(path: str) -> str:
    """Without the prefix that turns off Windows' parsing: ``\\\\?\\D:\\x`` and ``\\\\?\\UNC\\server\\share\\x``."""
    plain = path.removeprefix("\\\\?\\")
    return "\\\\" + plain[4:] if plain != path and plain.upper().startswith("UNC\\") else plain


def _check_is_parent(child: VhdLayer | VhdxLayer, parent: VhdLayer | VhdxLayer) -> None:
    if isinstance(child, VhdxLayer):
        wanted = [child.locator.get(key, "") for key in ("parent_linkage", "parent_linkage2")]
        is_it = isinstance(parent, VhdxLayer) and parent.data_write in [
            guid for text in wanted if (guid := _guid(text))
        ]
    else:
        is_it = isinstance(parent, VhdLayer) and parent.identity == child.parent_identity
    if not is_it:
        raise Damaged(
            f"the disk does not belong to its parent {parent.file.name}: that was written to, or replaced",
            where=child.file.name,
            remedy="go back to the parent that it was made from, or to a backup",
        )


def _guid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
