"""Frames: about 1 MiB of changed blocks, compressed, encrypted and checksummed as they are stored and sent.

A frame means the same in a segment and on the wire (``docs/formats.md``): what leaves the source is what lies in the
segment. This module encodes, checks and decodes them; it knows no files.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import zstandard

from replication.checksums import CHECKSUM_LENGTH, checksum, checksum64, runs
from replication.cipher import FrameCipher
from replication.ports import Extent
from vault.errors import Damaged

FRAME_MAGIC = b"LWFR"
CHECKSUM64 = struct.Struct("<Q")
FRAME = struct.Struct("<4sBBHIII16sQ")
"""magic, codec, flags, reserved, extents, plain length, stored length, plain checksum, stored checksum."""
EXTENT = struct.Struct("<QII")
"""offset on the disk, length, kind."""

RAW, ZSTD = 0, 1
ENCRYPTED = 1
"""Flag: the stored data is AES-256-GCM of the plain checksum and the (compressed) data; see ``docs/formats.md``."""
DATA, ZEROS = 0, 1

FRAME_PLAIN = 1 << 20
"""A frame is closed once it holds this many bytes of plain data …"""
FRAME_EXTENTS = 1 << 15
"""… or this many extents."""
FRAME_PLAIN_MAX = 8 << 20
"""No frame holds more; a reader refuses to allocate for one that says so."""
FRAME_MAX = FRAME_PLAIN_MAX + FRAME.size + 2 * FRAME_EXTENTS * EXTENT.size + 1024
"""No encoded frame is longer."""
ZERO_RUN_MAX = 1 << 30
FRAMES_IN_FLIGHT = 8
"""Frames that wait for compression or sending: bounds memory to some 16 MiB a stream."""
ENCODERS = 2
COMPRESSION_LEVEL = 1
WORTH_COMPRESSING = 0.95
SAMPLES, SAMPLE = 4, 8 << 10
"""Of a whole frame so much is compressed first: data that does not shrink costs an eighth of the time then."""
_NO_CHECKSUM = bytes(CHECKSUM_LENGTH)
_UNPACKED_ZEROS = bytes(1 << 20)

Complain = Callable[[str, int], Damaged]
"""Makes the error for ``(what, position in the frame)``."""


class Frame(NamedTuple):
    """One frame, parsed and its stored bytes checked. ``head`` is everything before the payload."""

    head: bytes
    table: bytes
    payload: bytes | memoryview
    codec: int
    encrypted: bool
    plain_length: int
    plain_checksum: bytes

    @property
    def length(self) -> int:
        return len(self.head) + len(self.payload)


_encoder = threading.local()


def _compress(plain: bytes | memoryview) -> tuple[int, bytes | memoryview]:
    compressor: zstandard.ZstdCompressor | None = getattr(_encoder, "compressor", None)
    if compressor is None:
        compressor = _encoder.compressor = zstandard.ZstdCompressor(
            level=COMPRESSION_LEVEL, write_checksum=False, write_content_size=True
        )
    if len(plain) >= FRAME_PLAIN:
        sample = b"".join([plain[at : at + SAMPLE] for at in range(0, len(plain), len(plain) // SAMPLES)])
        if len(compressor.compress(sample)) >= len(sample) * WORTH_COMPRESSING:
            return RAW, plain
    packed = compressor.compress(plain)
    return (ZSTD, packed) if len(packed) < len(plain) * WORTH_COMPRESSING else (RAW, plain)


def _about(codec: int, plain_length: int, table: bytes) -> bytes:
    """What an encrypted frame is bound to, besides its stream and its number in it."""
    return struct.pack("<BI", codec, plain_length) + table


def encode_frame(table: bytes, plain: bytes | memoryview, cipher: FrameCipher | None = None, number: int = 0) -> Frame:
    """One frame as it is stored. Pure: runs in any thread, and the C libraries release the GIL."""
    codec, stored = _compress(plain) if plain else (RAW, b"")
    plain_checksum = checksum(plain)
    shown = plain_checksum
    if cipher is not None:
        stored = cipher.encrypt(number, b"".join((plain_checksum, stored)), _about(codec, len(plain), table))
        shown = _NO_CHECKSUM
    head = (
        FRAME.pack(
            FRAME_MAGIC,
            codec,
            ENCRYPTED if cipher else 0,
            0,
            len(table) // EXTENT.size,
            len(plain),
            len(stored),
            shown,
            checksum64(stored),
        )
        + table
    )
    return Frame(
        head + CHECKSUM64.pack(checksum64(head)), table, stored, codec, cipher is not None, len(plain), plain_checksum
    )


def check_frame(raw: memoryview, damaged: Complain) -> Frame:
    """Parse a frame and check its head and its stored bytes; works without the key."""
    if len(raw) < FRAME.size:
        raise damaged("a frame is cut short", 0)
    magic, codec, flags, reserved, extents, plain_length, stored_length, plain_checksum, stored_checksum = (
        FRAME.unpack_from(raw)
    )
    head_length = FRAME.size + extents * EXTENT.size
    payload_begin = head_length + CHECKSUM64.size
    if magic != FRAME_MAGIC or len(raw) < payload_begin:
        raise damaged("a frame is cut short", 0)
    head = bytes(raw[:payload_begin])
    if head[head_length:] != CHECKSUM64.pack(checksum64(raw[:head_length])):
        raise damaged("a frame's header does not match its checksum", 0)
    payload = raw[payload_begin:]
    if flags & ~ENCRYPTED or reserved or stored_length != len(payload) or plain_length > FRAME_PLAIN_MAX:
        raise damaged("a frame's lengths do not add up", 0)
    if checksum64(payload) != stored_checksum:
        raise damaged("a frame's data does not match its checksum", payload_begin)
    table = head[FRAME.size : head_length]
    return Frame(head, table, payload, codec, bool(flags & ENCRYPTED), plain_length, plain_checksum)


def plain_of(frame: Frame, damaged: Complain, cipher: FrameCipher | None = None, number: int = 0) -> bytes | memoryview:
    """The frame's plain data, verified to the last byte."""
    at = len(frame.head)
    if frame.encrypted != (cipher is not None):
        raise damaged("a frame is not encrypted as its stream says", 0)
    stored, expected = frame.payload, frame.plain_checksum
    if cipher is not None:
        opened = cipher.decrypt(number, stored, _about(frame.codec, frame.plain_length, frame.table))
        if opened is None:
            raise damaged("a frame cannot be decrypted: it was changed, or does not belong here", at)
        expected, stored = opened[:CHECKSUM_LENGTH], memoryview(opened)[CHECKSUM_LENGTH:]
    plain = _unpack(frame.codec, stored, frame.plain_length, damaged, at)
    if len(plain) != frame.plain_length or checksum(plain) != expected:
        raise damaged("a frame's plain data does not match its checksum", at)
    return plain


def _unpack(
    codec: int, stored: bytes | memoryview, plain_length: int, damaged: Complain, at: int
) -> bytes | memoryview:
    if codec == RAW:
        return stored
    if codec != ZSTD:
        raise damaged(f"a frame has the unknown codec {codec}", at)
    try:
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=plain_length)
    except zstandard.ZstdError as error:
        raise damaged(f"a frame cannot be decompressed ({error})", at) from error


def extents_of(table: bytes, plain: bytes | memoryview) -> Iterator[Extent]:
    """The extents of a decoded frame; runs of zeros in pieces of at most 1 MiB."""
    data, position = memoryview(plain), 0
    for offset, length, kind in EXTENT.iter_unpack(table):
        if kind == DATA:
            yield Extent(offset, data[position : position + length])
            position += length
            continue
        for start in range(0, length, len(_UNPACKED_ZEROS)):
            yield Extent(offset + start, _UNPACKED_ZEROS[: length - start])


class FrameEncoder:
    """Turns extents into frames, given to ``sink`` in order and in the caller's thread.

    Zeros are told apart from data here. Compression and encryption run in threads beside the caller; at most
    :data:`FRAMES_IN_FLIGHT` frames are in memory, whatever is added.
    """

    def __init__(self, sink: Callable[[Frame], None], cipher: FrameCipher | None = None) -> None:
        self._sink = sink
        self._cipher = cipher
        self._number = 0
        self._table: list[tuple[int, int, int]] = []
        self._payload: list[bytes | memoryview] = []
        self._payload_length = 0
        self._encoding: deque[Future[Frame] | Callable[[], None]] = deque()
        self._pool = ThreadPoolExecutor(ENCODERS, thread_name_prefix="encode")

    def add(self, extent: Extent) -> None:
        """The extent's bytes must not change afterwards."""
        for offset, data, zero in runs(extent.offset, extent.data):
            if zero:
                self._append(offset, len(data), ZEROS)
                continue
            for start in range(0, len(data), FRAME_PLAIN):
                piece = data[start : start + FRAME_PLAIN]
                self._append(offset + start, len(piece), DATA)
                self._payload.append(piece)
                self._payload_length += len(piece)
                if self._payload_length >= FRAME_PLAIN:
                    self._end_frame()
        if len(self._table) >= FRAME_EXTENTS:
            self._end_frame()

    def then(self, action: Callable[[], None]) -> None:
        """Do it when everything added so far is with the sink, in the caller's thread as well."""
        if self._table:
            self._end_frame()
        self._encoding.append(action)

    def flush(self) -> None:
        """Everything added so far is with the sink."""
        if self._table:
            self._end_frame()
        while self._encoding:
            self._hand_over_next()

    def close(self) -> None:
        """Idempotent; what was not flushed is forgotten."""
        self._pool.shutdown(cancel_futures=True)
        self._encoding.clear()

    def _append(self, offset: int, length: int, kind: int) -> None:
        if self._table:
            start, known, last_kind = self._table[-1]
            joined = known + length
            if start + known == offset and last_kind == kind and joined <= ZERO_RUN_MAX:
                self._table[-1] = (start, joined, kind)
                return
        self._table.append((offset, length, kind))

    def _end_frame(self) -> None:
        table = b"".join([EXTENT.pack(*entry) for entry in self._table])
        plain = self._payload[0] if len(self._payload) == 1 else b"".join(self._payload)
        self._table, self._payload, self._payload_length = [], [], 0
        while len(self._encoding) >= FRAMES_IN_FLIGHT:
            self._hand_over_next()
        self._encoding.append(self._pool.submit(encode_frame, table, plain, self._cipher, self._number))
        self._number += 1

    def _hand_over_next(self) -> None:
        first = self._encoding.popleft()
        if isinstance(first, Future):
            self._sink(first.result())
        else:
            first()
