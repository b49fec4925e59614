"""WS-Management messages of the Windows remote shell: requests taken apart, responses and faults put together.

[MS-WSMV] 3.1.4 (the messages), DMTF DSP0226 (WS-Management), and what pywinrm sends.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

SOAP = "http://www.w3.org/2003/05/soap-envelope"
ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
WSMAN = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
FAULT = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"
CMD = f"{SHELL}/cmd"
NAMES = {"s": SOAP, "a": ADDRESSING, "w": WSMAN, "rsp": SHELL}

CREATE, DELETE = f"{TRANSFER}/Create", f"{TRANSFER}/Delete"
COMMAND, SEND, RECEIVE, SIGNAL = (f"{SHELL}/{verb}" for verb in ("Command", "Send", "Receive", "Signal"))


class Fault(Exception):
    """A request that the service refuses, with its WSManFault code (wsmerror.h)."""

    def __init__(self, code: int, reason: str, subcode: str = "w:InternalError") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.subcode = subcode


ACCESS_DENIED = Fault(5, "Access is denied.", "w:AccessDenied")
OPERATION_TIMED_OUT = Fault(
    0x80338029,
    "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.",
    "w:TimedOut",
)
SHELL_NOT_FOUND = Fault(
    0x8033805B,
    "The request for the Windows Remote Shell failed because the shell was not found on the server.",
    "w:InvalidSelectors",
)
SHELL_QUOTA = Fault(
    0x803381A5,
    "The WS-Management service cannot process the request. This user has exceeded the maximum number of "
    "concurrent shells.",
    "w:QuotaLimit",
)
ENVELOPE_TOO_LARGE = Fault(0x80338047, "The request exceeds the configured MaxEnvelopeSize quota.", "w:EncodingLimit")


@dataclass(frozen=True)
class Message:
    """One request."""

    id: str
    action: str
    shell: str | None
    timeout_s: float
    body: ElementTree.Element

    @property
    def verb(self) -> str:
        return self.action.rpartition("/")[2]


def parse(document: bytes) -> Message:
    """Raises ``Fault`` for what is not a WS-Management request."""
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise Fault(0x80338041, f"The request is not well-formed XML: {error}", "w:SchemaValidationError") from None
    header, body = root.find("s:Header", NAMES), root.find("s:Body", NAMES)
    action = root.findtext("s:Header/a:Action", "", NAMES)
    if header is None or body is None or not action:
        raise Fault(0x80338041, "The request has no header, body or action.", "w:SchemaValidationError")
    selector = header.find("w:SelectorSet/w:Selector[@Name='ShellId']", NAMES)
    duration = header.findtext("w:OperationTimeout", "PT60S", NAMES)
    return Message(
        id=header.findtext("a:MessageID", "", NAMES),
        action=action,
        shell=None if selector is None else selector.text,
        timeout_s=float(duration.removeprefix("PT").removesuffix("S")),
        body=body,
    )


def created(request: Message, shell: str) -> bytes:
    return _envelope(
        request,
        f"{TRANSFER}/CreateResponse",
        f'<x:ResourceCreated xmlns:x="{TRANSFER}"><a:Address>http://127.0.0.1/wsman</a:Address><a:ReferenceParameters>'
        f"<w:ResourceURI>{CMD}</w:ResourceURI>"
        f'<w:SelectorSet><w:Selector Name="ShellId">{escape(shell)}</w:Selector></w:SelectorSet>'
        "</a:ReferenceParameters></x:ResourceCreated>",
    )


def deleted(request: Message) -> bytes:
    return _envelope(request, f"{TRANSFER}/DeleteResponse", "")


def command_started(request: Message, command: str) -> bytes:
    return _envelope(
        request,
        f"{COMMAND}Response",
        f"<rsp:CommandResponse><rsp:CommandId>{escape(command)}</rsp:CommandId></rsp:CommandResponse>",
    )


def sent(request: Message) -> bytes:
    return _envelope(request, f"{SEND}Response", "<rsp:SendResponse/>")


def signalled(request: Message) -> bytes:
    return _envelope(request, f"{SIGNAL}Response", "<rsp:SignalResponse/>")


def received(request: Message, command: str, streams: list[tuple[str, bytes]], exit_code: int | None) -> bytes:
    """Output so far; with an exit code, the last of it."""
    identifier = quoteattr(command)
    parts = [
        f'<rsp:Stream Name="{name}" CommandId={identifier}>{base64.b64encode(data).decode()}</rsp:Stream>'
        for name, data in streams
    ]
    state = "Running" if exit_code is None else "Done"
    ended = "" if exit_code is None else f"<rsp:ExitCode>{exit_code}</rsp:ExitCode>"
    parts.append(
        f'<rsp:CommandState CommandId={identifier} State="{SHELL}/CommandState/{state}">{ended}</rsp:CommandState>'
    )
    return _envelope(request, f"{RECEIVE}Response", f"<rsp:ReceiveResponse>{''.join(parts)}</rsp:ReceiveResponse>")


def fault(message_id: str, refused: Fault) -> bytes:
    reason = escape(refused.reason)
    return (
        f'<s:Envelope xmlns:s="{SOAP}" xmlns:a="{ADDRESSING}" xmlns:w="{WSMAN}"><s:Header>'
        f"<a:Action>{WSMAN.removesuffix('.xsd')}/fault</a:Action><a:MessageID>uuid:{uuid.uuid4()}</a:MessageID>"
        f"<a:RelatesTo>{escape(message_id)}</a:RelatesTo></s:Header><s:Body><s:Fault>"
        f"<s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>{refused.subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en-US">{reason}</s:Text></s:Reason><s:Detail>'
        f'<f:WSManFault xmlns:f="{FAULT}" Code="{refused.code}" Machine="127.0.0.1">'
        f"<f:Message>{reason}</f:Message></f:WSManFault></s:Detail></s:Fault></s:Body></s:Envelope>"
    ).encode()


def _envelope(request: Message, action: str, body: str) -> bytes:
    return (
        f'<s:Envelope xmlns:s="{SOAP}" xmlns:a="{ADDRESSING}" xmlns:w="{WSMAN}" xmlns:rsp="{SHELL}"><s:Header>'
        f"<a:Action>{action}</a:Action><a:MessageID>uuid:{uuid.uuid4()}</a:MessageID>"
        f"<a:RelatesTo>{escape(request.id)}</a:RelatesTo></s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()
