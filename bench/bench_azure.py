"""Replication into Azurite against the limit of Azurite itself: the same bytes in bare Put Pages and Get Blobs.

``python -m bench.bench_azure [MIB]``: size of the mixed image, 512 by default.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azure.storage.blob import BlobClient

from adapters.azure.pages import PUT_MAX, WRITERS, read_range
from bench.measuring import BLOCK, MIB, Result, mixed_image, record, scratch, timed
from bench.pair import DISK, Pair, silent
from replication import stream
from simulation.azure import azurite
from vault.domain import ConsistencyKind

TESTS = Path(__file__).parents[1] / "tests/azure"
SHARE = 0.01
SPARSE_SHARE = 3 / 4
"""How much of the mixed image is not zeros."""


def main(size_mib: int) -> None:
    sys.path.append(str(TESTS))
    from storage_account import Account

    with scratch() as folder, azurite.running(folder) as server:
        account = Account(server, folder)
        bare = account.container.get_blob_client("bare.vhd")
        bare.create_page_blob(size_mib * MIB)
        noise = random.Random(1).randbytes(PUT_MAX)
        count = int(size_mib * MIB * SPARSE_SHARE) // PUT_MAX
        put = timed(lambda: side_by_side(range(count), lambda at: put_page(bare, at * PUT_MAX, noise)))
        get = timed(lambda: side_by_side(range(count), lambda at: read_range(bare, at * PUT_MAX, PUT_MAX)))

        pair = Pair(folder / "lab", size_mib * MIB, mixed_image)
        store = account.store(machine="bench")
        store.create(pair.source.disks(), pair.source.start_tracking())
        seconds = timed(lambda: stream.copy_initial(pair.source, store, silent))
        name = f"azure-initial-{size_mib}m"
        record([Result(name, "bare Put Page 4 MiB", seconds, put, 0.6)])

        blocks = size_mib * MIB // BLOCK
        offsets = sorted(number * BLOCK for number in random.Random(3).sample(range(blocks), int(blocks * SHARE)))
        small = timed(lambda: side_by_side(offsets, lambda offset: put_page(bare, offset, noise[:BLOCK])))
        pair.write_blocks(offsets, noise[:BLOCK])
        seconds = timed(lambda: stream.replicate_cut(pair.source, store, ConsistencyKind.CRASH, silent))
        record([Result(f"azure-delta-1pct-{size_mib}m", "bare Put Page 4 KiB", seconds, small, None)])

        point = store.resolve("latest")
        seconds = timed(lambda: store.materialise(point, folder / "out", silent))
        record([Result(f"azure-materialise-{size_mib}m", "bare Get Blob 4 MiB", seconds, get, None)])
        if (folder / "out" / f"{DISK}.raw").read_bytes() != pair.image.read_bytes():
            raise SystemExit("what came back from Azurite is not what was sent")


def put_page(blob: BlobClient, offset: int, data: bytes) -> None:
    blob.upload_page(data, offset, len(data))


def side_by_side(places: Iterable[int], request: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(request, places):
            pass


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 512)
