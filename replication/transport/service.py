"""What both ends of the transport agree on."""

from __future__ import annotations

from replication.frames import FRAME_MAX

SERVICE = "leeward.replica.v1.Replica"
MACHINE_KEY = "leeward-machine"
"""Of the calls' metadata: the machine that a call is about."""
MESSAGE_MAX = FRAME_MAX + (64 << 10)
KEEPALIVE_MS = 10_000
"""A peer that is gone without a word is noticed after twice this time; then its lock is free."""


def channel_options(keepalive_ms: int) -> list[tuple[str, int]]:
    """For both ends."""
    return [
        ("grpc.max_send_message_length", MESSAGE_MAX),
        ("grpc.max_receive_message_length", MESSAGE_MAX),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        # Without it a minute: a ping that measures the link is under way, and no keepalive comes before its answer.
        ("grpc.http2.ping_timeout_ms", keepalive_ms),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 0),
    ]
