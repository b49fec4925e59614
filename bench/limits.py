"""What nobody can beat: each stage of the way to a master target alone, on the same data and the same machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import xxhash
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.measuring import MIB, best_of
from replication.checksums import is_zero
from replication.transport import tls
from replication.transport.pki import Identity, Pki, server_name
from replication.transport.service import KEEPALIVE_MS, channel_options
from simulation.free_ports import free_address

CHECKSUMS_OF_ALL = 3
"""Compared at the source, checked when unpacked, entered into the table of the base."""
METHOD = "/bench.Bare/Take"


def of_stages(image: Path, pki: Path, sender: str, receiver: str) -> dict[str, float]:
    """Seconds of each stage alone, in one thread (the link: in one process at each end).

    Args:
        pki: has the certificates of the sites ``sender`` and ``receiver``.
    """
    pieces = _pieces(image)
    compressor, cipher, nonce = zstandard.ZstdCompressor(level=1), AESGCM(bytes(32)), bytes(12)
    sent = [packed if len(packed := compressor.compress(piece)) < len(piece) else piece for piece in pieces]
    shrinking = [piece for piece, stored in zip(pieces, sent, strict=True) if piece is not stored]
    packed = [stored for piece, stored in zip(pieces, sent, strict=True) if piece is not stored]
    unpacker = zstandard.ZstdDecompressor()
    stages: dict[str, Callable[[], object]] = {
        "memcpy": lambda: _each(bytearray, pieces),
        "read": lambda: _read(image),
        "xxh3": lambda: _each(xxhash.xxh3_128_digest, pieces),
        "zstd": lambda: _each(compressor.compress, shrinking),
        "AES-GCM": lambda: _each(lambda piece: cipher.encrypt(nonce, piece, None), sent),
        "unpack": lambda: _each(unpacker.decompress, packed),
        "write and sync": lambda: _write(image.with_suffix(".limit"), pieces),
    }
    seconds = {name: best_of(2, stage) for name, stage in stages.items()}
    with _bare_link(pki, sender, receiver) as send:
        seconds["gRPC over TLS"] = best_of(2, lambda: send(sent))
    return seconds


def with_both_cores(stages: dict[str, float]) -> float:
    """Seconds that the two ends need on one machine of two cores that never wait. The link keeps both busy."""
    read_and_checked = stages["read"] + CHECKSUMS_OF_ALL * stages["xxh3"] + stages["zstd"] + stages["AES-GCM"]
    checked_and_written = stages["AES-GCM"] + stages["unpack"] + stages["write and sync"]
    return (read_and_checked + checked_and_written) / 2 + stages["gRPC over TLS"]


def _pieces(image: Path) -> list[bytes]:
    """What is not zeros."""
    with image.open("rb") as disk:
        return [piece for piece in iter(lambda: disk.read(MIB), b"") if not is_zero(piece)]


def _read(image: Path) -> None:
    piece = bytearray(MIB)
    with image.open("rb", buffering=0) as disk:
        while disk.readinto(piece):
            pass


def _each(work: Callable[[bytes], object], pieces: list[bytes]) -> None:
    for piece in pieces:
        work(piece)


def _write(path: Path, pieces: list[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


# --- the link: gRPC over mutual TLS that does nothing with what arrives ------------------------------------------


@contextmanager
def _bare_link(pki: Path, sender: str, receiver: str) -> Iterator[Callable[[list[bytes]], object]]:
    address = free_address()
    with subprocess.Popen([sys.executable, "-m", "bench.limits", str(pki), receiver, address]) as server:
        try:
            options = [*channel_options(KEEPALIVE_MS), ("grpc.ssl_target_name_override", server_name(receiver))]
            credentials = tls.channel_credentials(Identity(Pki.at(f"file:{pki}"), sender))
            with grpc.secure_channel(address, credentials, options=options) as channel:
                call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(METHOD)
                call(iter([]), wait_for_ready=True, timeout=60)
                yield lambda pieces: call(iter(pieces), timeout=60)
        finally:
            server.terminate()


def _serve(pki: Path, site: str, address: str) -> None:
    def take(requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        for _piece in requests:
            pass
        return b""

    server = grpc.server(ThreadPoolExecutor(1), options=channel_options(KEEPALIVE_MS))
    _, service, method = METHOD.split("/")
    handlers = {method: grpc.stream_unary_rpc_method_handler(take)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_secure_port(address, tls.server_credentials(Identity(Pki.at(f"file:{pki}"), site)))
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
