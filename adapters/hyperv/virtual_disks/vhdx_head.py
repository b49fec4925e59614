"""The fixed parts of a VHDX file: its header and its table of regions ([MS-VHDX] 2.2)."""

from __future__ import annotations

import struct
from typing import NamedTuple
from uuid import UUID

from adapters.hyperv.virtual_disks.crc32c import matches
from adapters.hyperv.virtual_disks.files import DiskFile

MIB = 1 << 20
SIGNATURE = b"vhdxfile"
HEADERS_AT, HEADER_SIZE = (64 * 1024, 128 * 1024), 4096
REGION_TABLES_AT, REGION_TABLE_SIZE = (192 * 1024, 256 * 1024), 64 * 1024
BAT = UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")

_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_REGION_TABLE = struct.Struct("<4sIII")
_REGION = struct.Struct("<16sQII")
_MOST_REGIONS = 2047
_REQUIRED = 1


class Header(NamedTuple):
    """``log`` is not zero while the log has to be replayed. ``data_write`` changes whenever what a guest sees does, and
    is how a differencing disk knows its parent again."""

    sequence: int
    data_write: UUID
    log: UUID
    log_offset: int
    log_length: int


class Region(NamedTuple):
    offset: int
    length: int


def read_header(file: DiskFile) -> Header:
    """The newer of the two headers that are whole. Raises ``Damaged``."""
    if file.read(0, len(SIGNATURE)) != SIGNATURE:
        raise file.damaged("this is not a VHDX file, it does not begin with 'vhdxfile'", 0)
    whole = [raw for raw in (file.read(at, HEADER_SIZE) for at in HEADERS_AT) if _is_whole(raw, b"head")]
    if not whole:
        raise file.damaged("neither of the VHDX file's two headers matches its checksum", HEADERS_AT[0])
    found = [(_HEADER.unpack_from(raw), raw) for raw in whole]
    newest = max(fields[2] for fields, _ in found)
    newer = [raw for fields, raw in found if fields[2] == newest]
    if any(raw != newer[0] for raw in newer):
        raise file.damaged(f"both headers have the sequence number {newest}, but they differ", HEADERS_AT[0])
    _, _, sequence, _, data_write, log, log_version, version, log_length, log_offset = _HEADER.unpack_from(newer[0])
    if version != 1 or log_version != 0:
        what = f"VHDX version {version} with log version {log_version} is not known, only 1 with 0 is"
        raise file.damaged(what, HEADERS_AT[0])
    return Header(sequence, UUID(bytes_le=data_write), UUID(bytes_le=log), log_offset, log_length)


def read_regions(file: DiskFile) -> dict[UUID, Region]:
    """Where block table and metadata are. Raises ``Damaged``, also when the file needs a region that is not known."""
    for at in REGION_TABLES_AT:
        raw = file.read(at, REGION_TABLE_SIZE)
        if _is_whole(raw, b"regi"):
            return _regions(file, raw, at)
    raise file.damaged("neither of the VHDX file's two region tables matches its checksum", REGION_TABLES_AT[0])


def _regions(file: DiskFile, raw: bytes, at: int) -> dict[UUID, Region]:
    _, _, count, _ = _REGION_TABLE.unpack_from(raw)
    if count > _MOST_REGIONS:
        raise file.damaged(f"the region table has {count} entries, {_MOST_REGIONS} are the most", at)
    regions: dict[UUID, Region] = {}
    for index in range(count):
        place = _REGION_TABLE.size + index * _REGION.size
        guid, offset, length, flags = _REGION.unpack_from(raw, place)
        region = UUID(bytes_le=guid)
        if region in regions:
            raise file.damaged(f"region {region} is listed twice", at + place)
        if offset % MIB or length % MIB or offset < MIB or length == 0 or offset + length > file.size:
            raise file.damaged(f"region {region} cannot be {length} bytes at {offset}", at + place)
        if region not in (BAT, METADATA) and flags & _REQUIRED:
            raise file.damaged(f"the file cannot be understood without region {region}, which is not known", at + place)
        regions[region] = Region(offset, length)
    for needed, name in ((BAT, "block table"), (METADATA, "metadata")):
        if needed not in regions:
            raise file.damaged(f"the region table lists no {name}", at)
    return regions


def _is_whole(structure: bytes, signature: bytes) -> bool:
    return structure.startswith(signature) and matches(structure, 4)
