"""Where ``leeward`` begins: Ctrl-C while it is still loading is no traceback."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    try:
        from console.main import main as run

        run()
    except KeyboardInterrupt:
        print("error: interrupted; what runs in Temporal goes on", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
