"""Secrets are references in files and resolved at the moment of use; a secret never enters a message or a history."""

from __future__ import annotations

import os
from pathlib import Path

from vault.errors import AuthorizationRefused, BadInput, NotFound

MAX_SECRET_BYTES = 64 * 1024


def resolve(reference: str) -> str:
    """The secret that ``env:NAME`` or ``file:PATH`` refers to; one final line break of a file is not part of it.

    Raises:
        BadInput: when ``reference`` is neither (it is not quoted: it may be a secret put there by mistake).
        NotFound: when the variable is not set, or the file is not there.
        AuthorizationRefused: when the file may not be read.
    """
    kind, _, name = reference.partition(":")
    if kind == "env" and name:
        return _from_environment(name)
    if kind == "file" and name:
        return _from_file(Path(name).expanduser())
    raise BadInput("this is not a reference to a secret", remedy="write 'env:NAME' or 'file:PATH'")


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise NotFound(
            "the environment variable is not set, or empty",
            where=f"env:{name}",
            remedy="set it where the secret is used: in your shell before a command, in the environment of a worker",
        )
    return value


def _from_file(path: Path) -> str:
    where = f"file:{path}"
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_SECRET_BYTES + 1)
    except PermissionError:
        raise AuthorizationRefused(
            "the secret's file may not be read",
            where=where,
            remedy="let the user read it who gives the command, or as whom the worker runs",
        ) from None
    except (OSError, ValueError):
        raise NotFound(
            "the secret's file cannot be read",
            where=where,
            remedy="check the path, on this host or where the worker runs",
        ) from None
    if len(raw) > MAX_SECRET_BYTES:
        raise BadInput(
            f"the secret's file is larger than {MAX_SECRET_BYTES} bytes", where=where, remedy="check the path"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        # The decoder's own error would carry the bytes of the secret.
        raise BadInput("the secret's file is not UTF-8 text", where=where, remedy="save it as UTF-8") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise NotFound("the secret's file is empty", where=where, remedy="write the secret into it")
    return secret
