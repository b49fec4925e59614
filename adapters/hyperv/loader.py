"""The PowerShell in ``adapters/hyperv/scripts``; a file whose name begins with ``_`` is no operation of its own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from vault.errors import NotFound

BOOTSTRAP = "_bootstrap"
ENVELOPE = "_envelope"
JOB = "_job"


@cache
def script(name: str) -> str:
    """The text of a packaged script, named without ``.ps1``; line ends are ``\\n`` on every system.

    Raises:
        NotFound: there is none of that name.
    """
    file = files(__package__) / "scripts" / f"{name}.ps1"
    if not name.replace("_", "").isalnum() or not file.is_file():
        raise NotFound(f"there is no script '{name}'", where="adapters/hyperv/scripts", remedy="install leeward anew")
    return file.read_text("utf-8")
