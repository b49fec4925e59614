"""A simulated host for the tests of the WinRM transport: it echoes, blocks, fails and counts as a test wants."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from adapters.hyperv.connection import HyperVHost
from adapters.hyperv.operation import Operation
from simulation.winrm.accounts import Account
from simulation.winrm.answering import Request, Result
from simulation.winrm.server import WinRMServer
from vault.domain import Value

USER = "LAB\\operator"
PASSWORD = "corr3ct-horse-battery"


class Echo(Value):
    text: str
    number: int = 0


ECHO = Operation("check_host", Echo, Echo)
"""Any packaged script will do: what it gives is up to the simulated host."""


class SimulatedHost:
    def __init__(self, folder: Path, *, client_certificate: Path | None = None, **options: Any) -> None:
        self.folder = folder
        self.requests: list[Request] = []
        self.result: Result | None = None
        """What to answer instead of the parameters."""
        self.began = threading.Event()
        self.gate = threading.Event()
        """While it is clear, scripts do not end."""
        self.gate.set()
        self.server = WinRMServer(
            self._answer,
            [
                Account(USER, PASSWORD, certificate=client_certificate),
                Account("LAB\\guest", PASSWORD, may_manage=False),
            ],
            folder=folder,
            **options,
        )

    def close(self) -> None:
        self.gate.set()
        self.server.close()

    def settings(self, **changes: Any) -> HyperVHost:
        fields = {
            "address": "127.0.0.1",
            "port": self.server.port,
            "authentication": "ntlm",
            "user": USER,
            "password": "env:HOST_PASSWORD",
            "ca": self.server.certificate.certificate,
            "operation_timeout_s": 5,
        }
        return HyperVHost.model_validate(fields | changes)

    def _answer(self, request: Request) -> Result:
        self.requests.append(request)
        self.began.set()
        self.gate.wait(30)
        return request.parameters if self.result is None else self.result
