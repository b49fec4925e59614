"""Stream replication: leeward's own data plane moves the bytes (design §5, third family).

It composes three ports: the source fabric's change source, the target site's replica store, and the target fabric that
makes machines out of replicas. Which fabric is behind them does not matter here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

from adapters.networks import network_finding
from adapters.ports import (
    Beat,
    Capabilities,
    CutsTogether,
    GroupRhythm,
    JudgesReplicas,
    JudgesSources,
    StreamSource,
    StreamTarget,
)
from replication import caching, groups, seeding, stream
from replication.cache import CutCache
from replication.cipher import SiteKey
from replication.clock import AgeClock
from replication.media import SeedManifest
from replication.ports import ChangeSource, LayeredReader, OwnReplicaStore, ReplicaState, ReplicaStore, Report
from vault.domain import (
    LOOKS_OF_A_MEMBER,
    CacheFill,
    ConsistencyKind,
    Finding,
    NetworkKind,
    PowerState,
    Progress,
    RecoveredMachine,
    RecoveryPoint,
    Relationship,
    Severity,
)
from vault.errors import InvalidState, LeewardError, NotFound, ResynchronizationRequired, Unreachable
from vault.words import counted, size

SourceOf = Callable[[str], StreamSource]
TargetOf = Callable[[str], StreamTarget]
StoreAcross = Callable[[str, str, str], ReplicaStore]
"""``(source site, target site, machine)`` → the target's replica store as the source site reaches it."""
ReplicaKeyOf = Callable[[str], SiteKey | None]
"""The key that encrypts what is stored at a target site; None: it is not encrypted."""
CacheOf = Callable[[str, str, str], CutCache]
"""``(source site, target site, machine)`` → where its cuts wait at the source while the target does not take them."""


class StreamProvider:
    """Implements :class:`adapters.ports.ReplicationProvider`."""

    capabilities = Capabilities()

    def __init__(
        self,
        source_of: SourceOf,
        target_of: TargetOf,
        store_across: StoreAcross,
        replica_key: ReplicaKeyOf,
        cache_of: CacheOf,
    ) -> None:
        self._source_of = source_of
        self._target_of = target_of
        self._store_across = store_across
        self._replica_key = replica_key
        self._cache_of = cache_of
        self._ages = AgeClock()

    def check_source(self, relationship: Relationship) -> list[Finding]:
        machine = relationship.machine
        fabric = self._source_of(relationship.source_site)
        try:
            description = fabric.describe(machine)
        except NotFound as missing:
            return [Finding.of_error(machine, missing)]
        except LeewardError as error:
            return [Finding.of_error(f"site {relationship.source_site}", error)]
        if relationship.group and not isinstance(fabric, CutsTogether):
            return [
                Finding(
                    severity=Severity.FAIL,
                    subject=f"consistency group {relationship.group}",
                    what=f"the fabric of {relationship.source_site} cannot cut machines together",
                    remedy="take the machine out of 'consistency_groups'",
                )
            ]
        there = f"{description.power} at {relationship.source_site}, {counted(len(description.disks), 'disk')}"
        more = fabric.readiness(relationship) if isinstance(fabric, JudgesSources) else []
        return [Finding.passed(machine, there), *more]

    def check_target(self, relationship: Relationship) -> list[Finding]:
        site = relationship.target_site
        fabric = self._target_of(site)
        if isinstance(fabric, JudgesReplicas):
            return fabric.judge(relationship)
        findings = []
        try:
            findings += [
                self._network_finding(fabric, relationship.target_network, NetworkKind.PRODUCTION),
                self._network_finding(fabric, relationship.test_network, NetworkKind.ISOLATED),
            ]
        except LeewardError as error:
            findings.append(Finding.of_error(f"site {site}", error))
        return findings

    def room_needed(self, relationship: Relationship) -> int:
        store = self._store(relationship)
        if not relationship.recovers or not store.exists():
            return 0
        state = store.state()
        return min(state.stored_bytes, sum(disk.size for disk in state.disks))

    def open_point(self, relationship: Relationship, point: RecoveryPoint, beat: Beat, read_for_s: float) -> int:
        store = self._store(relationship)
        disks = store.state().disks if relationship.recovers else []
        end, unread = monotonic() + read_for_s, 0
        for disk in disks:
            with closing(store.view(disk.name, point)) as view:
                for left in view.check_layers() if isinstance(view, LayeredReader) else ():
                    beat(f"reading the changes of {relationship.machine}, {size(left)} of {disk.name} left")
                    if monotonic() >= end:
                        unread += left
                        break
        return unread

    def _network_finding(self, fabric: StreamTarget, network: str, wanted: NetworkKind) -> Finding:
        try:
            return network_finding(fabric, network, wanted)
        except NotFound as missing:
            return Finding.of_error(f"network {network}", missing)

    def enable(self, relationship: Relationship) -> None:
        source, store = self._ends(relationship)
        if store.exists():
            state, tracking = store.state(), source.tracking()
            if state.failed_over_to is not None:  # in an earlier life: nobody disables or protects a machine in between
                store.readmit()
            if state.seeded or (tracking.active and state.epoch == tracking.epoch):
                return
        with store.lock():
            store.create(source.disks(), source.start_tracking())

    def export_seed(
        self, relationship: Relationship, folder: Path, report: Report, *, restart: bool = False
    ) -> SeedManifest:
        site = relationship.source_site
        return seeding.export_seed(
            self._source_of(site).change_source(relationship.machine),
            self._replica_if_reachable(relationship, report),
            folder,
            report,
            machine=relationship.machine,
            site=site,
            restart=restart,
            site_key=self._replica_key(relationship.target_site),
        )

    def _replica_if_reachable(self, relationship: Relationship, report: Report) -> ReplicaStore | None:
        try:
            store = self._store_across(relationship.source_site, relationship.target_site, relationship.machine)
            store.exists()
        except Unreachable as error:
            report(Progress(doing=f"{relationship.target_site} is not told about this export: {error.what}"))
            return None
        return store

    def import_seed(self, relationship: Relationship, folder: Path, report: Report) -> RecoveryPoint:
        return seeding.import_seed(
            self._store(relationship),
            folder,
            report,
            machine=relationship.machine,
            site_key=self._replica_key(relationship.target_site),
        )

    def seed_missing(self, relationship: Relationship) -> Progress | None:
        store, where = self._store(relationship), f"'{relationship.machine}' at {relationship.target_site}"
        state = store.state() if store.exists() else None
        if state is None or (not state.seeded and state.seed_moment is None):
            return Progress(doing=f"waiting for the seed of {where}: leeward seed import")
        if state.seeded:
            return None
        return Progress(
            doing=f"import of the seed of {where}",
            bytes_done=sum(state.seeded_bytes.values()),
            bytes_total=sum(disk.size for disk in state.disks),
        )

    def copy_initial(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        """A replica that the source's changes do not follow is compared by checksums: right, whatever it held."""
        source, store = self._ends(relationship)
        with store.lock():
            self._send_cached_or_forget(relationship, store, report)
            try:
                return stream.copy_initial(source, store, report)
            except ResynchronizationRequired:
                return stream.resynchronize(source, store, report)

    def finalize(self, relationship: Relationship) -> None:
        source, store = self._ends(relationship)
        if not store.state().seeded:
            raise InvalidState(
                f"the replica of '{relationship.machine}' is not complete",
                where=f"site {relationship.target_site}",
                remedy=f"run the initial replication again: leeward protect {relationship.machine}",
            )
        source.delete_snapshot()

    def replicate_once(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> RecoveryPoint:
        source, store = self._ends(relationship)
        kind = ConsistencyKind.APPLICATION if app_consistent else ConsistencyKind.CRASH
        cut_already = self._cut_with_group(relationship, kind, report)
        with store.lock():
            self._send_cached(relationship, store, report)
            last = store.state().points[-1].time if relationship.group else None
            if cut_already or (not app_consistent and not _is_due(last, relationship)):
                point = stream.send_pending(source, store, report)
            else:
                point = stream.replicate_cut(source, store, kind, report)
            kept_for = timedelta(hours=relationship.retention.hours)
            now = self._ages.for_ages(kept_for)
            needed = self._needed_by_group(relationship, store.state().points, now - kept_for, report)
            store.prune(relationship.retention, now, in_use=needed)
        return point

    def _needed_by_group(
        self, relationship: Relationship, points: list[RecoveryPoint], since: datetime, report: Report
    ) -> frozenset[str]:
        if not relationship.group or len(points) <= relationship.retention.count:
            return frozenset()

        def of_members() -> dict[str, list[RecoveryPoint]]:
            return {name: self._points_across(relationship, name) for name in relationship.group_members}

        young = [point for point in points if point.time >= since]
        needed, why_all = groups.needed_points(young, relationship.group, of_members)
        if why_all:
            report(Progress(doing=f"keeping all moments of consistency group '{relationship.group}': {why_all}"))
        return needed

    def _points_across(self, relationship: Relationship, member: str) -> list[RecoveryPoint]:
        store = self._store_across(relationship.source_site, relationship.target_site, member)
        return store.state().points if store.exists() else []

    def keep_changes(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> CacheFill | None:
        cache = self._cache(relationship)
        if cache.limit == 0:
            return None
        kind = ConsistencyKind.APPLICATION if app_consistent else ConsistencyKind.CRASH
        source = self._source_of(relationship.source_site).change_source(relationship.machine)
        cut_already = self._cut_with_group(relationship, kind, report)
        return caching.keep(source, cache, None if cut_already else kind, report)

    def _cache(self, relationship: Relationship) -> CutCache:
        return self._cache_of(relationship.source_site, relationship.target_site, relationship.machine)

    def _send_cached(self, relationship: Relationship, store: ReplicaStore, report: Report) -> None:
        caching.send_cached(self._cache(relationship), store, report)

    def _send_cached_or_forget(self, relationship: Relationship, store: ReplicaStore, report: Report) -> None:
        """Before source and replica are compared: what cannot follow the replica now never will."""
        try:
            self._send_cached(relationship, store, report)
        except ResynchronizationRequired as error:
            report(Progress(doing=f"what waited in the cache is dropped: {error.what}"))
            self._cache(relationship).remove()

    def _cut_with_group(self, relationship: Relationship, kind: ConsistencyKind, report: Report) -> bool:
        """Whether the machine's consistency group is cut together, so that this machine only has to send."""
        fabric = self._source_of(relationship.source_site)
        if not relationship.group:
            return False
        if not isinstance(fabric, CutsTogether):
            why_not = f"the fabric of {relationship.source_site} cannot"
        else:
            rhythm = GroupRhythm(
                frequency_s=relationship.frequency_s, app_consistent_every_s=relationship.app_consistent_every_s
            )
            why_not = fabric.cut_together(relationship.group, relationship.group_members, rhythm, kind)
        if why_not:
            report(Progress(doing=f"cut without its consistency group '{relationship.group}': {why_not}"))
        return not why_not

    def resynchronize(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        source, store = self._ends(relationship)
        with store.lock():
            self._send_cached_or_forget(relationship, store, report)
            return stream.resynchronize(source, store, report)

    def send_last_changes(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        machine, site = relationship.machine, relationship.source_site
        if self._source_of(site).describe(machine).power is not PowerState.OFF:
            raise InvalidState(
                f"machine '{machine}' still runs; the last changes can only be sent once it is off",
                where=f"site {site}",
                remedy="shut it down, then try again",
            )
        source, store = self._ends(relationship)
        with store.lock():
            self._send_cached(relationship, store, report)
            return stream.send_last_changes(source, store, report)

    def recovery_points(self, relationship: Relationship) -> list[RecoveryPoint]:
        return self._store(relationship).state().points

    def resolve_point(self, relationship: Relationship, choice: str) -> RecoveryPoint:
        def of_members() -> dict[str, list[RecoveryPoint]]:
            fabric = self._target_of(relationship.target_site)
            stores = {name: fabric.replica_store(name) for name in relationship.group_members}
            return {name: store.state().points if store.exists() else [] for name, store in stores.items()}

        return groups.choose(
            self.recovery_points(relationship),
            choice,
            group=relationship.group,
            of_members=of_members,
            where=relationship.target_site,
        )

    def fail_over(self, relationship: Relationship, choice: str, report: Report) -> RecoveredMachine:
        """Before there is a second copy of the machine, the replica takes no more from the first: its worker may go on
        without having heard of this, and push the chosen point out."""
        store = self._store(relationship)
        with _in_use(store, lambda: self._point_to_fail_over_to(relationship, store.state(), choice)) as point:
            report(Progress(doing=f"closing the replica of {relationship.machine} to its source"))  # no late try does
            store.fail_over_to(point)
            return self._make(relationship, point, relationship.machine, relationship.target_network, report)

    def _point_to_fail_over_to(self, relationship: Relationship, state: ReplicaState, choice: str) -> RecoveryPoint:
        """An interrupted failover goes on with the point it began with: by now there may be a later one to choose."""
        begun = state.failed_over_to
        if begun is not None and all(point.id != choice for point in state.points):
            return begun
        return self.resolve_point(relationship, choice)

    def cancel_failover(self, relationship: Relationship) -> None:
        self._target_of(relationship.target_site).remove(relationship.machine)
        self._store(relationship).readmit()

    def start_test(self, relationship: Relationship, choice: str, name: str, report: Report) -> RecoveredMachine:
        store = self._store(relationship)
        with _in_use(store, lambda: self._point_to_test(relationship, store.state(), choice, name)) as point:
            return self._make(relationship, point, name, relationship.test_network, report)

    def _point_to_test(self, relationship: Relationship, state: ReplicaState, choice: str, name: str) -> RecoveryPoint:
        """That of the copy which an earlier try made, whose answer was lost: by now there may be a later one."""
        try:
            made_from = self._target_of(relationship.target_site).made_from(name)
        except NotFound:
            made_from = None
        earlier = next((point for point in state.points if point.id == made_from), None)
        if earlier is not None and all(point.id != choice for point in state.points):
            return earlier
        return self.resolve_point(relationship, choice)

    def end_test(self, relationship: Relationship, name: str) -> None:
        self._target_of(relationship.target_site).remove(name)

    def commit(self, relationship: Relationship, point_id: str) -> None:
        store = self._store(relationship)
        with store.lock():
            store.keep_only(store.resolve(point_id))

    def prepare_reverse(self, reversed_relationship: Relationship) -> None:
        fabric = self._target_of(reversed_relationship.target_site)
        before = reversed_relationship
        self._cache_of(before.target_site, before.source_site, before.machine).remove()
        fabric.retire_into_replica(
            reversed_relationship.machine, fabric.replica_store(reversed_relationship.machine), epoch=""
        )

    def retire_replica(self, relationship: Relationship) -> None:
        self._store(relationship).remove()

    def disable_source(self, relationship: Relationship) -> None:
        source = self._source_of(relationship.source_site).change_source(relationship.machine)
        source.delete_snapshot()
        source.stop_tracking()
        self._cache(relationship).remove()

    def disable_target(self, relationship: Relationship) -> None:
        self._store(relationship).remove()

    def _make(
        self, relationship: Relationship, point: RecoveryPoint, name: str, network: str, report: Report
    ) -> RecoveredMachine:
        fabric = self._target_of(relationship.target_site)
        store = fabric.replica_store(relationship.machine)
        fabric.create_from_replica(name, relationship.machine, store, point, network, report)
        return RecoveredMachine(name=name, site=relationship.target_site, network=network, point=point)

    def _ends(self, relationship: Relationship) -> tuple[ChangeSource, ReplicaStore]:
        source = self._source_of(relationship.source_site).change_source(relationship.machine)
        return source, self._store_across(relationship.source_site, relationship.target_site, relationship.machine)

    def _store(self, relationship: Relationship) -> OwnReplicaStore:
        return self._target_of(relationship.target_site).replica_store(relationship.machine)


@contextmanager
def _in_use(store: ReplicaStore, chosen: Callable[[], RecoveryPoint]) -> Iterator[RecoveryPoint]:
    """The chosen point, which nobody prunes inside. One that is pruned while it is being chosen is chosen anew."""
    disk, pruned = store.state().disks[0].name, ""
    while True:
        point = chosen()
        try:
            view = store.view(disk, point)
        except NotFound:
            if point.id == pruned:
                raise
            pruned = point.id
            continue
        with closing(view):
            yield point
        return


def _is_due(last: datetime | None, relationship: Relationship) -> bool:
    """Whether a machine that is cut on its own has to be: a member of a group comes more often than that."""
    if last is None:
        return True
    age_s = (datetime.now(UTC) - last).total_seconds()
    return not 0 <= age_s < relationship.frequency_s * (1 - 1 / (2 * LOOKS_OF_A_MEMBER))
