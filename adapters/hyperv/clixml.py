"""The text in what ``powershell.exe`` writes to a redirected standard error: CLIXML ([MS-PSRP] 2.2.5)."""

from __future__ import annotations

import re
from xml.etree import ElementTree

HEADER = "#< CLIXML"
NAMESPACE = "{http://schemas.microsoft.com/powershell/2004/04}"
ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")


def error_text(stderr: bytes) -> str:
    """The messages of the error stream on one line; other text as it is."""
    text = stderr.decode("utf-8", "replace").strip()
    if not text.startswith(HEADER):
        return " ".join(text.split())
    try:
        root = ElementTree.fromstring(text.removeprefix(HEADER).strip())
    except ElementTree.ParseError:
        return " ".join(text.removeprefix(HEADER).split())
    parts = [node.text or "" for node in root.iter(f"{NAMESPACE}S") if node.get("S") == "Error"]
    return " ".join(ESCAPED.sub(lambda match: chr(int(match[1], 16)), "".join(parts)).split())
