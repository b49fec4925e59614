"""Makes the helpers beside this file importable from every test."""

import signal

import replication.transport  # noqa: F401 - first, as in every process of the product: it forbids gRPC TLS 1.2

# A shell's background jobs ignore Ctrl-C, and so would every process that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
