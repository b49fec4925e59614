"""The remote shells of one host: their commands, streams and quotas ([MS-WSMV] 3.1)."""

from __future__ import annotations

import base64
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field

from simulation.winrm import soap
from simulation.winrm.powershell import Ended, PowerShell

CHUNK_BYTES = 64 * 1024
"""Raw output in one Receive response: below the MaxEnvelopeSize of 150 KiB that clients ask for."""


@dataclass
class _Command:
    line: str
    user: str
    stdin: bytearray = field(default_factory=bytearray)
    output: deque[tuple[str, bytes]] = field(default_factory=deque)
    exit_code: int | None = None
    stopped: bool = False


@dataclass
class _Shell:
    user: str
    commands: dict[str, _Command] = field(default_factory=dict)


class Shells:
    """Thread-safe. ``max_per_user`` is WinRM's MaxShellsPerUser."""

    def __init__(self, powershell: PowerShell, max_per_user: int) -> None:
        self._powershell = powershell
        self.max_per_user = max_per_user
        self._shells: dict[str, _Shell] = {}
        self._changed = threading.Condition()
        self.running = 0
        self.most_running = 0
        """The most commands that ran at once."""

    def __len__(self) -> int:
        return len(self._shells)

    def handle(self, user: str, message: soap.Message) -> bytes:
        """Raises ``soap.Fault``."""
        handlers = {
            soap.CREATE: self._create,
            soap.DELETE: self._delete,
            soap.COMMAND: self._command,
            soap.SEND: self._send,
            soap.RECEIVE: self._receive,
            soap.SIGNAL: self._signal,
        }
        if message.action not in handlers:
            raise soap.Fault(0x80338040, f"The action {message.action} is not supported.", "w:UnsupportedFeature")
        return handlers[message.action](user, message)

    def reboot(self) -> None:
        """End every shell with its commands."""
        with self._changed:
            for shell in self._shells.values():
                for command in shell.commands.values():
                    command.stopped = True
            self._shells.clear()
            self._changed.notify_all()

    def _create(self, user: str, message: soap.Message) -> bytes:
        with self._changed:
            if sum(shell.user == user for shell in self._shells.values()) >= self.max_per_user:
                raise soap.SHELL_QUOTA
            identifier = str(uuid.uuid4()).upper()
            self._shells[identifier] = _Shell(user)
        return soap.created(message, identifier)

    def _delete(self, user: str, message: soap.Message) -> bytes:
        with self._changed:
            self._shell(user, message)
            shell = self._shells.pop(message.shell or "")
            for command in shell.commands.values():
                command.stopped = True
            self._changed.notify_all()
        return soap.deleted(message)

    def _command(self, user: str, message: soap.Message) -> bytes:
        line = " ".join(
            text
            for text in (
                message.body.findtext(f"rsp:CommandLine/rsp:{part}", "", soap.NAMES)
                for part in ("Command", "Arguments")
            )
            if text
        )
        with self._changed:
            shell = self._shell(user, message)
            identifier = str(uuid.uuid4()).upper()
            shell.commands[identifier] = _Command(line, user)
        return soap.command_started(message, identifier)

    def _send(self, user: str, message: soap.Message) -> bytes:
        with self._changed:
            command = self._in(user, message, "rsp:Send/rsp:Stream")
            for stream in message.body.iterfind("rsp:Send/rsp:Stream", soap.NAMES):
                command.stdin += base64.b64decode(stream.text or "")
                if stream.get("End") == "true":
                    threading.Thread(target=self._run, args=(command,), name="powershell.exe", daemon=True).start()
        return soap.sent(message)

    def _receive(self, user: str, message: soap.Message) -> bytes:
        with self._changed:
            command = self._in(user, message, "rsp:Receive/rsp:DesiredStream")
            answered = self._changed.wait_for(
                lambda: command.output or command.exit_code is not None or command.stopped, message.timeout_s
            )
            if command.stopped:
                raise soap.SHELL_NOT_FOUND
            if not answered:
                raise soap.OPERATION_TIMED_OUT
            streams = [command.output.popleft()] if command.output else []
            code = command.exit_code if not command.output else None
            identifier = self._id(message, "rsp:Receive/rsp:DesiredStream")
        return soap.received(message, identifier, streams, code)

    def _signal(self, user: str, message: soap.Message) -> bytes:
        with self._changed:
            shell = self._shell(user, message)
            command = shell.commands.pop(self._id(message, "rsp:Signal"), None)
            if command is not None:
                command.stopped = True
                self._changed.notify_all()
        return soap.signalled(message)

    def _run(self, command: _Command) -> None:
        with self._changed:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            ended = self._powershell.run(command.user, command.line, bytes(command.stdin))
        finally:
            with self._changed:
                self.running -= 1
        self._finish(command, ended)

    def _finish(self, command: _Command, ended: Ended) -> None:
        with self._changed:
            for name, data in (("stdout", ended.stdout), ("stderr", ended.stderr)):
                for start in range(0, len(data), CHUNK_BYTES):
                    command.output.append((name, data[start : start + CHUNK_BYTES]))
            command.exit_code = ended.exit_code
            self._changed.notify_all()

    def _shell(self, user: str, message: soap.Message) -> _Shell:
        shell = self._shells.get(message.shell or "")
        if shell is None or shell.user != user:
            raise soap.SHELL_NOT_FOUND
        return shell

    def _in(self, user: str, message: soap.Message, path: str) -> _Command:
        command = self._shell(user, message).commands.get(self._id(message, path))
        if command is None:
            raise soap.Fault(0x8033805B, "The command was not found in the shell.", "w:InvalidSelectors")
        return command

    @staticmethod
    def _id(message: soap.Message, path: str) -> str:
        node = message.body.find(path, soap.NAMES)
        return "" if node is None else node.get("CommandId", "")
