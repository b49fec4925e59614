"""Process entry points by role: control, site, replication, and the embedded engine that runs all of them."""

import replication.transport  # noqa: F401 - it forbids TLS 1.2, and must be first: the Temporal SDK starts gRPC
