"""Ports for servers that simulations, demos and tests start, and start again at the same place."""

from __future__ import annotations

import random
import socket

BELOW_EPHEMERAL = range(10_240, 32_768)
"""The kernel gives none of these to a connection by itself (Linux: ``net.ipv4.ip_local_port_range``). One of those that
it gives may be taken by anybody between a server's death and its next start."""
_dice = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """So many ports of 127.0.0.1 where nobody listens, at random: of two processes that ask, each gets its own."""
    found: list[int] = []
    for port in _dice.sample(BELOW_EPHEMERAL, len(BELOW_EPHEMERAL)):
        if len(found) == count:
            return found
        if _is_free(port):
            found.append(port)
    raise OSError(f"{count} ports are wanted, but only {len(found)} of 127.0.0.1 are free")


def free_address() -> str:
    """``host:port`` of one of them."""
    return f"127.0.0.1:{free_ports(1)[0]}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
