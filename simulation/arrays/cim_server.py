"""The CIM server of an array: CIM-XML over HTTPS with basic authentication (DSP0200, DSP0201), for any WBEM client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from pywbem import (
    CIM_ERR_INVALID_CLASS,
    CIM_ERR_METHOD_NOT_AVAILABLE,
    CIM_ERR_NOT_FOUND,
    CIM_ERR_NOT_SUPPORTED,
    CIMInstance,
    CIMInstanceName,
    ParseError,
)

from simulation.arrays import cim_messages as messages
from simulation.arrays.array import Array
from simulation.arrays.cim_methods import Answered, CimMethods
from simulation.arrays.cim_objects import ASSOCIATIONS, CimView, is_same
from simulation.listening import HttpConnection, TlsListener, basic_login
from simulation.winrm.certificate import ServerCertificate, make_certificate


class CimFault(NamedTuple):
    """A CIM error (``CIM_ERR_…`` of DSP0200) instead of an answer."""

    code: int
    what: str


Disturbance = CimFault | Answered | None
Disturb = Callable[[str, dict[str, Any]], Disturbance]
"""Asked at every request, with its method and parameters: what goes wrong with it."""


class CimServer:
    """Listens on 127.0.0.1 until :meth:`close`.

    Args:
        user, password: the one login that is accepted.
        certificates: where the self-signed certificate is written to.
    """

    def __init__(self, array: Array, certificates: Path, *, user: str, password: str, port: int = 0) -> None:
        self.array = array
        self.certificate: ServerCertificate = make_certificate(certificates)
        self.login = basic_login(user, password)
        self.disturb: Disturb | None = None
        self.methods: list[str] = []
        """The methods of all authenticated requests."""
        self._methods = CimMethods(array)
        self._listener = _Listener(self, port)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.port}"

    def close(self) -> None:
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- requests ---------------------------------------------------------------------------------------------

    def answer(self, document: bytes) -> bytes:
        """Raises ``ParseError``."""
        request = messages.parse(document)
        self.methods.append(request.method)
        disturbance = self.disturb(request.method, request.parameters) if self.disturb else None
        if isinstance(disturbance, CimFault):
            return messages.error(request, disturbance.code, disturbance.what)
        if request.target is not None:
            return self._extrinsic(request, disturbance)
        return self._intrinsic(request)

    def _extrinsic(self, request: messages.Request, disturbance: Answered | None) -> bytes:
        try:
            answered = disturbance or self._methods.invoke(request.method, request.parameters)
        except KeyError as missing:
            return messages.error(request, CIM_ERR_METHOD_NOT_AVAILABLE, f"no method or parameter {missing}")
        return messages.method_answer(request, answered.code, answered.out)

    def _intrinsic(self, request: messages.Request) -> bytes:
        view = CimView(self.array)
        if request.method not in _INTRINSIC:
            return messages.error(request, CIM_ERR_NOT_SUPPORTED, f"{request.method} is not served")
        try:
            return messages.answer(request, _INTRINSIC[request.method](view, request.parameters))
        except KeyError as missing:
            return messages.error(request, CIM_ERR_INVALID_CLASS, f"there is no class {missing}")
        except LookupError as missing:
            return messages.error(request, CIM_ERR_NOT_FOUND, str(missing))


def _enumerate(view: CimView, given: dict[str, Any]) -> list[Any]:
    return messages.named_instances(view.instances(given["ClassName"].classname))


def _enumerate_names(view: CimView, given: dict[str, Any]) -> list[Any]:
    found = view.instances(given["ClassName"].classname)
    return messages.names([one.path for one in found], with_path=False)


def _get(view: CimView, given: dict[str, Any]) -> list[Any]:
    wanted: CIMInstanceName = given["InstanceName"]
    for one in view.instances(wanted.classname):
        if one.path.keybindings == wanted.keybindings:
            return messages.instances([one], with_path=False)
    raise LookupError(f"there is no instance {wanted}")


def _related(view: CimView, given: dict[str, Any]) -> list[tuple[CIMInstance, CIMInstanceName]]:
    """The associations of an object that the parameters ask for, each with its other end."""
    wanted: CIMInstanceName = given["ObjectName"]
    asked = given.get("AssocClass") if "AssocClass" in given else given.get("ResultClass")
    classes = [asked.classname] if asked is not None else list(ASSOCIATIONS)
    found = []
    for class_name in classes:
        for one in view.instances(class_name):
            for mine, other in (ASSOCIATIONS[class_name], ASSOCIATIONS[class_name][::-1]):
                matches = is_same(one[mine], wanted) and given.get("Role") in (None, mine)
                if matches and given.get("ResultRole") in (None, other):
                    found.append((one, one[other]))
    return found


def _associated(view: CimView, given: dict[str, Any]) -> list[CIMInstance]:
    result = given.get("ResultClass")
    ends = [end for _, end in _related(view, given) if result is None or end.classname == result.classname]
    everything = {(one.path.classname, str(one.path)): one for end in ends for one in view.instances(end.classname)}
    found = (everything.get((end.classname, str(end))) for end in ends)
    return [one for one in found if one is not None]


def _associators(view: CimView, given: dict[str, Any]) -> list[Any]:
    return messages.instances(_associated(view, given), with_path=True)


def _associator_names(view: CimView, given: dict[str, Any]) -> list[Any]:
    return messages.names([one.path for one in _associated(view, given)], with_path=True)


def _references(view: CimView, given: dict[str, Any]) -> list[Any]:
    return messages.instances([one for one, _ in _related(view, given)], with_path=True)


def _reference_names(view: CimView, given: dict[str, Any]) -> list[Any]:
    return messages.names([one.path for one, _ in _related(view, given)], with_path=True)


_INTRINSIC: dict[str, Callable[[CimView, dict[str, Any]], list[Any]]] = {
    "EnumerateInstances": _enumerate,
    "EnumerateInstanceNames": _enumerate_names,
    "GetInstance": _get,
    "Associators": _associators,
    "AssociatorNames": _associator_names,
    "References": _references,
    "ReferenceNames": _reference_names,
}


class _Listener(TlsListener):
    def __init__(self, server: CimServer, port: int) -> None:
        self.cim = server
        super().__init__(server.certificate.context(), port, _Connection, "CIM server")


class _Connection(HttpConnection):
    content_type = 'application/xml; charset="utf-8"'
    server: _Listener

    def do_POST(self) -> None:
        document = self.read_body()
        if self.headers.get("Authorization") != self.server.cim.login:
            self.respond(401, b"", ("WWW-Authenticate", 'Basic realm="array"'))
            return
        try:
            self.respond(200, self.server.cim.answer(document), ("CIMOperation", "MethodResponse"))
        except ParseError as error:
            self.respond(400, str(error).encode(), ("CIMError", "request-not-well-formed"))
