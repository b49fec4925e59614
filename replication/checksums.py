"""Block checksums and zero detection.

xxh3-128 finds damage and compares blocks; it is not a defence against somebody who forges blocks on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import xxhash

CHECKSUM_LENGTH = 16
BLOCK = 64 * 1024
"""The unit in which source and replica are compared, and in which a base image is verified."""

_ZEROS = bytes(1 << 20)


def checksum(*parts: bytes | memoryview) -> bytes:
    """16 bytes: xxh3-128 of the parts one after another, big-endian as the algorithm's canonical form."""
    if len(parts) == 1:
        return xxhash.xxh3_128_digest(parts[0])
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return digest.digest()


def checksum64(*parts: bytes | memoryview) -> int:
    """xxh3-64 of the parts one after another, for headers and what is on its way."""
    if len(parts) == 1:
        return xxhash.xxh3_64_intdigest(parts[0])
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return digest.intdigest()


@cache
def zero_checksum(length: int) -> bytes:
    """The checksum of ``length`` zero bytes."""
    return checksum(bytes(length))


def is_zero(data: bytes | memoryview) -> bool:
    """True when every byte is zero.

    Comparing ``bytes`` objects is one memcmp (31 µs a MiB here; a memoryview compares item by item, 100 times slower,
    so it is copied first). The first byte settles most blocks that are not zero."""
    if not len(data) or data[0]:
        return not len(data)
    plain = data if isinstance(data, bytes) else bytes(data)
    if len(plain) <= len(_ZEROS):
        return plain == _ZEROS[: len(plain)]
    return not any(plain[i : i + len(_ZEROS)] != _ZEROS[: len(plain) - i] for i in range(0, len(plain), len(_ZEROS)))


def block_checksums(data: bytes | memoryview, block: int = BLOCK) -> list[bytes]:
    """The checksum of each ``block``-sized piece; the last piece may be shorter."""
    view = memoryview(data)
    return [checksum(view[start : start + block]) for start in range(0, len(view), block)]


def runs(offset: int, data: bytes | memoryview, piece: int = BLOCK) -> Iterator[tuple[int, memoryview, bool]]:
    """``data`` as consecutive ``(offset, bytes, zero?)`` runs, told apart piece by piece."""
    view = memoryview(data)
    start = 0
    while start < len(view):
        zero = is_zero(view[start : start + piece])
        end = start + piece
        while end < len(view) and is_zero(view[end : end + piece]) == zero:
            end += piece
        yield offset + start, view[start:end], zero
        start = min(end, len(view))
