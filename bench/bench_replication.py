"""Initial replication, deltas and resynchronization against rsync, restic, borg and qemu-img, and against limits.

``python -m bench.bench_replication [GIB]``: size of the mixed image, 1 by default.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

import xxhash

from bench import limits
from bench.measuring import (
    BLOCK,
    MIB,
    Result,
    best_of,
    change_randomly,
    mixed_image,
    peak_memory,
    peer,
    record,
    require,
    scratch,
    timed,
)
from bench.pair import Pair, silent
from replication import stream
from vault.domain import ConsistencyKind
from workers.memory import keep_freed_memory

GIB = 1 << 30
PASSWORD = {"RESTIC_PASSWORD": "bench", "BORG_PASSPHRASE": "bench"}
SPARSE_GIB = 64
TRIES = 3


def main(gib: int) -> None:
    require("rsync", "restic", "borg", "qemu-img")
    keep_freed_memory()  # as every worker does
    with scratch() as folder:
        over_tls(folder / "tls", gib)
        pair = Pair(folder / "local", gib * GIB, mixed_image)
        initial(pair, folder, gib)
        resync(pair, f"resync-unchanged-{gib}g", 0.7)
        delta(pair, folder, gib)
        resync(pair, f"resync-layered-{gib}g", None)
    with scratch() as folder:
        sparse_delta(folder, gib)


def over_tls(folder: Path, gib: int) -> None:
    """Process server → master target: compressed, encrypted, over mutual TLS; two processes on this machine."""
    pair = Pair(folder, gib * GIB, mixed_image, over_tls=True)
    try:
        seconds = best_of(TRIES, lambda: stream.copy_initial(pair.source, pair.store, silent), pair.enable)
        print(
            f"peak memory: sender {peak_memory() / MIB:.0f} MiB, "
            f"master target {pair.master_target_memory() / MIB:.0f} MiB",
            flush=True,
        )
        restic, borg = first_backups(folder, pair.image)
        stages = limits.of_stages(pair.image, folder / "pki", "primary", "recovery")
        print("limits: " + ", ".join(f"{name} {value:.2f} s" for name, value in stages.items()), flush=True)
        slowest = max(stages, key=lambda stage: stages[stage])
        name = f"initial-tls-{gib}g"
        record(
            [
                Result(name, "restic", seconds, restic, 2),
                Result(name, "borg", seconds, borg, 2),
                Result(name, f"limit: {slowest}", seconds, stages[slowest], 0.6),
                Result(name, "limit: all stages, both cores busy", seconds, limits.with_both_cores(stages), None),
            ]
        )
    finally:
        pair.close()


def initial(pair: Pair, folder: Path, gib: int) -> None:
    def ours() -> None:
        stream.copy_initial(pair.source, pair.store, silent)

    seconds = best_of(TRIES, ours, pair.enable)
    name = f"initial-{gib}g"
    restic, borg = first_backups(folder, pair.image)
    copy, converted = folder / "copy", folder / "converted"
    record(
        [
            Result(name, "restic", seconds, restic, 2),
            Result(name, "borg", seconds, borg, 2),
            Result(name, "rsync -S", seconds, timed(lambda: peer("rsync", "-S", pair.image, copy)), None),
            Result(
                name,
                "qemu-img convert",
                seconds,
                timed(lambda: peer("qemu-img", "convert", "-O", "raw", pair.image, converted)),
                None,
            ),
        ]
    )
    converted.unlink()


def delta(pair: Pair, folder: Path, gib: int) -> None:
    """1 % random 4 KiB writes; the peers have the state before as their base."""
    environment = _environment(folder)
    tries = []
    for seed in range(3):
        dice = random.Random(seed)
        blocks = gib * GIB // BLOCK
        offsets = sorted(number * BLOCK for number in dice.sample(range(blocks), blocks // 100))
        pair.write_blocks(offsets, dice.randbytes(BLOCK))
        tries.append(timed(lambda: stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, silent)))
    seconds, name = min(tries), f"delta-1pct-{gib}g"
    image, copy = pair.image, folder / "copy"
    peer("rsync", "--inplace", "--no-whole-file", image, copy)
    _restic(folder / "restic", image, environment)
    _borg(folder / "borg", "second", image, environment)
    change_randomly(image, 0.01, seed=99)
    record(
        [
            Result(
                name,
                "rsync --inplace",
                seconds,
                timed(lambda: peer("rsync", "--inplace", "--no-whole-file", image, copy)),
                15,
            ),
            Result(name, "restic", seconds, timed(lambda: _restic(folder / "restic", image, environment)), 25),
            Result(name, "borg", seconds, timed(lambda: _borg(folder / "borg", "third", image, environment)), 25),
        ]
    )


def resync(pair: Pair, name: str, goal: float | None) -> None:
    """An unchanged pair against reading and checksumming both sides, one thread a side."""
    stream.resynchronize(pair.source, pair.store, silent)
    seconds = best_of(2, lambda: stream.resynchronize(pair.source, pair.store, silent))
    base = next(pair.image.parents[4].glob("**/base-disk.raw"), None) or pair.image
    limit = best_of(2, lambda: (_read_and_checksum(pair.image), _read_and_checksum(base)))
    record([Result(name, "limit: read+xxh3 twice", seconds, limit, goal)])


def sparse_delta(folder: Path, gib: int) -> None:
    """The same change on a small and on a huge sparse disk: cost follows the change, not the disk."""
    seconds = {}
    for size in (gib, SPARSE_GIB):
        pair = Pair(folder / str(size), size * GIB)
        pair.enable()
        stream.copy_initial(pair.source, pair.store, silent)
        tries = []
        for seed in range(3):
            dice = random.Random(seed)
            offsets = sorted(number * BLOCK for number in dice.sample(range(size * GIB // BLOCK), 2600))
            pair.write_blocks(offsets, dice.randbytes(BLOCK))
            tries.append(
                timed(lambda pair=pair: stream.replicate_cut(pair.source, pair.store, ConsistencyKind.CRASH, silent))
            )
        seconds[size] = min(tries)
    record(
        [Result(f"delta-2600-blocks-{SPARSE_GIB}g", f"ours on {gib} GiB", seconds[SPARSE_GIB], seconds[gib], 1 / 1.3)]
    )


def first_backups(folder: Path, image: Path) -> tuple[float, float]:
    """Seconds of restic's and borg's first backup of ``image``; the last ones stay in ``folder`` for later ones."""
    environment, restic, borg = _environment(folder), folder / "restic", folder / "borg"

    def new_restic() -> None:
        shutil.rmtree(restic, ignore_errors=True)
        peer("restic", "init", "-q", "-r", restic, **environment)

    def new_borg() -> None:
        shutil.rmtree(borg, ignore_errors=True)
        peer("borg", "init", "--encryption=repokey", borg, **environment)

    return (
        best_of(TRIES, lambda: _restic(restic, image, environment), new_restic),
        best_of(TRIES, lambda: _borg(borg, "first", image, environment), new_borg),
    )


def _environment(folder: Path) -> dict[str, str]:
    return {
        **PASSWORD,
        "BORG_BASE_DIR": str(folder / "borg-base"),
        "RESTIC_CACHE_DIR": str(folder / "restic-cache"),
    }


def _restic(repository: Path, image: Path, environment: dict[str, str]) -> None:
    peer("restic", "-q", "-r", repository, "backup", image, **environment)


def _borg(repository: Path, name: str, image: Path, environment: dict[str, str]) -> None:
    peer("borg", "create", f"{repository}::{name}", image, **environment)


def _read_and_checksum(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb", buffering=0) as image:
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(image.fileno(), offset, os.SEEK_DATA)
            except OSError:
                return
            hole = os.lseek(image.fileno(), offset, os.SEEK_HOLE)
            while offset < hole:
                data = memoryview(os.pread(image.fileno(), min(MIB, hole - offset), offset))
                for start in range(0, len(data), BLOCK):
                    xxhash.xxh3_128_digest(data[start : start + BLOCK])
                offset += len(data)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
