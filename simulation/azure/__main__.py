"""``python -m simulation.azure FOLDER --stop``: end the Azurite that was started in a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from simulation.azure import azurite


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.azure", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop", action="store_true", required=True)
    given = parser.parse_args(arguments)
    return 0 if azurite.stop(given.folder) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
