"""What the inventory says about sites in Azure and their virtual networks (``docs/azure.md``).

Names and identifiers are case-insensitive. Their rules: Microsoft, "Naming rules and restrictions for Azure resources"
(Microsoft.Network, Microsoft.Resources).
"""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from vault.domain import Value

SUBSCRIPTION_PATTERN = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
RESOURCE_GROUP_PATTERN = r"^[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]$"
VIRTUAL_NETWORK_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}[A-Za-z0-9_]$"
SUBNET_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?$"
_SUBNET_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<resource_group>[^/]+)"
    r"/providers/Microsoft\.Network/virtualNetworks/(?P<virtual_network>[^/]+)/subnets/(?P<subnet>[^/]+)",
    re.IGNORECASE,
)
_RULES = {
    "subscription": SUBSCRIPTION_PATTERN,
    "resource_group": RESOURCE_GROUP_PATTERN,
    "virtual_network": VIRTUAL_NETWORK_PATTERN,
    "subnet": SUBNET_PATTERN,
}
FOR_SERVICES = frozenset(
    {"gatewaysubnet", "azurefirewallsubnet", "azurefirewallmanagementsubnet", "azurebastionsubnet", "routeserversubnet"}
)
"""Names of subnets that Azure keeps for its own services: no virtual machine can be connected to one."""
SHOW_ID = "az network vnet subnet show --resource-group GROUP --vnet-name NAME --name SUBNET --query id"


class AzureSettings(Value):
    """Where the site's virtual networks are, unless a network says otherwise."""

    subscription: str | None = Field(default=None, pattern=SUBSCRIPTION_PATTERN)
    resource_group: str | None = Field(default=None, pattern=RESOURCE_GROUP_PATTERN)


class Subnet(Value):
    """A subnet in Azure, as its resource id names it."""

    subscription: str
    resource_group: str
    virtual_network: str
    subnet: str

    @property
    def virtual_network_id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Network/virtualNetworks/{self.virtual_network}"
        )

    @property
    def id(self) -> str:
        return f"{self.virtual_network_id}/subnets/{self.subnet}"

    def __str__(self) -> str:
        return f"subnet '{self.subnet}' of virtual network '{self.virtual_network}', group '{self.resource_group}'"


class AzureNetwork(Value):
    """The subnet that a network is in Azure: by its resource id, or by its names."""

    id: str | None = None
    virtual_network: str | None = Field(default=None, pattern=VIRTUAL_NETWORK_PATTERN)
    subnet: str | None = Field(default=None, pattern=SUBNET_PATTERN)
    resource_group: str | None = Field(default=None, pattern=RESOURCE_GROUP_PATTERN)
    subscription: str | None = Field(default=None, pattern=SUBSCRIPTION_PATTERN)

    @model_validator(mode="after")
    def _names_one_subnet(self) -> AzureNetwork:
        by_name = [self.virtual_network, self.subnet, self.resource_group, self.subscription]
        if self.id is not None:
            if any(by_name):
                raise ValueError("'id' says all of it; remove the names beside it")
            _parts(self.id)
        elif not (self.virtual_network and self.subnet):
            raise ValueError("a network in Azure needs 'virtual_network' and 'subnet'; write both, or its 'id'")
        name = self.subnet or _parts(self.id or "")["subnet"]
        if name.casefold() in FOR_SERVICES:
            raise ValueError(f"Azure keeps '{name}' for a service of its own; name a subnet for virtual machines")
        return self

    def resolved(self, site: AzureSettings) -> Subnet:
        """The subnet, with what the site says about all of its networks.

        Raises ``LookupError`` with what is said nowhere."""
        if self.id is not None:
            return Subnet(**_parts(self.id))
        named = {
            "subscription": self.subscription or site.subscription,
            "resource_group": self.resource_group or site.resource_group,
        }
        for part, value in named.items():
            if value is None:
                raise LookupError(part)
        return Subnet.model_validate(named | {"virtual_network": self.virtual_network, "subnet": self.subnet})


def _parts(resource_id: str) -> dict[str, str]:
    match = _SUBNET_ID.fullmatch(resource_id)
    if match is None:
        raise ValueError(f"'{resource_id[:80]}' is not the resource id of a subnet; see it with: {SHOW_ID}")
    parts = match.groupdict()
    for part, value in parts.items():
        if re.fullmatch(_RULES[part], value) is None:
            raise ValueError(
                f"'{value[:60]}' cannot be the {part.replace('_', ' ')} in a resource id; see it with: {SHOW_ID}"
            )
    return parts
