"""CRC-32C (Castagnoli), the checksum of VHDX: polynomial 0x1EDC6F41, reflected (RFC 3720, appendix B.4)."""

from __future__ import annotations

_REFLECTED = 0x82F63B78


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_REFLECTED if byte & 1 else 0)
    return byte


_TABLE = [_entry(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """VHDX sums a few 4 and 64 KiB structures when a file is opened: milliseconds, so no library is needed."""
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def matches(structure: bytes, checksum_at: int) -> bool:
    """Whether a structure's own checksum holds, which is made with its four bytes as zeros ([MS-VHDX] 2.2.2)."""
    expected = int.from_bytes(structure[checksum_at : checksum_at + 4], "little")
    return crc32c(structure[:checksum_at] + bytes(4) + structure[checksum_at + 4 :]) == expected
