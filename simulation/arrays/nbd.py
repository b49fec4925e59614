"""How hosts reach volumes: the network block device protocol (fixed newstyle), which any NBD client speaks.

Source: the protocol's description, NetworkBlockDevice/nbd, ``doc/proto.md``. An export's name is ``initiator/volume``.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
from typing import TYPE_CHECKING

from simulation.arrays.refusal import ArrayRefusal, WriteProtected
from simulation.arrays.state import Volume
from simulation.arrays.wire import read_exactly
from simulation.listening import Listener

if TYPE_CHECKING:
    from simulation.arrays.array import Array

MAGIC, OPTION_MAGIC, REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_REPLY_MAGIC = 0x25609513, 0x67446698
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_ABORT, OPT_GO = 2, 7
REP_ACK, REP_INFO = 1, 3
REP_ERR_UNSUPPORTED, REP_ERR_POLICY = 2**31 + 1, 2**31 + 2
INFO_EXPORT = 0
HAS_FLAGS, READ_ONLY, SEND_FLUSH = 1, 2, 4
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
EPERM, EIO, EINVAL = 1, 5, 22
LARGEST_REQUEST = 32 * 2**20


class NbdServer(Listener):
    """Serves an array's volumes to hosts until :meth:`close`."""

    def __init__(self, port: int, array: Array) -> None:
        self.array = array
        super().__init__(port, _Connection, "array data")


class _Connection(socketserver.BaseRequestHandler):
    server: NbdServer
    request: socket.socket

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.server.open(self.request), contextlib.suppress(OSError):
            opened = self._negotiate()
            if opened is not None:
                self._transmit(*opened)

    def _negotiate(self) -> tuple[Volume, bool] | None:
        self.request.sendall(struct.pack(">QQH", MAGIC, OPTION_MAGIC, FIXED_NEWSTYLE | NO_ZEROES))
        read_exactly(self.request, 4)
        while True:
            magic, option, size = struct.unpack(">QII", read_exactly(self.request, 16))
            if magic != OPTION_MAGIC or size > 64 * 1024:
                return None
            data = read_exactly(self.request, size)
            if option == OPT_ABORT:
                self._reply(option, REP_ACK)
                return None
            if option != OPT_GO:
                self._reply(option, REP_ERR_UNSUPPORTED)
                continue
            opened = self._open(option, data)
            if opened is not None:
                return opened

    def _open(self, option: int, data: bytes) -> tuple[Volume, bool] | None:
        size = struct.unpack_from(">I", data)[0]
        host, _, name = data[4 : 4 + size].decode().partition("/")
        try:
            volume, writable = self.server.array.open_for(host, name)
        except ArrayRefusal as refusal:
            self._reply(option, REP_ERR_POLICY, refusal.what.encode())
            return None
        flags = HAS_FLAGS | SEND_FLUSH | (0 if writable else READ_ONLY)
        self._reply(option, REP_INFO, struct.pack(">HQH", INFO_EXPORT, volume.size, flags))
        self._reply(option, REP_ACK)
        return volume, writable

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self.request.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

    def _transmit(self, volume: Volume, writable: bool) -> None:
        while True:
            magic, _, command, cookie, offset, length = struct.unpack(">IHHQQI", read_exactly(self.request, 28))
            if magic != REQUEST_MAGIC or length > LARGEST_REQUEST or command == DISCONNECT:
                return
            data = read_exactly(self.request, length) if command == WRITE else b""
            error, answer = self._do(volume, writable, command, offset, length, data)
            self.request.sendall(struct.pack(">IIQ", SIMPLE_REPLY_MAGIC, error, cookie) + answer)

    def _do(
        self, volume: Volume, writable: bool, command: int, offset: int, length: int, data: bytes
    ) -> tuple[int, bytes]:
        array = self.server.array
        answer = b""
        if command not in (READ, WRITE, FLUSH) or offset + length > volume.size:
            return EINVAL, answer
        if command == WRITE and not writable:
            return EPERM, answer
        try:
            if command == READ:
                answer = array.read(volume.id, offset, length)
            elif command == WRITE:  # a flush has nothing to do: see simulation/arrays/media.py
                array.write(volume.id, offset, data)
        except WriteProtected:
            return EPERM, answer
        except (ArrayRefusal, OSError):
            return EIO, answer
        return 0, answer
