"""What two arrays say to each other: framed requests and answers over one TCP connection.

Little-endian: magic ``LWAR``, version u8, 3 zero bytes, head length u32, data length u32, CRC-32 of head and data u32;
then the head (JSON) and the data. A request's head has ``op``; an answer's has ``error`` when the request was refused.
"""

from __future__ import annotations

import json
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vault.errors import Damaged

MAGIC, VERSION = b"LWAR", 1
_FRAME = struct.Struct("<4sB3xIII")
LARGEST_DATA = 4 * 2**20


class Frame(NamedTuple):
    head: dict[str, Any]
    data: bytes


def pack(head: dict[str, Any], data: bytes = b"") -> bytes:
    raw = json.dumps(head).encode()
    checksum = zlib.crc32(data, zlib.crc32(raw))
    return _FRAME.pack(MAGIC, VERSION, len(raw), len(data), checksum) + raw + data


def send(connection: socket.socket, head: dict[str, Any], data: bytes = b"") -> None:
    connection.sendall(pack(head, data))


def receive(connection: socket.socket) -> Frame:
    """Raises ``ConnectionError`` at the end of the connection, ``Damaged`` for what is no frame."""
    return _unpack(lambda size: read_exactly(connection, size))


def frames(file: Path) -> Iterator[Frame]:
    """Those that a file is made of. Raises ``Damaged``."""
    with file.open("rb") as stream:
        while stream.peek(1):
            yield _unpack(stream.read)


def _unpack(read: Callable[[int], bytes]) -> Frame:
    header = read(_FRAME.size)
    if len(header) < _FRAME.size:
        raise Damaged("a frame between two arrays is cut off")
    magic, version, head_size, data_size, checksum = _FRAME.unpack(header)
    if (magic, version) != (MAGIC, VERSION) or data_size > LARGEST_DATA or head_size > LARGEST_DATA:
        raise Damaged("this is not a frame between arrays of this version")
    raw, data = read(head_size), read(data_size)
    if zlib.crc32(data, zlib.crc32(raw)) != checksum:
        raise Damaged("a frame between two arrays does not match its checksum")
    return Frame(json.loads(raw), data)


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Raises ``ConnectionError`` when the connection ends before."""
    parts = []
    while size:
        part = connection.recv(min(size, 2**20))
        if not part:
            raise ConnectionError("the connection ended")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
