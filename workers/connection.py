"""How every process reaches Temporal.

The standard environment and profile of ``temporalio.envconfig`` (``TEMPORAL_ADDRESS``, ``TEMPORAL_PROFILE`` …) come
first; without them the embedded engine of the data directory is used when it runs.
"""

from __future__ import annotations

import os

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from vault.errors import Unreachable
from workers.engine_file import read_engine
from workers.payloads import data_converter
from workers.settings import Settings
from workflows.attributes import ALL

STANDARD_VARIABLES = ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE")


async def connect(settings: Settings) -> Client:
    """Raises ``Unreachable`` naming the address and what to do."""
    if any(os.environ.get(name) for name in STANDARD_VARIABLES):
        options = dict(ClientConfig.load_client_connect_config())
        remedy = "check TEMPORAL_ADDRESS and the profile, and that Temporal runs there"
    else:
        engine = read_engine(settings.engine_file)
        if engine is None:
            raise Unreachable(
                "no Temporal to talk to: the embedded engine does not run and TEMPORAL_ADDRESS is not set",
                where=str(settings.data),
                remedy="start it with: leeward up",
            )
        options = {"target_host": engine.address, "namespace": engine.namespace}
        remedy = "look at it with: leeward status; restart it with: leeward down, leeward up"
    address = str(options.get("target_host", "localhost:7233"))
    try:
        return await Client.connect(**options, data_converter=data_converter)  # type: ignore[arg-type]
    except (RPCError, RuntimeError) as error:
        raise Unreachable(f"Temporal does not answer: {error}", where=address, remedy=remedy) from error


async def register_search_attributes(client: Client) -> None:
    """Add leeward's search attributes to the namespace; those that are there stay as they are.

    Raises:
        RPCError: when the namespace refuses; ``docs/operate.md`` says how an administrator adds them.
    """
    known = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    missing = {
        key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in ALL if key.name not in known.custom_attributes
    }
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
        )
