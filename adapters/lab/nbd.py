"""A lab guest's disk that is a volume of an array: a client of the network block device protocol.

Fixed newstyle, one request at a time. Source: NetworkBlockDevice/nbd, ``doc/proto.md``. Guests run without installed
packages, so this is the standard library only.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from vault.errors import Damaged, InvalidState, LeewardError, Unreachable

_MAGIC, _OPTION_MAGIC, _REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_REQUEST_MAGIC, _SIMPLE_REPLY_MAGIC = 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_GO = 7
_REP_ACK, _REP_INFO, _REP_ERROR = 1, 3, 2**31
_INFO_EXPORT = 0
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_EPERM: Final = 1
READ_ONLY = 2
"""The transmission flag of an export that cannot be written."""
_LARGEST_REQUEST = 1024 * 1024
TIMEOUT_S = 45.0
"""Longer than an array lets a write wait for its link."""


class NbdDisk:
    """One export, opened. Not thread-safe.

    Raises ``Unreachable`` when the array does not answer, ``InvalidState`` when it refuses, ``Damaged`` when it answers
    what the protocol does not know."""

    def __init__(self, portal: str, export: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.where = f"nbd://{portal}/{export}"
        host, _, port = portal.rpartition(":")
        try:
            self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise self._silent(error) from error
        try:
            self.size, self.flags = self._negotiate(export)
        except BaseException:
            self._socket.close()
            raise

    def _negotiate(self, export: str) -> tuple[int, int]:
        magic, option_magic, _ = struct.unpack(">QQH", self._receive(18))
        if (magic, option_magic) != (_MAGIC, _OPTION_MAGIC):
            raise Damaged("this is no server of network block devices", where=self.where)
        name = export.encode()
        request = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
        self._send(struct.pack(">I", _FIXED_NEWSTYLE | _NO_ZEROES))
        self._send(struct.pack(">QII", _OPTION_MAGIC, _OPT_GO, len(request)) + request)
        found: tuple[int, int] | None = None
        while True:
            magic, _, kind, length = struct.unpack(">QIII", self._receive(20))
            data = self._receive(length)
            if magic != _REPLY_MAGIC:
                raise Damaged("the answer to NBD_OPT_GO is not one", where=self.where)
            if kind >= _REP_ERROR:
                raise InvalidState(
                    f"the array does not open the volume: {data.decode(errors='replace') or f'error {kind}'}",
                    where=self.where,
                    remedy="see which side of its replication group is active: leeward status",
                )
            if kind == _REP_INFO and struct.unpack_from(">H", data)[0] == _INFO_EXPORT:
                _, size, flags = struct.unpack(">HQH", data)
                found = (size, flags)
            if kind == _REP_ACK:
                if found is None:
                    raise Damaged("the array did not say how large the volume is", where=self.where)
                return found

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        for start in range(offset, offset + length, _LARGEST_REQUEST):
            size = min(_LARGEST_REQUEST, offset + length - start)
            self._request(_READ, start, size)
            parts.append(self._receive(size))
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Acknowledged by the array when it returns."""
        for start in range(0, len(data), _LARGEST_REQUEST):
            part = data[start : start + _LARGEST_REQUEST]
            self._request(_WRITE, offset + start, len(part), part)

    def flush(self) -> None:
        self._request(_FLUSH, 0, 0)

    def close(self) -> None:
        try:
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST_MAGIC, 0, _DISCONNECT, 0, 0, 0))
        except OSError:
            pass  # the array is gone: there is nobody to take leave of
        finally:
            self._socket.close()

    def _request(self, command: int, offset: int, length: int, data: bytes = b"") -> None:
        self._send(struct.pack(">IHHQQI", _REQUEST_MAGIC, 0, command, 0, offset, length) + data)
        magic, error, _ = struct.unpack(">IIQ", self._receive(16))
        if magic != _SIMPLE_REPLY_MAGIC:
            raise Damaged("the answer to a request is not one", where=self.where)
        if error == _EPERM:
            raise InvalidState(
                "the volume is write-protected: the other side of its replication group is active",
                where=self.where,
                remedy="start the machine where its group is active",
            )
        if error:
            raise Unreachable(f"the array reports error {error} for the volume", where=self.where)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._silent(error) from error

    def _receive(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = self._socket.recv(size)
            except OSError as error:
                raise self._silent(error) from error
            if not part:
                raise self._silent(ConnectionError("the connection ended"))
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _silent(self, error: OSError) -> LeewardError:
        return Unreachable(f"the array does not answer: {error}", where=self.where, remedy="look at the array")
