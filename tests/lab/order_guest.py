"""One of two machines that know of the same orders: ``desk`` takes an order and then tells ``mill``, which notes it.

Run as ``python order_guest.py desk|mill <machine folder>``; the desk's standard output is the mill's standard input.
"""

from __future__ import annotations

import os
import struct
import sys
import time
import zlib
from pathlib import Path

from adapters.lab.layout import MachineFolder
from adapters.lab.vdisk import VirtualDisks

BLOCK = 4096
_RECORD = struct.Struct("<QI")


def note(disks: VirtualDisks, number: int) -> None:
    """The order is on the disk, in its slot and as the last one, when this returns."""
    slots = disks.sizes["data"] // BLOCK - 2
    head = number.to_bytes(8, "little")
    record = head + zlib.crc32(head).to_bytes(4, "little")
    disks.write("data", BLOCK * (2 + number % slots), record + os.urandom(500))
    disks.write("data", BLOCK, record)
    disks.flush()


def last_order(image: Path) -> int:
    """The last order that a disk knows, all before it being there too."""
    raw = image.read_bytes()
    number, checksum = _RECORD.unpack_from(raw, BLOCK)
    if number == 0:
        return 0
    assert checksum == zlib.crc32(raw[BLOCK : BLOCK + 8])
    slots = len(raw) // BLOCK - 2
    for known in range(max(1, number - slots + 2), number + 1):
        slot = BLOCK * (2 + known % slots)
        assert raw[slot : slot + 8] == known.to_bytes(8, "little"), f"order {known} of {number} is missing"
    return int(number)


def main(role: str, folder: str) -> None:
    disks = VirtualDisks(MachineFolder(Path(folder)))
    if role == "desk":
        number = 0
        while True:
            number += 1
            note(disks, number)
            print(number, flush=True)
            time.sleep(0.001)
    for line in sys.stdin:
        note(disks, int(line))


if __name__ == "__main__":
    main(*sys.argv[1:3])
