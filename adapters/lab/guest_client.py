"""The outside of a guest: start its process, see whether it lives, talk to it."""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import adapters
from adapters.lab.guest_state import ENDING, RUNNING, STOPPED, GuestState, kill_guest
from adapters.lab.layout import LabLayout, MachineFolder
from vault.errors import Busy, InvalidState, Unreachable

ANSWER_WITHIN_S = 3.0
_LAUNCH_WITHIN_S = 30.0
_DIE_WITHIN_S = 10.0
_LOOK_AGAIN_S = 0.01


def running_guest(folder: MachineFolder) -> GuestState | None:
    """The state of the guest whose process lives now, else None."""
    state = GuestState.load(folder)
    return state if state and state.alive() else None


def has_ended(folder: MachineFolder, patience_s: float) -> bool:
    """False: it runs, and goes on. One that was asked to stop is waited for: it would end after it was found running.

    Raises ``Busy`` when it has not ended then."""
    end = time.monotonic() + patience_s
    while guest := running_guest(folder):
        if guest.state not in ENDING:
            return False
        if time.monotonic() > end:
            raise Busy(
                f"'{folder.name}' is shutting down for {patience_s:g} s", remedy="leeward tries again; or power it off"
            )
        time.sleep(_LOOK_AGAIN_S)
    return True


def require_not_stopping(guest: GuestState) -> None:
    """Raises ``Unreachable``: it answers to the last, and then it is off."""
    if guest.state in ENDING:
        raise Unreachable("it is shutting down", remedy="start it once it is off")


def last_state(folder: MachineFolder) -> GuestState | None:
    """What the machine's last guest said, whether it lives or not."""
    return GuestState.load(folder)


def launch(layout: LabLayout, folder: MachineFolder) -> None:
    """Start the guest's process; it boots on its own from here.

    Raises ``InvalidState`` when the process could not be started at all."""
    packages = str(Path(adapters.__file__).resolve().parent.parent)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PYTHONPATH": packages,
        # Whoever preloads a library into leeward, a clock that can be set, means its guests too.
        **({"LD_PRELOAD": os.environ["LD_PRELOAD"]} if "LD_PRELOAD" in os.environ else {}),
    }
    # -S: the guest needs nothing but the standard library, and is quicker without looking for more.
    command = [sys.executable, "-S", "-m", "adapters.lab.guest", str(layout.root.resolve()), str(folder.path.resolve())]
    with folder.guest_log.open("ab") as log:
        process = subprocess.Popen(
            command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        exit_code = process.wait(_LAUNCH_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        exit_code = -1
    if exit_code != 0:
        raise InvalidState(
            f"the guest's process could not be started (exit code {exit_code})",
            where=folder.name,
            remedy=f"look into {folder.guest_log}",
        )


def kill(folder: MachineFolder) -> None:
    """Pull the plug and wait until the guest and its commands are gone. Not running: nothing happens.

    Raises ``InvalidState`` when a process survives that."""
    state = GuestState.load(folder)
    if state is None:
        return
    deadline = time.monotonic() + _DIE_WITHIN_S
    while kill_guest(state):
        if time.monotonic() > deadline:
            raise InvalidState(
                f"the guest (process {state.pid}) does not end although it was killed", where=folder.name
            )
        time.sleep(0.005)


def call(
    state: GuestState,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    timeout_s: float = ANSWER_WITHIN_S,
    while_waiting: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One request to a guest.

    Raises ``Unreachable`` when it does not answer in time, ``InvalidState`` when it refuses. What ``while_waiting``
    raises ends the request."""
    if not state.address:
        raise Unreachable("the guest has no address yet", remedy="wait until it has booted")
    connection = http.client.HTTPConnection(state.address, timeout=ANSWER_WITHIN_S)
    deadline = time.monotonic() + timeout_s
    try:
        payload = json.dumps(body or {}) if method == "POST" else None
        connection.request(method, path, body=payload, headers={"X-Guest-Token": state.token})
        while not select.select([connection.sock], [], [], 0.25)[0]:
            while_waiting()
            if time.monotonic() > deadline:
                raise Unreachable(f"no answer to {method} {path} within {timeout_s:g} s", where=state.address)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"the guest does not answer {method} {path}: {error}", where=state.address) from error
    finally:
        connection.close()
    if response.status >= 400:
        raise InvalidState(f"the guest refused {method} {path}: {answer.get('error')}", where=state.address)
    return answer


@contextmanager
def quiesced(folder: MachineFolder, *, wanted: bool) -> Iterator[Callable[[], bool]]:
    """Hold the guest's writes. The yielded function says whether its data is consistent for the application *now*:
    its writes are held, or it is off after a clean shutdown (or never ran)."""
    if not wanted:
        yield lambda: False
        return
    state = GuestState.load(folder)
    if state is None or not state.alive():
        clean = state is None or state.state == STOPPED
        yield lambda: clean and running_guest(folder) is None
        return
    held_until_ns = 0
    if state.state == RUNNING:
        try:
            held_until_ns = int(call(state, "POST", "/quiesce")["held_until_monotonic_ns"])
        except (Unreachable, InvalidState):
            held_until_ns = 0  # the kind of the cut tells: crash-consistent
    try:
        yield lambda: time.monotonic_ns() < held_until_ns
    finally:
        if held_until_ns:
            release_hold(state)


def release_hold(state: GuestState) -> None:
    """Let the guest write again. When it cannot be told, its hold ends by itself within two seconds."""
    with suppress(Unreachable, InvalidState):
        call(state, "POST", "/resume")
