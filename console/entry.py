"""Where ``leeward`` begins: Ctrl-C while it is still loading is no traceback, nor is a stream that nobody gave it."""

from __future__ import annotations

import os
import sys

EXIT_INTERRUPTED = 130
WHEN_INTERRUPTED = "interrupted; what runs in Temporal goes on"
STREAMS = {"stdin": "r", "stdout": "w", "stderr": "w"}


def main() -> None:
    _open_what_is_closed()
    try:
        from console.main import main as run

        run()
    except KeyboardInterrupt:
        print(f"error: {WHEN_INTERRUPTED}", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None


def _open_what_is_closed() -> None:
    """Schedulers start commands with closed streams. Whatever is opened next would take their numbers, and be written
    to by whoever means the stream."""
    for name, mode in STREAMS.items():
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
