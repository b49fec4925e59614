"""What a process server does while the target does not take changes, and once it does again."""

from __future__ import annotations

from replication import rules, stream
from replication.cache import CutCache
from replication.ports import ChangeSource, ReplicaStore, Report
from vault.domain import CacheFill, ConsistencyKind


def keep(source: ChangeSource, cache: CutCache, kind: ConsistencyKind | None, report: Report) -> CacheFill:
    """A cut of now moves into the cache, so that its recovery point exists once it is sent.

    What waits in the source already, of a consistency group or because it could not be sent, moves instead. When there
    is no room it stays in the source, and no further cut is made: the source's log simply grows.

    Args:
        kind: None: only what waits moves.

    Raises:
        ResynchronizationRequired: the source no longer knows its changes, or they do not follow those in the cache.
        Busy: another process deals with this machine's cache.
    """
    with cache.lock("caching changes"):
        waiting = source.pending()
        if not waiting and kind is not None:
            waiting = [source.cut(kind)]
        for cut in waiting:
            if not cache.take_in(source, cut, report):
                return cache.fill(full=True)
            source.release(cut)
        return cache.fill()


def send_cached(cache: CutCache, store: ReplicaStore, report: Report) -> None:
    """What waits in the cache becomes recovery points, oldest first; each leaves the cache when it is one.

    Raises:
        ResynchronizationRequired, InvalidState: as :func:`replication.stream.replicate_cut`.
    """
    if cache.is_empty():
        return
    with store.lock("sending what waited"), cache.lock("sending"):
        state = store.state()
        rules.refuse_failed_over(state.failed_over_to, "the replica at the target")
        cache.drop_other_periods(state.epoch)
        if cache.pending():
            stream.send_pending(cache, store, report)
