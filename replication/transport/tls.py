"""Mutual TLS 1.3 for gRPC, and plain words for why a connection was refused."""

from __future__ import annotations

import socket
import ssl
import time
from datetime import UTC, datetime

import grpc

from replication.transport.pki import Identity, Peer, peer_in, server_name
from vault.errors import AuthenticationRefused, InvalidState, LeewardError, Unreachable

HANDSHAKE_S = 10.0
HANDSHAKES = 3
HANDSHAKE_AGAIN_S = 0.3
"""A server that hangs up so often in a row means it; one that stops or restarts is not there the next time."""
_HTTP2 = ["h2"]
_EXPIRED, _NOT_YET_VALID, _OTHER_NAME = 10, 9, 62


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    key, certificate = identity.key_and_certificate()
    return grpc.ssl_channel_credentials(identity.authority, key, certificate)


def server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """A renewed certificate is used from the next connection on."""
    used = (identity.pem, identity.authority)

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([identity.key_and_certificate()], identity.authority)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        now = (identity.pem, identity.authority)
        if now == used:
            return None
        used = now
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        changed,  # type: ignore[arg-type]  # the stubs do not know that None means "unchanged"
        require_client_authentication=True,
    )


def peer_of(context: grpc.ServicerContext) -> Peer:
    """The site at the other end of a call, as its verified certificate says."""
    certificates = list(context.auth_context().get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise AuthenticationRefused("the caller has no certificate", where=context.peer())
    return peer_in(bytes(certificates[0]), context.peer())


def diagnose(address: str, identity: Identity, site: str) -> None:
    """Why can nobody connect to ``site``'s master target at ``address``? Returns when a handshake succeeds now.

    Raises:
        Unreachable: nothing answers there.
        AuthenticationRefused: one side does not accept the other's certificate.
        InvalidState: the other side does not speak TLS 1.3.
    """
    identity.require_usable(datetime.now(UTC))
    where = f"master target of site '{site}' at {address}"
    for tried in range(1, HANDSHAKES + 1):
        try:
            if _shakes_hands(address, identity, site):
                return
        except ssl.SSLCertVerificationError as error:
            raise _refused_theirs(error, address, identity, site, where) from None
        except ssl.SSLError as error:
            raise _refused_ours(error, identity, where) from None
        except OSError as error:
            raise Unreachable(
                f"the master target does not answer: {str(error).lower() or type(error).__name__}",
                where=where,
                remedy="check that it runs (leeward master-target) and that the link to it is up",
            ) from None
        if tried < HANDSHAKES:
            time.sleep(HANDSHAKE_AGAIN_S)
    raise _not_accepted(identity, where, "it hangs up as soon as it has seen it")


def _shakes_hands(address: str, identity: Identity, site: str) -> bool:
    """False when the other side, a master target of that site beyond doubt, hangs up on us.

    In TLS 1.3 the client is done before the server has looked at its certificate, and gRPC sends no alert when it does
    not like it. A server that accepts us sends its HTTP/2 settings at once."""
    with (
        _connect(address) as plain,
        _context(identity).wrap_socket(plain, server_hostname=server_name(site)) as connection,
    ):
        try:
            return bool(connection.recv(1))
        except ConnectionError:
            return False


def speaks_tls_1_2(address: str, identity: Identity) -> bool:
    """Whether a server would still agree on TLS 1.2.

    It is asked with a certificate that it accepts: without one it hangs up in every version, which proves nothing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(identity.path)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_HTTP2)
    try:
        with _connect(address) as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError:
        return False


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=HANDSHAKE_S)


def _context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=identity.authority.decode())
    context.load_cert_chain(identity.path)
    context.set_alpn_protocols(_HTTP2)
    return context


def _refused_theirs(
    error: ssl.SSLCertVerificationError, address: str, identity: Identity, site: str, where: str
) -> LeewardError:
    if error.verify_code == _EXPIRED:
        return AuthenticationRefused(
            "its certificate has expired", where=where, remedy=f"renew it there: leeward pki issue {site}"
        )
    if error.verify_code == _NOT_YET_VALID:
        return AuthenticationRefused(
            "its certificate is not valid yet", where=where, remedy="correct the clocks of both hosts"
        )
    if error.verify_code == _OTHER_NAME or "ostname" in error.verify_message:
        return AuthenticationRefused(
            f"another site answers there: {_who_answers(address, identity)}",
            where=where,
            remedy="correct 'master_target' of the site in the inventory",
        )
    return AuthenticationRefused(
        f"its certificate comes from an authority that is not trusted here ({error.verify_message})",
        where=where,
        remedy="both sites need certificates of the same authority (ca.pem): leeward pki issue",
    )


def _who_answers(address: str, identity: Identity) -> str:
    context = _context(identity)
    context.check_hostname = False
    try:
        with _connect(address) as plain, context.wrap_socket(plain) as tls:
            certificate = ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")
        return f"site '{peer_in(certificate.encode()).site}'"
    except (OSError, LeewardError):
        return "no site that could be asked for its name"


def _refused_ours(error: ssl.SSLError, identity: Identity, where: str) -> LeewardError:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "version" in reason or "protocol" in reason:
        return InvalidState(
            f"no common version of TLS ({reason})",
            where=where,
            remedy="both sides must speak TLS 1.3",
        )
    if "alert" in reason:
        return _not_accepted(identity, where, reason)
    return Unreachable(f"the connection broke off ({reason})", where=where, remedy="check the link between the sites")


def _not_accepted(identity: Identity, where: str, how: str) -> AuthenticationRefused:
    return AuthenticationRefused(
        f"it does not accept the certificate of site '{identity.site}': {how}",
        where=where,
        remedy="both sites need valid certificates of the same authority, and right clocks: "
        f"leeward pki issue {identity.site}",
    )
