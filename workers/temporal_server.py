"""Finding and starting the Temporal dev server (docs/decisions/002)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from vault.errors import BadInput, Busy, NotFound
from workers.children import end_with_parent

BINARY_VARIABLE = "LEEWARD_TEMPORAL"
PORT_VARIABLE = "LEEWARD_TEMPORAL_PORT"
USUAL_PORT = 7233
HIGHEST_PORT = 65535
UI_ABOVE = 1000
"""The UI's usual port is that much above the server's."""

DURABLE_IN_ONE_SYNC = ("journal_mode=wal", "synchronous=full")
"""A transaction survives a power cut as with the rollback journal, for one sync instead of three or four."""
AT_ONCE = "history.transferProcessorMaxPollRPS=1000"
"""Temporal looks for the next task of its single shard 20 times a second by default, so each step of a workflow waited
for up to 50 ms."""


def find_binary() -> Path:
    """The one given in ``LEEWARD_TEMPORAL``, else one on PATH, else the one in this environment's wheel.

    Raises:
        NotFound: naming all places that were looked at.
    """
    given = os.environ.get(BINARY_VARIABLE)
    if given:
        if os.access(given, os.X_OK):
            return Path(given)
        raise NotFound(f"{given} is not a program", where=BINARY_VARIABLE, remedy="correct or unset the variable")
    on_path = shutil.which("temporal")
    if on_path:
        return Path(on_path)
    in_wheel = Path(sys.executable).parent / "temporal"
    if os.access(in_wheel, os.X_OK):
        return in_wheel
    raise NotFound(
        f"no 'temporal' on PATH or in {in_wheel.parent}",
        remedy="install leeward with its extra 'embedded', or install the Temporal CLI, or set TEMPORAL_ADDRESS",
    )


def choose_ports(earlier: tuple[int, int] | None) -> tuple[int, int]:
    """(server, UI): those of the last time when they are free, else Temporal's usual ones, else any free ones.

    ``LEEWARD_TEMPORAL_PORT`` comes before all of them; 0 there means any free ones instead of the usual.

    Raises:
        BadInput: the variable is not a port number.
        Busy: somebody else has the port that the variable names.
    """
    wanted = _port_in_environment()
    if wanted:
        ports = (wanted, wanted + UI_ABOVE)
        taken = [port for port in ports if not _is_free(port)]
        if taken:
            raise Busy(f"port {taken[0]} is taken", where=PORT_VARIABLE, remedy="free it, or name another one")
        return ports
    usual = None if wanted == 0 else (USUAL_PORT, USUAL_PORT + UI_ABOVE)
    for choice in (earlier, usual):
        if choice is not None and all(_is_free(port) for port in choice):
            return choice
    return _any_free(), _any_free()


def _port_in_environment() -> int | None:
    text = os.environ.get(PORT_VARIABLE)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) > HIGHEST_PORT - UI_ABOVE:
        raise BadInput(
            f"'{text}' is not a port", where=PORT_VARIABLE, remedy=f"give a number up to {HIGHEST_PORT - UI_ABOVE}"
        )
    return int(text)


def start_server(
    binary: Path, database: Path, ports: tuple[int, int], log_file: Path, lock: int
) -> subprocess.Popen[bytes]:
    """Start the dev server on 127.0.0.1 with its state in ``database``. It keeps the descriptor ``lock`` open."""
    command = [
        str(binary),
        "server",
        "start-dev",
        "--ip=127.0.0.1",
        f"--port={ports[0]}",
        f"--ui-port={ports[1]}",
        f"--db-filename={database}",
        *(f"--sqlite-pragma={pragma}" for pragma in DURABLE_IN_ONE_SYNC),
        f"--dynamic-config-value={AT_ONCE}",
        "--log-level=warn",
        "--log-format=json",
    ]
    with log_file.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
            preexec_fn=end_with_parent,  # noqa: PLW1509 - a prctl and nothing else happens between fork and exec
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
