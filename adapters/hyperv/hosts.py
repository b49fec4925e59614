"""The hosts of one site: who has a machine, and running operations there."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

from adapters.hyperv.errors import TRIED_AGAIN, MissingPath
from adapters.hyperv.facts import HostFacts, Measurement, VirtualMachine
from adapters.hyperv.operation import Input, Operation, Output
from adapters.hyperv.operations import (
    CHECK_HOST,
    INVENTORY,
    MEASURE_REPLICATION,
    InventoryRequest,
    MeasureRequest,
    Nothing,
)
from adapters.ports import Beat
from vault.domain import Value
from vault.errors import Busy, InvalidState, LeewardError, NotFound, Unreachable

CALL_S = 120.0
"""An operation that only looks, or begins something. Discovering a full host takes the longest of them."""
FACTS_FOR_S = 60.0
"""What a host says about itself changes rarely: each check of many machines asks once."""

STARTS_WITHIN_S = 120.0
"""So long after a host was started it may not yet have started the machines that it starts by itself."""

STARTS = ("Start", "StartIfRunning")
"""Of the values of ``-AutomaticStartAction``."""

Answer = TypeVar("Answer")


class Runs(Protocol):
    """What :class:`adapters.hyperv.session.HostSession` does: run operations on one host, blocking, from any thread."""

    def run(self, operation: Operation[Input, Output], given: Input, *, timeout_s: float) -> Output: ...

    def run_job(self, operation: Operation[Input, Output], given: Input, beat: Beat, *, timeout_s: float) -> Output: ...


class Located(NamedTuple):
    """A machine and the host that has it now."""

    host: str
    vm: VirtualMachine
    host_uptime_s: float | None = None
    cluster_service: str = ""
    """As in :class:`adapters.hyperv.facts.HostInventory`."""

    @property
    def may_be_started(self) -> bool:
        """Whether the host was restarted just now, and has not yet started what it starts by itself."""
        within_s = STARTS_WITHIN_S + self.vm.automatic_start_delay_s
        is_young = self.host_uptime_s is not None and self.host_uptime_s < within_s
        return is_young and self.vm.automatic_start in STARTS


@contextmanager
def _may_have_moved(given: Value) -> Iterator[None]:
    """A machine is addressed on a host only after it was found there. When the host knows it no longer, it was moved
    (live migration) or removed a moment ago: looking again tells which. Who looks at all machines of a host may meet
    one that leaves in the middle."""
    try:
        yield
    except MissingPath:
        raise
    except NotFound as gone:
        if not (hasattr(given, "vm_id") or isinstance(given, InventoryRequest | MeasureRequest)):
            raise
        remedy = "it is looked for again; a machine that was removed is reported then"
        raise Busy(f"{gone.what}: it left the host just now", where=gone.where, remedy=remedy) from gone


class HyperVHosts:
    """One site's hosts.

    Args:
        site: the site's name.
        sessions: each host's session, by the host's name in the inventory.
        clock: seconds, by which answers grow old.
    """

    def __init__(self, site: str, sessions: Mapping[str, Runs], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.site = site
        self._sessions = sessions
        self.clock = clock
        self._last_seen: dict[str, str] = {}
        self._last_id: dict[str, str] = {}
        self._cluster_services: dict[str, str] = {}
        self._facts: dict[str, tuple[float, HostFacts]] = {}
        self._measured: dict[str, tuple[float, dict[str, Measurement]]] = {}
        self._measuring: dict[str, threading.Lock] = defaultdict(threading.Lock)

    @property
    def names(self) -> list[str]:
        return list(self._sessions)

    def run(self, host: str, operation: Operation[Input, Output], given: Input, timeout_s: float = CALL_S) -> Output:
        """Raises the errors of the session; ``Busy`` for a machine that left the host after it was found there."""
        with _may_have_moved(given):
            return self._sessions[host].run(operation, given, timeout_s=timeout_s)

    def run_job(
        self, host: str, operation: Operation[Input, Output], given: Input, beat: Beat, timeout_s: float
    ) -> Output:
        with _may_have_moved(given):
            return self._sessions[host].run_job(operation, given, beat, timeout_s=timeout_s)

    def on_all(self, ask: Callable[[str], Answer]) -> dict[str, Answer | LeewardError]:
        """Ask all hosts at once; what one of them fails with does not keep the others' answers back."""

        def answer(host: str) -> Answer | LeewardError:
            try:
                return ask(host)
            except LeewardError as error:
                return error

        hosts = self.names
        with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as threads:
            return dict(zip(hosts, threads.map(answer, hosts), strict=True))

    def facts(self, host: str) -> HostFacts:
        """What the host says about itself, at most :data:`FACTS_FOR_S` old."""
        known = self._facts.get(host)
        if known is None or self.clock() - known[0] > FACTS_FOR_S:
            known = (self.clock(), self.run(host, CHECK_HOST, Nothing()))
            self._facts[host] = known
        return known[1]

    def find(self, name: str) -> Located:
        """The machine of that name, on whichever host it is: machines move between the hosts of a cluster.

        Raises ``NotFound``; ``Unreachable`` when a host that may have it does not answer; ``Busy`` when two nodes of a
        cluster show it; ``InvalidState`` when there are several.
        """
        found = self._find_where_it_was(name) or self._find_anywhere(name)
        self._last_seen[name], self._last_id[name] = found.host, found.vm.id
        return found

    def last_seen(self, name: str) -> str | None:
        """The host on which this process found the machine last; None: it never did."""
        return self._last_seen.get(name)

    def forget(self, name: str) -> None:
        """The next look asks all hosts for the machine."""
        self._last_seen.pop(name, None)

    def last_id(self, name: str) -> str | None:
        """The id of the machine that this process found last by that name."""
        return self._last_id.get(name)

    def cluster_services(self) -> dict[str, str]:
        """By host, the status of the cluster service on those that are nodes of a cluster, as each told last."""
        return {host: service for host, service in self._cluster_services.items() if service}

    def find_if_there(self, name: str) -> Located | None:
        """As :meth:`find`; None when all hosts answered and none has it."""
        try:
            return self.find(name)
        except NotFound:
            return None

    def _find_where_it_was(self, name: str) -> Located | None:
        host = self._last_seen.get(name)
        if host is None:
            return None
        try:
            found = self._ask_for(host, name)
        except Unreachable:
            return None
        return found[0] if len(found) == 1 else None

    def _find_anywhere(self, name: str) -> Located:
        answers = self.on_all(lambda host: self._ask_for(host, name))
        found = [there for answer in answers.values() if isinstance(answer, list) for there in answer]
        if len(found) == 1:
            return found[0]
        if len({there.vm.id for there in found}) == 1 and any(there.vm.clustered for there in found):
            raise Busy(
                f"'{name}' is shown by {' and '.join(there.host for there in found)}: its cluster is moving it",
                where=f"site {self.site}",
                remedy=f"{TRIED_AGAIN}; if it stays so, restart the service vmms on the node that does not own it: "
                "Get-ClusterGroup",
            )
        if found:
            raise InvalidState(
                f"{len(found)} virtual machines are called '{name}', on {', '.join(there.host for there in found)}",
                where=f"site {self.site}",
                remedy="rename or remove all but one",
            )
        for answer in answers.values():
            if isinstance(answer, LeewardError):
                raise answer
        remedy = f"looked on {', '.join(self.names)}; if it was renamed, set 'name' below the machine's 'hyperv'"
        if self.cluster_services():
            remedy += "; if its role was stopped as a whole, bring its configuration online: Start-ClusterResource"
        raise NotFound(f"no host has a virtual machine '{name}'", where=f"site {self.site}", remedy=remedy)

    def _ask_for(self, host: str, name: str) -> list[Located]:
        answer = self.run(host, INVENTORY, InventoryRequest(names=[name]))
        self._cluster_services[host] = answer.cluster_service
        named = [vm for vm in answer.machines if vm.name.casefold() == name.casefold()]
        return [Located(host, vm, answer.uptime_s, answer.cluster_service) for vm in named]

    def measure(self, there: Located, *, not_older_than_s: float = 0) -> Measurement:
        """How the machine's replication goes. All machines of a host are measured in one call, which serves everybody
        who asks within ``not_older_than_s``.

        Raises ``NotFound`` when it is not replicated; ``Busy`` when it is on another host by now.
        """
        measured = self._measured_on(there, not_older_than_s)
        if measured is None and not_older_than_s:
            # It may have come to this host after the others were measured.
            measured = self._measured_on(there, 0)
        if measured is not None:
            return measured
        now = self.find(there.vm.name)
        if now.host != there.host:
            raise Busy(
                f"'{there.vm.name}' was moved to {now.host} just now",
                where=f"host {there.host}",
                remedy="it is looked for again",
            )
        raise NotFound(
            f"'{there.vm.name}' is not replicated",
            where=f"host {there.host}",
            remedy="protect it; when somebody removed its replication on the host, disable its protection first",
        )

    def _measured_on(self, there: Located, not_older_than_s: float) -> Measurement | None:
        asked = self.clock()
        with self._measuring[there.host]:
            known = self._measured.get(there.host)
            if not_older_than_s and known is not None and asked - known[0] <= not_older_than_s:
                return known[1].get(there.vm.id)
            began = self.clock()
            wanted = None if not_older_than_s else [there.vm.id]
            measured = self.run(there.host, MEASURE_REPLICATION, MeasureRequest(vm_ids=wanted))
            by_id = {machine.vm_id: machine for machine in measured.machines}
            if wanted is None:
                self._measured[there.host] = (began, by_id)
            return by_id.get(there.vm.id)
