"""What all benches share: test images, timing, and ``bench/results.json``."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).with_name("results.json")
MIB = 1 << 20
BLOCK = 4096


class Result(NamedTuple):
    """One comparison; ``ratio`` above 1 means that leeward is faster."""

    bench: str
    peer: str
    ours_s: float
    peer_s: float
    goal: float | None

    @property
    def ratio(self) -> float:
        return self.peer_s / self.ours_s


def record(results: list[Result]) -> None:
    """Replace the results of these benches in ``results.json`` and print them."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    fresh = {(result.bench, result.peer) for result in results}
    benches = {result.bench for result in results}
    rows = [
        row
        for row in known
        if (row["bench"], row["peer"]) not in fresh
        and not (row["bench"] in benches and row["peer"].startswith("limit:"))
    ]
    for result in results:
        rows.append(
            {
                "bench": result.bench,
                "peer": result.peer,
                "ours_s": round(result.ours_s, 4),
                "peer_s": round(result.peer_s, 4),
                "ratio": round(result.ratio, 3),
                "goal": result.goal,
                "machine": machine(),
                "date": f"{datetime.now(UTC):%Y-%m-%d}",
            }
        )
        goal = f"goal {result.goal:g}" if result.goal is not None else ""
        print(
            f"{result.bench:28} {result.peer:22} ours {result.ours_s:8.3f} s   peer {result.peer_s:8.3f} s   "
            f"ratio {result.ratio:7.2f}  {goal}",
            flush=True,
        )
    RESULTS.write_text(json.dumps(sorted(rows, key=lambda row: (row["bench"], row["peer"])), indent=2) + "\n")


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="leeward-bench-", dir=os.environ.get("LEEWARD_BENCH_FOLDER")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def mixed_image(path: Path, size: int) -> None:
    """A quarter random, a half compressible, a quarter zeros, interleaved in 1 MiB pieces; the same every time."""
    dice = random.Random(20260101)
    words = [dice.randbytes(12).hex().encode() for _ in range(512)]
    with path.open("wb") as image:
        image.truncate(size)
        for number in range(size // MIB):
            kind = number % 4
            if kind == 0:
                image.seek(number * MIB)
                image.write(dice.randbytes(MIB))
            elif kind != 3:
                image.seek(number * MIB)
                image.write(b" ".join(dice.choices(words, k=MIB // 24 + 1))[:MIB])
        image.flush()
        os.fsync(image.fileno())


def change_randomly(path: Path, share: float, seed: int) -> list[int]:
    """Overwrite random 4 KiB blocks; returns their offsets."""
    dice = random.Random(seed)
    blocks = path.stat().st_size // BLOCK
    offsets = sorted(number * BLOCK for number in dice.sample(range(blocks), int(blocks * share)))
    with path.open("r+b") as image:
        for offset in offsets:
            image.seek(offset)
            image.write(dice.randbytes(BLOCK))
        image.flush()
        os.fsync(image.fileno())
    return offsets


def timed(work: Callable[[], object]) -> float:
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def best_of(times: int, work: Callable[[], object], prepare: Callable[[], object] | None = None) -> float:
    """The fastest of several: what the work costs when nothing else disturbs it."""
    seconds = []
    for _ in range(times):
        if prepare is not None:
            prepare()
        seconds.append(timed(work))
    return min(seconds)


def peer(*command: str | Path, **environment: str) -> None:
    """Run a peer's command; its output is shown only when it fails."""
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed with {done.returncode}:\n{done.stdout}{done.stderr}")


def require(*programs: str) -> None:
    """End with one sentence when a peer is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)} — install them from Debian's packages of the same name")


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far, in its own code and in the kernel's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int | None = None) -> int:
    """Bytes of a process at its peak so far; of this one when none is named."""
    status = Path(f"/proc/{pid or os.getpid()}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
