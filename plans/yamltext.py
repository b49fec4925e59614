"""Writing texts into a plan's YAML so that they are read back as they were, whatever is in them."""

from __future__ import annotations

import json
import re

from plans.svg import printable
from vault.inventory import format_duration, format_size

# What YAML takes for a line break or cannot hold unescaped, beside what JSON escapes already.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")
_OPENING = re.compile(r"\{(?=[{%#])")


def plain(text: str) -> str:
    """``text`` without what a plan's file cannot hold; line breaks are line feeds."""
    return printable(text.replace("\r\n", "\n").replace("\r", "\n"))


def comment(text: str) -> str:
    """``text`` in one line, for a comment."""
    return " ".join(_ESCAPED.sub(" ", plain(text)).split())


def quoted(text: str) -> str:
    """A YAML scalar for ``text``: bare where that is safe, else in double quotes."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9 ._/-]*", text) and not text.endswith(" ") and text.lower() not in _WORDS:
        return text
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def literal(key: str, text: str) -> list[str]:
    """``key: text``, as a block that people can read where the text allows it."""
    lines = text.removesuffix("\n").split("\n")
    is_block = (
        len(lines) > 1 and not _ESCAPED.search(text) and lines[0].strip() and not lines[0].startswith((" ", "\t"))
    )
    if not is_block or not lines[-1] or any(line.endswith((" ", "\t")) or line.startswith("\t") for line in lines):
        return [f"{key}: {quoted(text)}"]
    return [f"{key}: |{'' if text.endswith(chr(10)) else '-'}", *(f"  {line}" if line else "" for line in lines)]


def template_free(text: str) -> str:
    """``text`` as a template that gives exactly this text: its braces are not instructions."""
    return _OPENING.sub("{{ '{' }}", text)


def duration(seconds: float) -> str:
    """Seconds as a person writes them in a plan: ``90s``, ``15m``, ``2h``."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return format_duration(seconds)


def size(count: int) -> str:
    """Bytes as a person writes them in a plan: ``8GiB``, ``512MiB``."""
    for unit, length in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count and count % length == 0:
            return f"{count // length}{unit}"
    return format_size(count)
