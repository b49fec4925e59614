"""How workflow data travels to Temporal: JSON that its UI shows, compressed only where it is large."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import zstandard
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import PayloadCodec

ENCODING = b"binary/zstd"
LARGE = 32 * 1024
"""Bytes. A plan of a thousand machines has payloads of a megabyte; Temporal warns at 256 KiB and refuses at 2 MiB."""
MOST_UNPACKED = 64 << 20
LEVEL = 3


class CompressingCodec(PayloadCodec):
    """Compresses large payloads, whatever they were; reads what was not compressed as well."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [_packed(payload) if payload.ByteSize() > LARGE else payload for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [_unpacked(payload) if payload.metadata.get("encoding") == ENCODING else payload for payload in payloads]


def _packed(payload: Payload) -> Payload:
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(payload.SerializeToString())
    return Payload(metadata={"encoding": ENCODING}, data=packed)


def _unpacked(payload: Payload) -> Payload:
    return Payload.FromString(zstandard.ZstdDecompressor().decompress(payload.data, max_output_size=MOST_UNPACKED))


data_converter = dataclasses.replace(pydantic_data_converter, payload_codec=CompressingCodec())
"""Of every client of leeward: workers, the command line, and whoever reads histories."""
