"""How every process reaches Temporal.

The standard environment and profile of ``temporalio.envconfig`` (``TEMPORAL_ADDRESS``, ``TEMPORAL_PROFILE`` …) come
first; without them the embedded engine of the data directory is used when it runs.
"""

from __future__ import annotations

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError

from vault.errors import BadInput, Unreachable
from workers.engine_file import read_engine
from workers.payloads import data_converter
from workers.settings import Settings
from workers.temporal_errors import DEFAULT_ADDRESS, is_named, named, unreachable
from workflows.attributes import ALL

_ERRORS = TelemetryFilter(core_level="ERROR", other_level="ERROR")


async def connect(settings: Settings, *, quiet: bool = False, identity: str | None = None) -> Client:
    """``quiet``: what Temporal's client tries again is not for the screen, it ends in an error anyway.
    ``identity``: the name that Temporal shows of this process; None: its number and host.

    Raises:
        Unreachable: naming the address and what to do.
        BadInput: the variables or the profile name no Temporal.
    """
    if is_named():
        options = {"target_host": DEFAULT_ADDRESS, **named()}
    else:
        engine = read_engine(settings.engine_file)
        if engine is None:
            raise Unreachable(
                "no Temporal to talk to: the embedded engine does not run and TEMPORAL_ADDRESS is not set",
                where=str(settings.data),
                remedy="start it with: leeward up",
            )
        options = {"target_host": engine.address, "namespace": engine.namespace}
    if quiet:
        options["runtime"] = Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(_ERRORS)))
    address = str(options["target_host"])
    try:
        return await Client.connect(**options, data_converter=data_converter, identity=identity)
    except (RPCError, RuntimeError) as error:
        raise unreachable(error, address) from error
    except ValueError as error:  # the client's word for an address that is none
        raise BadInput(str(error), where=address, remedy="give TEMPORAL_ADDRESS as host:port") from error


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
