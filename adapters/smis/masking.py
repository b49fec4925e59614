"""Which hosts see which volumes: views (CIM_SCSIProtocolController) of SMI-S's Masking and Mapping profile.

A host has at most one view through a port, so volumes are added to the one that its initiator has, if any. The rules
are those of ExposePaths and HidePaths, CIM_ControllerConfigurationService (MicrosoftDocs/win32, desktop-src/iSCSITarg).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pywbem

from adapters.san.ports import unwatched
from adapters.smis.connection import SmisConnection
from adapters.smis.values import DeviceAccess
from vault.errors import InvalidState, NotFound

IN_VIEW = "CIM_ProtocolControllerForUnit"
LOOKS = 10
"""So often others may be quicker."""

Service = Callable[[], pywbem.CIMInstanceName]
VolumeId = tuple[str, str]


@dataclass
class _View:
    path: pywbem.CIMInstanceName
    seen: set[VolumeId] = field(default_factory=set)


_Views = dict[str, list[_View]]
"""By initiator, what it is let see. A view of several initiators is the same object for each."""


class _Change(NamedTuple):
    method: str
    volumes: Sequence[pywbem.CIMInstance]
    to: dict[str, Any]


class Masking:
    """Exposes and hides volumes by the array's ControllerConfigurationService. Thread-safe. Everything may be repeated.

    What is to be done depends on the views that there are, and SMI-S has no lock: another worker of the site may make a
    host's first view just now, or take the last volume out of it, with which it vanishes. An array must refuse what
    does not fit any more (a second view of an initiator: 4101), so whoever is refused looks again. Within one process
    there are turns, which spare the refusals.
    """

    def __init__(self, cim: SmisConnection, service: Service) -> None:
        self._cim = cim
        self._service = service
        self._turn = threading.Lock()

    def expose(self, volumes: Sequence[pywbem.CIMInstance], initiators: Sequence[str]) -> None:
        """Let these initiators read and write the volumes."""
        self._bring_about(initiators, lambda views: _exposing(volumes, views))

    def hide(self, volumes: Sequence[pywbem.CIMInstance], initiators: Sequence[str]) -> None:
        """Take the volumes out of all views of these initiators."""
        self._bring_about(initiators, lambda views: _hiding(volumes, views))

    def _bring_about(self, initiators: Sequence[str], missing: Callable[[_Views], Iterator[_Change]]) -> None:
        """Make the changes that are missing. One that is refused is an error, unless the views are other ones now."""
        with self._turn:
            views = self._look(initiators)
            for look in range(1, LOOKS + 1):
                try:
                    self._make(missing(views))
                    return
                except (InvalidState, NotFound):
                    before, views = views, self._look(initiators)
                    if views == before or look == LOOKS:
                        raise

    def _make(self, changes: Iterator[_Change]) -> None:
        service: pywbem.CIMInstanceName | None = None
        for change in changes:
            service = service or self._service()
            verb = "exposing" if change.method == "ExposePaths" else "hiding"
            doing = f"{verb} {', '.join(volume['ElementName'] for volume in change.volumes)}"
            names = [volume["Name"] for volume in change.volumes]
            out = self._cim.invoke(doing, change.method, service, LUNames=names, **change.to)
            self._cim.await_job(doing, out, unwatched)

    def _look(self, initiators: Sequence[str]) -> _Views:
        """An initiator's hardware id → privilege → view → volumes."""
        known: dict[str, _View] = {}
        ids = self._cim.enumerate("CIM_StorageHardwareID")
        return {
            initiator: [
                self._view(target.path, known)
                for one in ids
                if one["StorageID"] == initiator
                for privilege in self._associated(one.path, "CIM_AuthorizedSubject")
                for target in self._associated(privilege.path, "CIM_AuthorizedTarget")
            ]
            for initiator in initiators
        }

    def _view(self, path: pywbem.CIMInstanceName, known: dict[str, _View]) -> _View:
        name = path.to_wbem_uri(format="canonical")
        if name not in known:
            known[name] = _View(path, {_id(seen) for seen in self._associated(path, IN_VIEW)})
        return known[name]

    def _associated(self, path: pywbem.CIMInstanceName, through: str) -> list[pywbem.CIMInstance]:
        """Nothing of what went just now."""
        try:
            return self._cim.associated(path, through)
        except NotFound:
            return []


def _exposing(volumes: Sequence[pywbem.CIMInstance], views: _Views) -> Iterator[_Change]:
    """Each change is noted in ``views`` once it is made."""
    newcomers = [initiator for initiator, own in views.items() if not own]
    for own in views.values():
        hidden = [volume for volume in volumes if all(_id(volume) not in view.seen for view in own)]
        if own and hidden:
            yield _expose(hidden, ProtocolControllers=[own[0].path])
            own[0].seen.update(map(_id, hidden))
    if newcomers and volumes:
        yield _expose(volumes, InitiatorPortIDs=newcomers)


def _hiding(volumes: Sequence[pywbem.CIMInstance], views: _Views) -> Iterator[_Change]:
    for own in views.values():
        for view in own:
            shown = [volume for volume in volumes if _id(volume) in view.seen]
            if shown:
                yield _Change("HidePaths", shown, {"ProtocolControllers": [view.path]})
                view.seen.difference_update(map(_id, shown))


def _expose(volumes: Sequence[pywbem.CIMInstance], **to: Any) -> _Change:
    access = [pywbem.Uint16(DeviceAccess.READ_WRITE)] * len(volumes)
    return _Change("ExposePaths", volumes, {"DeviceAccesses": access, **to})


def _id(volume: pywbem.CIMInstance) -> VolumeId:
    return volume["SystemName"], volume["DeviceID"]
