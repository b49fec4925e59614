"""The packaged PowerShell; a file whose name begins with ``_`` is no operation of its own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from vault.errors import NotFound

PACKAGES = ("adapters.hyperv", "adapters.vmm")
"""Each has its scripts in a folder ``scripts``; names differ."""
BOOTSTRAP = "_bootstrap"
ENVELOPE = "_envelope"
JOB = "_job"


@cache
def script(name: str) -> str:
    """The text of a packaged script, named without ``.ps1``; line ends are ``\\n`` on every system.

    Raises:
        NotFound: there is none of that name.
    """
    if name.replace("_", "").isalnum():
        for package in PACKAGES:
            file = files(package) / "scripts" / f"{name}.ps1"
            if file.is_file():
                return file.read_text("utf-8")
    raise NotFound(f"there is no script '{name}'", where=" or ".join(PACKAGES), remedy="install leeward anew")
