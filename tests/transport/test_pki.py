from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from console.main import app
from replication.cipher import SiteKey
from replication.transport.pki import Identity, Pki, peer_in
from vault.errors import AuthenticationRefused, AuthorizationRefused, BadInput, InvalidState, NotFound

pytestmark = pytest.mark.unit

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    made = Pki(tmp_path / "pki")
    made.init(NOW)
    return made


def test_private_keys_are_for_their_owner_only(pki: Pki) -> None:
    pki.issue("primary", NOW)
    for path in (pki.authority_key, pki.site("primary")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(pki.folder.stat().st_mode) == 0o700
    assert b"PRIVATE" not in pki.authority.read_bytes()
    for path in pki.issued.iterdir():
        assert b"PRIVATE" not in path.read_bytes()


@pytest.mark.parametrize("which", ["ca.key", "sites/primary.pem"])
def test_a_private_key_that_others_may_read_is_not_used(pki: Pki, which: str) -> None:
    pki.issue("primary", NOW)
    (pki.folder / which).chmod(0o640)
    with pytest.raises(AuthorizationRefused, match="mode 640") as caught:
        pki.issue("recovery", NOW)
        Identity(pki, "primary").key_and_certificate()
    assert "chmod 600" in caught.value.remedy


def test_the_certificates_have_what_they_need_and_no_more(pki: Pki) -> None:
    pki.issue("primary", NOW)
    authority = x509.load_pem_x509_certificate(pki.authority.read_bytes())
    certificate = x509.load_pem_x509_certificate(pki.site("primary").read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    peer = Identity(pki, "primary").peer
    assert (peer.site, peer.days_left(NOW)) == ("primary", 397)


def test_a_valid_certificate_stays_and_one_near_its_end_is_renewed(pki: Pki) -> None:
    first = pki.issue("primary", NOW)
    assert pki.issue("primary", NOW + timedelta(days=300)) == first
    renewed = pki.issue("primary", NOW + timedelta(days=340))
    assert renewed.not_after > first.not_after
    assert pki.issue("primary", NOW + timedelta(days=340), renew=True) != renewed
    assert len(pki.accepted()) == 3
    pki.require_accepted(first, NOW + timedelta(days=341))
    with pytest.raises(AuthenticationRefused, match="expired on 2027-07-03"):
        pki.require_accepted(first, NOW + timedelta(days=398))


def test_no_certificate_outlives_its_authority(pki: Pki) -> None:
    assert pki.issue("primary", NOW + timedelta(days=3600)).not_after == pki.authority_until()


def test_a_certificate_from_the_future_asks_for_the_clock(pki: Pki) -> None:
    peer = pki.issue("primary", NOW)
    with pytest.raises(AuthenticationRefused, match="valid only from") as caught:
        peer.require_valid(NOW - timedelta(days=1), "here")
    assert "clock" in caught.value.remedy


def test_a_second_authority_would_void_the_first(pki: Pki) -> None:
    before = pki.authority.read_bytes()
    with pytest.raises(InvalidState, match="there is an authority already"):
        pki.init(NOW)
    assert pki.authority.read_bytes() == before


@pytest.mark.parametrize("site", ["", "a/b", "../x", ".hidden", "x" * 64])
def test_only_a_sites_name_can_be_certified(pki: Pki, site: str) -> None:
    with pytest.raises(BadInput, match="not a site's name"):
        pki.issue(site, NOW)


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path, pki: Pki) -> None:
    with pytest.raises(NotFound, match="leeward pki init"):
        Pki(tmp_path / "none").issue("primary", NOW)
    with pytest.raises(NotFound, match="leeward pki issue recovery"):
        _ = Identity(pki, "recovery").peer
    pki.authority_key.unlink()
    with pytest.raises(NotFound, match="where the authority's key is kept"):
        pki.issue("primary", NOW)


def test_a_file_with_another_sites_certificate_is_refused(pki: Pki) -> None:
    pki.issue("primary", NOW)
    pki.site("primary").rename(pki.site("recovery"))
    with pytest.raises(BadInput, match="the certificate of site 'primary', not 'recovery'"):
        _ = Identity(pki, "recovery").peer


@pytest.mark.parametrize(
    "content", [b"nonsense", b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize("which", ["ca.pem", "sites/primary.pem"])
def test_a_file_that_holds_no_certificate_is_named_with_what_to_do(pki: Pki, which: str, content: bytes) -> None:
    pki.issue("primary", NOW)
    path = pki.folder / which
    path.write_bytes(content)
    with pytest.raises(BadInput, match="not a certificate") as found:
        Identity(pki, "primary").require_usable(NOW)
    assert found.value.where == str(path)
    assert "leeward pki issue" in found.value.remedy


def test_a_file_without_its_key_or_of_another_site_says_what_to_do(pki: Pki) -> None:
    pki.issue("primary", NOW)
    whole = pki.site("primary").read_bytes()
    pki.site("primary").write_bytes(whole[: whole.index(b"-----BEGIN PRIVATE")])
    with pytest.raises(BadInput, match="no private key") as found:
        Identity(pki, "primary").key_and_certificate()
    assert "leeward pki issue" in found.value.remedy
    pki.site("recovery").write_bytes(whole)
    pki.site("recovery").chmod(0o600)
    with pytest.raises(BadInput, match="not 'recovery'") as found:
        _ = Identity(pki, "recovery").peer
    assert "leeward pki issue recovery" in found.value.remedy


def test_a_certificate_that_names_no_site(pki: Pki) -> None:
    with pytest.raises(AuthenticationRefused, match="does not name a site"):
        peer_in(pki.authority.read_bytes())
    with pytest.raises(BadInput, match="not a certificate"):
        peer_in(b"nonsense")


def test_a_folder_is_named_by_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PKI_FOLDER", str(tmp_path))
    assert Pki.at("env:PKI_FOLDER").folder == Pki.at(f"file:{tmp_path}").folder == tmp_path


# --- the command ------------------------------------------------------------------------------------------------


def leeward(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_from_an_authority_to_a_revoked_certificate(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path))
    assert str(tmp_path / "pki" / "ca.pem") in leeward("pki", "init", *data)
    assert "there is an authority already" in leeward("pki", "init", *data, code=3)
    issued = json.loads(leeward("pki", "issue", "primary", "--json", *data))
    assert (issued["site"], issued["state"]) == ("primary", "valid")
    leeward("pki", "issue", "primary", "--days", "30", "--renew", *data)
    shown = json.loads(leeward("pki", "show", "--json", *data))
    assert [row["state"] for row in shown["certificates"]] == ["renew it: 29 days left", "valid"]
    (tmp_path / "pki" / "issued" / f"primary-{issued['serial']}.pem").unlink()
    assert issued["serial"] not in leeward("pki", "show", *data)
    assert "not a site's name" in leeward("pki", "issue", "no/site", *data, code=2)


def test_the_command_makes_a_site_key(tmp_path: Path) -> None:
    path = tmp_path / "recovery.key"
    assert f"replica_key: file:{path}" in leeward("pki", "key", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(SiteKey.from_reference(f"file:{path}").id) == 16
    assert path.read_text().strip() not in leeward("pki", "key", str(path), code=3)


def test_a_certificate_for_a_site_that_the_inventory_does_not_know_is_issued_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("LEEWARD_VAULT", "LEEWARD_DATA"):
        monkeypatch.delenv(variable, raising=False)
    leeward("pki", "init")
    assert "warning" not in leeward("pki", "issue", "anywhere")  # there is no inventory here
    leeward("init", "--lab")
    assert "warning" not in leeward("pki", "issue", "recovery")
    assert (
        "warning: leeward.yaml: no site 'recvery' in the inventory: no master target accepts it — "
        "did you mean 'recovery'?\n"
    ) in leeward("pki", "issue", "recvery")
    Path("leeward.yaml").write_text("version: 2\n")
    assert "whether it knows site 'recovery' is open — leeward vault check" in leeward("pki", "issue", "recovery")
