"""How a process server reaches a master target: gRPC over mutual TLS 1.3 (``docs/decisions/004-grpc-over-tls.md``)."""

import os

# gRPC's Python API cannot set a lowest TLS version. This suite can never be agreed on (no pre-shared key exists), so
# TLS 1.2 is impossible; TLS 1.3 has suites of its own. It must be set before gRPC starts, hence here; MasterTarget
# proves it on its own port each time it starts.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "PSK-AES128-CBC-SHA"
# What gRPC has to say reaches people as leeward's errors; on stderr it would say it a second time.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
