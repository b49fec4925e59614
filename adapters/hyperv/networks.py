"""The networks of a Hyper-V site as virtual switches, and the private ones that tests get for themselves.

An isolated network whose inventory entry names no ``switch`` is made when it is needed: a private switch, which
connects machines of one host and nothing else. Each test run has its own.
"""

from __future__ import annotations

from vault.domain import NetworkKind
from vault.errors import InvalidState, NotFound
from vault.inventory import Network

OURS = "leeward "
"""Switches of test runs are called by this and the network's name."""


class SiteNetworks:
    """Those of one site.

    A test run's own network is called ``<isolated network>-<run id>``, so that whoever reads it knows what it is like,
    and no record of it is needed."""

    def __init__(self, site: str, networks: dict[str, Network]) -> None:
        self._site = site
        self._networks = networks

    def kind(self, network: str) -> NetworkKind:
        """Raises ``NotFound``."""
        return NetworkKind.ISOLATED if self._is_of_a_run(network) else self._described(network).kind

    def switch(self, network: str) -> str:
        """The virtual switch that a network is. Raises ``NotFound``."""
        return OURS + network if self._is_of_a_run(network) else self._described(network).switch or network

    def is_made(self, network: str) -> bool:
        """Whether its switch is made when it is needed. Raises ``NotFound``."""
        return self._is_of_a_run(network) or self._may_be_made(self._described(network))

    def of_switch(self, switch: str) -> str:
        """The network that a switch is; a switch of no network is told by its own name."""
        own = switch.removeprefix(OURS)
        if own != switch and self._is_of_a_run(own):
            return own
        return next((name for name in self._networks if self.switch(name) == switch), switch)

    def of_run(self, like: str, run_id: str) -> str:
        """The network that a run's copies get instead of the isolated network ``like``: the run's own, or ``like``
        itself when the inventory names its switch.

        Raises ``NotFound``; ``InvalidState`` when ``like`` is not isolated."""
        described = self._described(like)
        if described.kind is not NetworkKind.ISOLATED:
            raise InvalidState(
                f"network '{like}' is not isolated", where=f"site {self._site}", remedy="correct the network mapping"
            )
        return f"{like}-{run_id}" if self._may_be_made(described) else like

    def switches_of_run(self, run_id: str) -> list[str]:
        """Of all networks that a run may have had."""
        return [f"{OURS}{name}-{run_id}" for name, network in self._networks.items() if self._may_be_made(network)]

    def _described(self, network: str) -> Network:
        if network not in self._networks:
            known = ", ".join(self._networks)
            raise NotFound(f"unknown network '{network}'", where=f"site {self._site}", remedy=f"the site has: {known}")
        return self._networks[network]

    def _is_of_a_run(self, network: str) -> bool:
        return network not in self._networks and any(
            network.startswith(f"{name}-") and self._may_be_made(described)
            for name, described in self._networks.items()
        )

    def _may_be_made(self, network: Network) -> bool:
        return network.kind is NetworkKind.ISOLATED and network.switch is None
