"""Faults that can be switched on and off at a lab site while everything runs."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from adapters.lab.documents import locked_file, open_lock_file, read_document, write_document
from adapters.lab.guest_client import kill
from adapters.lab.layout import LabLayout
from vault.errors import AuthenticationRefused, BadInput, NoSpace, Unreachable

FORMAT, VERSION = "leeward-lab-faults", 1
_LOOK_AGAIN_S = 0.1
_PACE = struct.Struct("<dd")
"""When it was written, and until when the link carries what was asked for: by the clock that nobody sets."""


class Fault(StrEnum):
    HOST_DEAD = "host dead"
    """Every guest of the site is killed; nothing at the site answers. After it is cleared the guests stay off; see
    ``labctl.host_returns`` for a host that starts them."""
    LINK_DOWN = "link down"
    """Nothing gets from or to the site."""
    LINK_SLOW = "link slow"
    """All transfers from or to the site together get this many bytes a second."""
    DISK_FULL = "disk full"
    """Nothing more can be stored at the site, though running guests go on writing to the disks they have."""
    LOGIN_REFUSED = "login refused"
    """The site's fabric does not accept any credentials."""

    @classmethod
    def parse(cls, text: str) -> Fault:
        """``host dead`` or ``host-dead``. Raises ``BadInput`` naming the known faults."""
        try:
            return cls(text.replace("-", " ").strip().lower())
        except ValueError:
            known = ", ".join(fault.value.replace(" ", "-") for fault in cls)
            raise BadInput(f"there is no fault '{text}'", remedy=f"use one of: {known}") from None


class SiteFaults:
    """The faults of one site, seen by every process within one call. Thread-safe."""

    def __init__(self, lab_root: Path, site: str) -> None:
        self.site = site
        self._folder = LabLayout(lab_root).site(site)
        self._path = str(self._folder.faults)
        self._seen: tuple[int, int] | None = None
        self._active: dict[Fault, float | None] = {}

    def active(self) -> dict[Fault, float | None]:
        """The faults that are on; the value is the rate of ``link slow`` in bytes a second, else None."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - asked for every message: pathlib takes thrice as long
        except FileNotFoundError:
            return {}
        signature = (found.st_ino, found.st_mtime_ns)
        if signature != self._seen:
            body = read_document(self._folder.faults, FORMAT, VERSION)
            self._active = {Fault(name): value for name, value in body.items()}
            self._seen = signature
        return self._active

    def set(self, fault: Fault, bytes_per_second: float | None = None) -> None:
        """Switch a fault on. Raises ``BadInput`` for a slow link without a rate, or a rate for another fault."""
        if (fault is Fault.LINK_SLOW) != (bytes_per_second is not None):
            raise BadInput("a slow link, and only that, needs a rate in bytes a second", where=self.site)
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise BadInput("the rate of a slow link is more than 0 bytes a second", where=self.site)
        self._change(lambda faults: {**faults, fault: bytes_per_second})
        if fault is Fault.HOST_DEAD:
            for machine in self._folder.registered():
                kill(machine)

    def clear(self, fault: Fault | None = None) -> None:
        """Switch a fault off, or all of them. Idempotent."""
        self._change(lambda faults: {name: value for name, value in faults.items() if fault and name is not fault})

    def _change(self, change: Callable[[dict[Fault, float | None]], dict[Fault, float | None]]) -> None:
        with locked_file(self._folder.path / ".faults.lock"):
            changed = change(dict(self.active()))
            write_document(self._folder.faults, FORMAT, VERSION, {str(name): value for name, value in changed.items()})

    # Checks for adapters:

    def require_host(self) -> dict[Fault, float | None]:
        """The faults that are on. Raises ``Unreachable`` when the site's host is dead."""
        active = self.active()
        if Fault.HOST_DEAD in active:
            raise Unreachable(
                "the host does not answer", where=f"site {self.site}", remedy="bring the site's host back"
            )
        return active

    def require_login(self) -> None:
        """Raises ``Unreachable`` or ``AuthenticationRefused``."""
        if Fault.LOGIN_REFUSED in self.require_host():
            raise AuthenticationRefused(
                "the fabric refused the login",
                where=f"site {self.site}",
                remedy="correct the site's credentials in the inventory",
            )

    def require_link(self) -> float | None:
        """The link's rate in bytes a second, None when it is not slowed down. Raises ``Unreachable`` when nothing gets
        from or to the site."""
        active = self.require_host()
        if Fault.LINK_DOWN in active:
            raise Unreachable("the link is down", where=f"site {self.site}", remedy="repair the link between the sites")
        return active.get(Fault.LINK_SLOW)

    def require_space(self) -> None:
        """Raises ``NoSpace`` when the site's disk is full."""
        if Fault.DISK_FULL in self.active():
            raise NoSpace("the disk is full", where=f"site {self.site}", remedy="free space at the site")


def link_guard(lab_root: Path, source_site: str, target_site: str) -> Callable[[int], None]:
    """A function to call with the bytes of every chunk that goes from one site to the other (0 for a mere request).

    It returns when a link of the present rate has carried them; all guards of the two sites share that rate. It raises
    ``Unreachable`` as soon as the link of either site is down or either host is dead, also while it waits."""
    ends = (SiteFaults(lab_root, source_site), SiteFaults(lab_root, target_site))
    pace = LabLayout(lab_root).link(source_site, target_site)

    def guard(count: int) -> None:
        rates = [rate for end in ends if (rate := end.require_link()) is not None]
        if not rates or count <= 0:
            return
        carried_at = _take_turn(pace, count / min(rates))
        while (wait := carried_at - time.monotonic()) > 0:
            time.sleep(min(wait, _LOOK_AGAIN_S))
            if not [rate for end in ends if (rate := end.require_link()) is not None]:
                return

    return guard


def _take_turn(pace: Path, seconds: float) -> float:
    """Queue behind what the link carries already; the time by the machine's monotonic clock at which these bytes will
    be over.

    The file is a queue between living processes, worth nothing after a restart; so it has no format of its own. All
    processes of a machine have one monotonic clock; who wrote later than now wrote before the machine started."""
    descriptor = open_lock_file(pace)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        raw = os.pread(descriptor, _PACE.size, 0)
        now = time.monotonic()
        written_at, free_at = _PACE.unpack(raw) if len(raw) == _PACE.size else (now, now)
        carried_at = (max(free_at, now) if written_at <= now else now) + seconds
        os.pwrite(descriptor, _PACE.pack(now, carried_at), 0)
    finally:
        os.close(descriptor)
    return carried_at
