"""Workers of the SDK from their start to their end, with one way out for whatever ends them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from temporalio.worker import Worker

log = logging.getLogger(__name__)


async def serve_until(stop: asyncio.Event, workers: Sequence[Worker]) -> None:
    """Run until ``stop`` is set or one of the workers fails; then all of them come to a safe point.

    ``async with worker`` would do for one. With several, one that fails while another is on its way out cancels the
    task in the middle of that, and the reason is lost (temporalio/worker/_worker.py, ``__aexit__``).

    Raises:
        RuntimeError: why the first one of them failed, in the SDK's words.
    """
    runs = [asyncio.create_task(worker.run()) for worker in workers]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopping, *runs], return_when=asyncio.FIRST_COMPLETED)
    finally:
        log.info("worker is stopping: running activities come to a safe point")
        stopping.cancel()
        ends = [_end(worker, run) for worker, run in zip(workers, runs, strict=True)]
        ended = await asyncio.gather(*ends, return_exceptions=True)
    for failure in ended:
        if failure is not None:
            raise failure


async def _end(worker: Worker, run: asyncio.Task[None]) -> None:
    if not worker.is_running and not run.done():  # still asks a silent Temporal for its namespace, for 20 s
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
        return
    await worker.shutdown()
    await run
