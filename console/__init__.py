"""The ``leeward`` command. One file per command group, thin: parse, call, show."""

import replication.transport  # noqa: F401 - it forbids TLS 1.2, and must be first: the Temporal SDK starts gRPC
