"""What travels to a host's PowerShell and back: the call and the answer (docs/formats.md).

Both are one line of ASCII, because the code page of a Windows console depends on its installation. The simulator
decodes calls and encodes answers with the same functions; ``scripts/_envelope.ps1`` is the other implementation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_core import to_jsonable_python

from adapters.hyperv.loader import BOOTSTRAP, ENVELOPE, script
from vault.domain import Value
from vault.errors import Damaged

CALL_FORMAT = "leeward-call"
ANSWER_FORMAT = "leeward-answer"
VERSION = 1


class ErrorRecord(Value):
    """What PowerShell says of a failed script: the fields of its ErrorRecord that errors are told apart by."""

    message: str
    fully_qualified_error_id: str = Field("", alias="fullyQualifiedErrorId")
    category: str = ""
    hresult: int | None = None
    """Signed, as .NET has it; see :func:`adapters.hyperv.errors.unsigned`."""
    error_code: int | None = Field(None, alias="errorCode")
    """A WMI method's return value, a Win32 error or a CIM status, whichever the failure had."""
    exception_type: str = Field("", alias="exceptionType")
    target: str = ""
    script: str = ""
    line: int = 0


class Call(Value):
    script: str
    text: str
    parameters: Any
    """The operation's input, decoded from JSON."""


class Answer(Value):
    result: Any = None
    warnings: list[str] = []
    error: ErrorRecord | None = None


def encode_call(name: str, given: BaseModel) -> bytes:
    """The one line that the bootstrap reads: the script ``name`` with ``given`` as its parameters.

    Secrets of ``given`` (:class:`pydantic.SecretStr`) are in it in the clear: it goes only into standard input."""
    text = _base64(script(name).encode())
    parameters = _base64(_json(given))
    document = {
        "format": CALL_FORMAT,
        "version": VERSION,
        "script": name,
        "envelope": script(ENVELOPE),
        "text": text,
        "parameters": parameters,
        "sha256": _call_checksum(name, text, parameters),
    }
    return json.dumps(document).encode("ascii") + b"\n"


def decode_call(document: bytes) -> Call:
    """Raises ``Damaged`` for anything but a complete call of this version with the packaged envelope."""
    try:
        raw = json.loads(document)
        name, text, parameters = str(raw["script"]), str(raw["text"]), str(raw["parameters"])
        if (raw["format"], raw["version"]) != (CALL_FORMAT, VERSION):
            raise Damaged(f"this is a call of format {raw['format']!r}, version {raw['version']!r}")
        if raw["envelope"] != script(ENVELOPE):
            raise Damaged("the call's envelope is not the packaged one")
        if raw["sha256"] != _call_checksum(name, text, parameters):
            raise Damaged("the call does not match its checksum")
        return Call(
            script=name,
            text=base64.b64decode(text, validate=True).decode(),
            parameters=json.loads(base64.b64decode(parameters, validate=True)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"this is not a call ({type(error).__name__})") from None


def encode_answer(answer: Answer) -> str:
    payload = _base64(answer.model_dump_json(by_alias=True, exclude_none=True).encode())
    return json.dumps(
        {"format": ANSWER_FORMAT, "version": VERSION, "sha256": _checksum(payload), "payload": payload},
        separators=(",", ":"),
    )


def decode_answer(line: str, where: str) -> Answer:
    """Raises ``Damaged`` for anything but a complete answer of this version."""
    remedy = "run the operation again; if it stays so, check that nothing else writes to the host's PowerShell output"
    try:
        raw = json.loads(line)
        payload = str(raw["payload"])
        if (raw["format"], raw["version"]) != (ANSWER_FORMAT, VERSION):
            raise Damaged(f"this is an answer of version {raw['version']!r}", where=where, remedy=remedy)
        if raw["sha256"] != _checksum(payload):
            raise Damaged("the host's answer does not match its checksum", where=where, remedy=remedy)
        return Answer.model_validate_json(base64.b64decode(payload, validate=True))
    except (ValueError, KeyError, TypeError, binascii.Error, ValidationError) as error:
        raise Damaged(
            f"the host's answer cannot be read ({type(error).__name__})", where=where, remedy=remedy
        ) from None


def powershell(name: str = BOOTSTRAP) -> str:
    """The command line that runs a packaged bootstrap.

    ``-EncodedCommand`` is the base64 of UTF-16LE text (about_PowerShell_exe) and, unlike ``-File``, not subject to the
    execution policy (about_Execution_Policies)."""
    encoded = _base64(script(name).encode("utf-16-le"))
    return f"powershell.exe -NoProfile -NonInteractive -EncodedCommand {encoded}"


def revealed(value: Any) -> Any:
    """``value`` with its secrets in the clear."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [revealed(item) for item in value]
    return value


def secrets_in(value: Any) -> list[str]:
    """The secrets that ``value`` holds, so that they can be kept out of every message."""
    if isinstance(value, SecretStr):
        return [value.get_secret_value()] if value.get_secret_value() else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [secret for item in value for secret in secrets_in(item)]
    return []


def _json(given: BaseModel) -> bytes:
    return json.dumps(to_jsonable_python(revealed(given.model_dump(by_alias=True))), ensure_ascii=False).encode()


def _call_checksum(name: str, text: str, parameters: str) -> str:
    return _checksum(f"{name}\n{text}\n{parameters}")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("ascii", "strict")).hexdigest()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
