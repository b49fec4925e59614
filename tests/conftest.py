"""Makes the helpers beside this file importable from every test."""

import replication.transport  # noqa: F401 - first, as in every process of the product: it forbids gRPC TLS 1.2
