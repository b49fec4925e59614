"""Who may talk to a master target, and what the refused are told."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from transport_wire import KEEPALIVE_MS, SOURCE, TARGET, Wire

from replication.ports import Extent
from replication.transport import messages as say
from replication.transport import tls
from replication.transport.connection import Connection
from replication.transport.pki import Identity, Pki, server_name
from replication.transport.remote import RemoteReplicaStore
from replication.transport.server import MasterTarget
from vault.domain import Disk
from vault.errors import AuthenticationRefused, AuthorizationRefused, InvalidState, LeewardError, Unreachable

pytestmark = pytest.mark.contract

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=500)


def refused(wire: Wire, error: type[LeewardError], match: str, **how: object) -> LeewardError:
    """Every way in is refused alike, and nothing was made."""
    store = wire.remote(**how)
    with pytest.raises(error, match=match) as caught:
        store.exists()
    with pytest.raises(error, match=match):
        store.create([Disk(name="os", size=1)], "e")
    with pytest.raises(error, match=match):
        store.open_checksums("os")
    assert type(caught.value) is error
    assert not wire.replicas.exists()
    return caught.value


def other_pki(folder: Path, issued_at: datetime = NOW) -> Pki:
    pki = Pki(folder)
    pki.init(issued_at)
    for site in (SOURCE, TARGET):
        pki.issue(site, issued_at)
    return pki


def test_a_certificate_of_a_foreign_authority(wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = other_pki(tmp_path / "foreign")
    error = refused(wire, AuthenticationRefused, "comes from an authority that is not trusted here", pki=foreign)
    assert "master target of site 'recovery' at 127.0.0.1" in error.where
    assert "same authority" in error.remedy
    shutil.copy(wire.pki.authority, foreign.authority)
    refused(wire, AuthenticationRefused, "of site 'primary' is not of the authority in ca.pem", pki=foreign)
    monkeypatch.setattr(Identity, "require_usable", lambda *_: None)
    error = refused(wire, AuthenticationRefused, "does not accept the certificate of site 'primary'", pki=foreign)
    assert "leeward pki issue primary" in error.remedy
    assert not error.recoverable


def test_a_certificate_of_mine_that_expired(wire: Wire) -> None:
    wire.pki.issue(SOURCE, LONG_AGO, renew=True)
    error = refused(wire, AuthenticationRefused, "the certificate of site 'primary' expired on")
    assert "sites/primary.pem" in error.where
    assert "leeward pki issue primary" in error.remedy
    wire.pki.issue(SOURCE, NOW)
    assert wire.remote().exists() is False


def test_an_expired_certificate_is_refused_by_the_server_too(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose clock is wrong, or that does not care."""
    wire.pki.issue(SOURCE, LONG_AGO, renew=True)
    monkeypatch.setattr(Identity, "require_usable", lambda *_: None)
    refused(wire, AuthenticationRefused, "does not accept the certificate of site 'primary': it hangs up")


def test_a_certificate_of_the_server_that_expired(wire: Wire) -> None:
    wire.pki.issue(TARGET, LONG_AGO, renew=True)
    error = refused(wire, AuthenticationRefused, "its certificate has expired")
    assert "leeward pki issue recovery" in error.remedy
    wire.pki.issue(TARGET, NOW)
    assert wire.remote().exists() is False, "a renewed certificate is used without a restart"


def test_a_master_target_whose_certificate_expired_does_not_start(wire: Wire) -> None:
    wire.pki.issue(TARGET, LONG_AGO, renew=True)
    server = MasterTarget(Identity(wire.pki, TARGET), wire.local, lambda *_: None, "127.0.0.1:0")
    with pytest.raises(AuthenticationRefused, match="expired"):
        server.start()


def test_another_site_answers(wire: Wire) -> None:
    error = refused(wire, AuthenticationRefused, "another site answers there: site 'recovery'", target="third")
    assert "'master_target'" in error.remedy


def test_a_site_whose_name_differs_in_case_only_is_another_site(wire: Wire) -> None:
    refused(wire, AuthenticationRefused, "another site answers there", target="Recovery")
    assert server_name("a_b") != server_name("a-b")


@pytest.mark.parametrize("sites", [("third", TARGET), (SOURCE, "third"), None])
def test_a_site_may_only_touch_replicas_of_its_own_machines(wire: Wire, sites: tuple[str, str] | None) -> None:
    wire.machines["db"] = sites  # type: ignore[assignment]
    error = refused(wire, AuthorizationRefused, "site 'primary' may not touch the replica of 'db' at site 'recovery'")
    assert "master target's inventory" in error.remedy
    assert wire.remote("web").exists() is False


def test_the_two_sites_of_a_machine_change_their_parts(wire: Wire) -> None:
    wire.machines["db"] = (TARGET, SOURCE)
    assert wire.remote("db").exists() is False


def test_a_site_is_no_client_of_its_own_master_target(wire: Wire) -> None:
    refused(wire, AuthorizationRefused, "site 'recovery' may not touch", source=TARGET)


@pytest.mark.parametrize("machine", ["../db", "", "a/b"])
def test_a_machine_that_the_vault_does_not_know(wire: Wire, machine: str) -> None:
    wire.machines[machine] = None  # type: ignore[assignment]
    with pytest.raises(AuthorizationRefused):
        wire.remote(machine).exists()


def test_a_revoked_certificate(wire: Wire) -> None:
    store = wire.remote()
    assert store.exists() is False
    for path in wire.pki.issued.glob("primary-*.pem"):
        path.unlink()
    with pytest.raises(AuthenticationRefused, match="revoked"):
        store.exists()
    error = refused(wire, AuthenticationRefused, "the certificate was revoked")
    assert "site 'primary'" in error.where
    wire.pki.issue(SOURCE, NOW, renew=True)
    assert wire.remote().exists() is False


def test_a_renewed_certificate_is_used_at_once_by_whoever_is_connected(wire: Wire) -> None:
    """A worker keeps its connection for as long as it lives."""
    store = wire.remote()
    store.create([Disk(name="os", size=4096)], "e")
    with store.lock():
        for path in wire.pki.issued.glob("primary-*.pem"):
            path.unlink()
        wire.pki.issue(SOURCE, NOW, renew=True)
        assert store.exists()
        store.write_base("os", Extent(0, b"x" * 4096))
        store.checkpoint_base("os", 4096)
    assert store.state().seeded_bytes == {"os": 4096}


def test_a_new_authority_is_trusted_at_once_by_whoever_is_connected(wire: Wire, tmp_path: Path) -> None:
    connection = Connection(wire.address, Identity(wire.pki, SOURCE), TARGET, keepalive_ms=KEEPALIVE_MS)
    store = RemoteReplicaStore(connection, "db")
    assert store.exists() is False
    wire.close()
    other = other_pki(tmp_path / "other")
    for path in (wire.pki.authority, wire.pki.site(SOURCE), wire.pki.site(TARGET)):
        shutil.copy(other.folder / path.relative_to(wire.pki.folder), path)
    shutil.rmtree(wire.pki.issued)
    wire.start(wire.address)
    assert store.exists() is False
    connection.close()


def test_what_goes_wrong_at_the_other_side_tells_which_side_it_is(wire: Wire) -> None:
    with pytest.raises(InvalidState, match="where a Lock is due") as found:
        wire.connection().session("db", "Write", say.Settle())
    assert found.value.where == f"master target of site 'recovery' at {wire.address}"
    assert found.value.remedy
    with pytest.raises(InvalidState) as found:
        wire.connection().ask("db", say.Settle())
    assert found.value.where == f"master target of site 'recovery' at {wire.address}"
    assert "same release" in found.value.remedy


@pytest.mark.parametrize("method", ["Write", "Read"])
def test_a_caller_that_leaves_before_it_said_anything_is_no_error(
    wire: Wire, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    call = wire.connection()._call_of("db", method)
    assert list(call(iter(()))) == []
    assert "unforeseen" not in caplog.text


def test_nobody_is_there(wire: Wire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = refused(wire, Unreachable, "does not answer: .*refused", address=f"127.0.0.1:{port}")
    assert error.recoverable
    assert "leeward master-target" in error.remedy


def test_a_port_that_is_taken(wire: Wire) -> None:
    with pytest.raises(Unreachable, match="cannot listen"):
        wire.start(wire.address)


def test_a_caller_without_a_certificate(wire: Wire) -> None:
    context = ssl.create_default_context(cafile=str(wire.pki.authority))
    context.set_alpn_protocols(["h2"])
    host, port = wire.address.split(":")
    with (
        socket.create_connection((host, int(port))) as plain,
        context.wrap_socket(plain, server_hostname=server_name(TARGET)) as connection,
    ):
        assert connection.recv(1) == b"", "the master target said something to a stranger"


def test_only_tls_1_3_is_spoken(wire: Wire) -> None:
    assert not tls.speaks_tls_1_2(wire.address, Identity(wire.pki, SOURCE))
    context = ssl.create_default_context(cafile=str(wire.pki.authority))
    context.load_cert_chain(wire.pki.site(SOURCE))
    host, port = wire.address.split(":")
    for version, agreed in ((ssl.TLSVersion.TLSv1_3, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, None)):
        context.minimum_version = context.maximum_version = version
        with socket.create_connection((host, int(port))) as plain:
            try:
                with context.wrap_socket(plain, server_hostname=server_name(TARGET)) as connection:
                    assert connection.version() == agreed
            except ssl.SSLError:
                assert agreed is None


def test_a_process_whose_grpc_started_too_early_refuses_to_serve(tmp_path: Path) -> None:
    """The setting that forbids TLS 1.2 is read once: a process that missed it must notice."""
    script = """
import sys
from datetime import UTC, datetime
from pathlib import Path
import grpc
grpc.ssl_channel_credentials()
from replication.transport.connection import Connection
from replication.transport.pki import Identity, Pki
from replication.transport.remote import RemoteReplicaStore
from replication.transport.server import MasterTarget
from vault.errors import InvalidState
pki = Pki(Path(sys.argv[1]))
pki.init(datetime.now(UTC))
pki.issue("recovery", datetime.now(UTC))
try:
    MasterTarget(Identity(pki, "recovery"), lambda machine: None, lambda site, machine: None, "127.0.0.1:0").start()
except InvalidState as refused:
    print(refused)
"""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_SSL_CIPHER_SUITES"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "pki")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "TLS 1.2" in done.stdout


@pytest.mark.parametrize("entry", ["workers", "console"])
def test_every_process_of_the_product_forbids_tls_1_2_before_grpc_starts(entry: str) -> None:
    script = f"import sys, {entry}; print('grpc' in sys.modules, __import__('os').environ['GRPC_SSL_CIPHER_SUITES'])"
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_SSL_CIPHER_SUITES"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "PSK-AES128-CBC-SHA"]


def test_a_server_of_tls_1_2_is_refused_by_the_client(wire: Wire) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(wire.pki.site(TARGET))
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                    with context.wrap_socket(plain, server_side=True) as connection:
                        connection.recv(1)
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(InvalidState, match="no common version of TLS"):
            wire.remote(address=address).exists()
        listener.shutdown(socket.SHUT_RDWR)


def test_a_certificate_is_valid_also_where_the_clock_was_set_an_hour_back_since(tmp_path: Path) -> None:
    made = other_pki(tmp_path / "pki")
    for site in (SOURCE, TARGET):
        Identity(made, site).require_usable(NOW - timedelta(hours=1))
