"""The footer that makes a raw disk a fixed VHD, as Azure imports it into a managed disk.

Facts from the "Virtual Hard Disk Image Format Specification" 1.0: a fixed VHD is the raw disk followed by one
512-byte footer; integers are big-endian; the checksum is the one's complement of the sum of the footer's other bytes.
Azure also wants the disk's size to be a multiple of 1 MiB.
"""

from __future__ import annotations

import struct
import uuid
from datetime import UTC, datetime

from vault.domain import Disk
from vault.errors import BadInput

SECTOR = 512
FOOTER_SIZE = 512
ALIGNMENT = 1 << 20
MAX_DISK = (8 << 40) - ALIGNMENT
"""A page blob holds at most 8 TiB, the footer included."""

_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
_CURRENT_SIZE_AT, _CHECKSUM_AT = 48, 64
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_RESERVED_FEATURE = 2
"""The specification wants this bit set, always."""
_VERSION = 0x0001_0000
_NO_DATA_OFFSET = 0xFFFF_FFFF_FFFF_FFFF
"""Fixed disks have no dynamic header."""
_FIXED = 2
_CREATOR = b"win "
"""Readers take the size of disks of this creator from the footer; with unknown ones some trust the geometry instead,
which cannot express every size."""
_CREATOR_VERSION = 0x000A_0000
_CREATOR_HOST = b"Wi2k"
_MAX_SECTORS = 65535 * 16 * 255


def virtual_size(disk_size: int) -> int:
    """The disk's size as Azure wants it: rounded up to a whole MiB."""
    return -(-disk_size // ALIGNMENT) * ALIGNMENT


def require_fit(disk: Disk, where: str) -> None:
    """Raises ``BadInput`` beyond a page blob's limit."""
    if virtual_size(disk.size) > MAX_DISK:
        raise BadInput(
            f"disk '{disk.name}' of {disk.size} bytes does not fit into a page blob of at most 8 TiB",
            where=where,
            remedy="leave the disk out, or replicate the machine to another kind of replica store",
        )


def blob_size(disk_size: int) -> int:
    return virtual_size(disk_size) + FOOTER_SIZE


def footer(disk_size: int, identity: uuid.UUID, made: datetime) -> bytes:
    """The 512 bytes that follow the disk's rounded size."""
    size = virtual_size(disk_size)
    cylinders, heads, sectors = geometry(size // SECTOR)
    raw = _FOOTER.pack(
        b"conectix",
        _RESERVED_FEATURE,
        _VERSION,
        _NO_DATA_OFFSET,
        int((made - _EPOCH).total_seconds()),
        _CREATOR,
        _CREATOR_VERSION,
        _CREATOR_HOST,
        size,
        size,
        cylinders,
        heads,
        sectors,
        _FIXED,
        0,
        identity.bytes,
        0,
    )
    checksum = ~sum(raw) & 0xFFFF_FFFF
    return raw[:_CHECKSUM_AT] + struct.pack(">I", checksum) + raw[_CHECKSUM_AT + 4 :]


def is_footer(raw: bytes, disk_size: int) -> bool:
    """Whether ``raw`` is the sound footer of a fixed VHD of this disk, whoever made it."""
    if len(raw) != FOOTER_SIZE or raw[:8] != b"conectix":
        return False
    size, checksum = struct.unpack_from(">Q", raw, _CURRENT_SIZE_AT)[0], struct.unpack_from(">I", raw, _CHECKSUM_AT)[0]
    rest = sum(raw) - sum(raw[_CHECKSUM_AT : _CHECKSUM_AT + 4])
    return bool(size == virtual_size(disk_size) and checksum == ~rest & 0xFFFF_FFFF)


def geometry(total_sectors: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors per track, by the specification's appendix."""
    total = min(total_sectors, _MAX_SECTORS)
    if total >= 65535 * 16 * 63:
        sectors, heads = 255, 16
        return total // sectors // heads, heads, sectors
    sectors = 17
    tracks = total // sectors
    heads = max(4, (tracks + 1023) // 1024)
    if tracks >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
        tracks = total // sectors
    if tracks >= heads * 1024:
        sectors, heads = 63, 16
        tracks = total // sectors
    return tracks // heads, heads, sectors
