"""Is a network of the kind that a mapping needs?"""

from __future__ import annotations

from adapters.ports import Hypervisor
from vault.domain import Finding, NetworkKind


def network_finding(fabric: Hypervisor, name: str, wanted: NetworkKind) -> Finding:
    """Raises what ``fabric.network_kind`` raises."""
    kind, subject = fabric.network_kind(name), f"network {name}"
    if kind != wanted:
        return Finding.failed(
            subject,
            f"is of kind {kind}, but the mapping needs kind {wanted}",
            "correct the network mapping in the inventory, or the plan's 'target'",
        )
    return Finding.passed(subject, f"{kind}, present at {fabric.site}")
