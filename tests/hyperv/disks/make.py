"""Makes the virtual disks of this folder with qemu-img and qemu-io: ``python tests/hyperv/disks/make.py``.

The tests run without them, and make the same disks anew where they are installed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import zstandard

MIB = 1 << 20
SIZE = 8 * MIB
WRITES = [
    (0, 64 * 1024, 0x11),
    (MIB - 4096, 8192, 0x22),
    (5 * MIB + 512, 512, 0x33),
    (SIZE - 512, 512, 0x44),
]
"""Offset, length and the byte of each write."""
DISKS = {
    "dynamic.vhdx": ("vhdx", "subformat=dynamic,block_size=1048576"),
    "fixed.vhdx": ("vhdx", "subformat=fixed,block_size=1048576"),
    "dynamic.vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "fixed.vhd": ("vpc", "subformat=fixed,force_size=on"),
}


def content() -> bytes:
    raw = bytearray(SIZE)
    for offset, length, byte in WRITES:
        raw[offset : offset + length] = bytes([byte]) * length
    return bytes(raw)


def make(folder: Path, name: str) -> Path:
    kind, options = DISKS[name]
    path = folder / name
    run("qemu-img", "create", "-q", "-f", kind, "-o", options, str(path), str(SIZE))
    commands = [f"write -q -P {byte} {offset} {length}" for offset, length, byte in WRITES]
    run("qemu-io", "-f", kind, *(word for command in commands for word in ("-c", command)), str(path))
    return path


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)


def main() -> None:
    folder = Path(__file__).parent
    for name in DISKS:
        path = make(folder, name)
        packed = zstandard.ZstdCompressor(level=19).compress(path.read_bytes())
        (folder / f"{name}.zst").write_bytes(packed)
        path.unlink()
        sys.stdout.write(f"{name}: {len(packed)} bytes\n")


if __name__ == "__main__":
    main()
