"""CIM-XML (DSP0201) of requests and answers.

pywbem is a client. Its parser of requests and its elements are not part of its published interface, but they are
what it reads answers with: a server made of them speaks its language.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pywbem import CIMInstance, CIMInstanceName, cimtype, tocimxml
from pywbem import _cim_xml as xml
from pywbem._tupleparse import TupleParser
from pywbem._tupletree import xml_to_tupletree_sax


class Request(NamedTuple):
    """``target``: the object of an extrinsic method; None for an intrinsic one, whose parameters say it."""

    message_id: str
    method: str
    parameters: dict[str, Any]
    target: Any | None


def parse(document: bytes) -> Request:
    """Raises pywbem's ``ParseError`` for what is no request."""
    tree = TupleParser().parse_cim(xml_to_tupletree_sax(document, "CIM-XML request"))
    message = tree[2]
    kind, attributes, path, parameters = message[2][2]
    if kind == "IMETHODCALL":
        named, target = dict(parameters), None
    else:
        named, target = {name: _typed(type_name, value) for name, type_name, value in parameters}, path
    return Request(message[1]["ID"], attributes["NAME"], named, target)


def _typed(type_name: str | None, value: Any) -> Any:
    """The parser leaves the values of parameters as text."""
    if isinstance(value, list):
        return [_typed(type_name, one) for one in value]
    if not isinstance(value, str) or type_name is None:
        return value
    if type_name == "boolean":
        return value.lower() == "true"
    return int(value) if "int" in type_name else value


def named_instances(found: list[CIMInstance]) -> list[Any]:
    return [xml.VALUE_NAMEDINSTANCE(_local(one.path), one.tocimxml(ignore_path=True)) for one in found]


def instances(found: list[CIMInstance], *, with_path: bool) -> list[Any]:
    if with_path:
        return [xml.VALUE_OBJECTWITHPATH(_path(one.path), one.tocimxml(ignore_path=True)) for one in found]
    return [one.tocimxml(ignore_path=True) for one in found]


def names(found: list[CIMInstanceName], *, with_path: bool) -> list[Any]:
    if with_path:
        return [xml.OBJECTPATH(_path(one)) for one in found]
    return [_local(one) for one in found]


def _local(path: CIMInstanceName) -> Any:
    return path.tocimxml(ignore_host=True, ignore_namespace=True)


def _path(path: CIMInstanceName) -> Any:
    path = path.copy()
    path.host = path.host or "array"
    return path.tocimxml()


def answer(request: Request, content: list[Any]) -> bytes:
    """To an intrinsic method."""
    body = [xml.IRETURNVALUE(content)] if content else []
    return _message(request, xml.IMETHODRESPONSE(request.method, body))


def error(request: Request, code: int, what: str) -> bytes:
    element = xml.IMETHODRESPONSE if request.target is None else xml.METHODRESPONSE
    return _message(request, element(request.method, xml.ERROR(str(code), what)))


def method_answer(request: Request, code: int, out: Mapping[str, Any]) -> bytes:
    """To an extrinsic method."""
    body = [xml.RETURNVALUE(xml.VALUE(str(int(code))), "uint32")]
    body += [_out(name, value) for name, value in out.items()]
    return _message(request, xml.METHODRESPONSE(request.method, body))


def _out(name: str, value: Any) -> Any:
    first = value[0] if isinstance(value, list) else value
    if isinstance(first, CIMInstanceName):
        full = [xml.VALUE_REFERENCE(_path(one)) for one in (value if isinstance(value, list) else [value])]
        return xml.PARAMVALUE(name, xml.VALUE_REFARRAY(full) if isinstance(value, list) else full[0], "reference")
    return xml.PARAMVALUE(name, tocimxml(value), cimtype(value))


def _message(request: Request, response: Any) -> bytes:
    document: str = xml.CIM(xml.MESSAGE(xml.SIMPLERSP(response), request.message_id, "1.0"), "2.0", "2.0").toxml()
    return b'<?xml version="1.0" encoding="utf-8" ?>\n' + document.encode()
