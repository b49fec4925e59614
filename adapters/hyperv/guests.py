"""What a guest tells about itself by way of its host: whether it answers, where, and what it holds."""

from __future__ import annotations

import socket

from pydantic import ValidationError

from adapters.hyperv.facts import GuestStatus
from vault.domain import GuestTransactions
from vault.errors import InvalidState

ONE_CONNECTION_S = 3.0
ADDRESS = "leeward.address"
TRANSACTIONS = "leeward.transactions"
"""What software in a guest may publish by data exchange: where it answers, as ``host:port``, and as JSON the
transactions that it holds (:class:`vault.domain.GuestTransactions`). Then a failover's loss is measured."""


def answers(status: GuestStatus, port: int | None) -> tuple[str, str]:
    """``(what is missing until the guest answers, where it answers)``."""
    if address := status.published.get(ADDRESS):
        host, _, number = address.rpartition(":")
        return ("" if _accepts(host, int(number)) else f"{address} does not accept connections"), address
    if not status.heartbeat.startswith("Ok"):
        return f"heartbeat {status.heartbeat or 'unknown'}", ""
    addresses = sorted(status.addresses, key=lambda address: ":" in address)
    if not addresses:
        return "it has no address yet", ""
    if port is None:
        return "", addresses[0]
    for host in addresses:
        if _accepts(host, port):
            return "", f"{host}:{port}"
    return f"port {port} does not accept connections on {', '.join(addresses)}", ""


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=ONE_CONNECTION_S).close()
    except OSError:
        return False
    return True


def transactions(status: GuestStatus, host: str) -> GuestTransactions | None:
    """What the guest holds; None: it publishes nothing. Raises ``InvalidState`` when that cannot be read."""
    published = status.published.get(TRANSACTIONS)
    if published is None:
        return None
    try:
        return GuestTransactions.model_validate_json(published)
    except ValidationError:
        raise InvalidState(
            f"what the guest publishes as '{TRANSACTIONS}' cannot be read",
            where=f"host {host}",
            remedy="correct the software in the guest, or let it publish nothing",
        ) from None
