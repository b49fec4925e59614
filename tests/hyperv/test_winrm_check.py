"""``leeward hyperv check``: a host that answers, one that does not, and every finding about what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result
from winrm_host import PASSWORD, USER, SimulatedHost

from adapters.hyperv.certificates import SERVER_AUTHENTICATION
from adapters.hyperv.facts import Authorization, Certificate, HostFacts, ReplicaServer, Volume
from adapters.hyperv.host_check import judge
from console.main import app
from vault.domain import Severity

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GIB = 2**30
SERVER = ReplicaServer(
    enabled=True,
    kerberos_port=80,
    certificate_port=443,
    authentication="CertificateAndKerberos",
    certificate_thumbprint="AB12",
    from_any_server=False,
    storage="D:\\Replicas",
    authorizations=[Authorization(server="*.example.net", storage="D:\\Replicas\\One")],
)
FACTS = HostFacts(
    computer_name="hv1",
    fully_qualified_name="hv1.example.net",
    time=NOW + timedelta(seconds=2),
    os_version="10.0.20348",
    powershell_version="5.1.20348.1",
    hyperv_module_version="2.0.0.0",
    administrator=True,
    cluster="cluster1",
    replica_broker="broker.example.net",
    replica_server=SERVER,
    replica_firewall_open=True,
    volumes=[Volume(path="C:\\", free=GIB, size=100 * GIB), Volume(path="D:\\", free=50 * GIB, size=100 * GIB)],
    certificates=[Certificate(thumbprint="ab12", subject="CN=broker.example.net", not_after=NOW + timedelta(days=300))],
)


def certificate(**changes: Any) -> Certificate:
    fields = {"thumbprint": "AB12", "subject": "CN=broker.example.net", "not_after": NOW + timedelta(days=300)}
    return Certificate.model_validate(fields | changes)


def server(**changes: Any) -> dict[str, Any]:
    return {"replica_server": SERVER.model_copy(update=changes)}


@pytest.mark.unit
def test_a_host_that_has_everything_passes() -> None:
    findings = judge(FACTS, NOW)
    assert {finding.severity for finding in findings} == {Severity.PASS}
    assert {finding.subject for finding in findings} == {
        "rights", "clock", "Windows", "PowerShell", "Hyper-V module", "cluster", "replica server",
        "replica certificate", "replica storage",
    }  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"administrator": False}, "fail", "rights: the login may not manage Hyper-V"),
        ({"time": NOW - timedelta(minutes=6)}, "fail", "clock: differs by 360 s"),
        ({"os_version": "6.2.9200"}, "fail", "Windows: 6.2.9200 is too old"),
        ({"os_version": "6.3.9600"}, "warn", "no resilient change tracking"),
        ({"powershell_version": "4.0"}, "fail", "PowerShell: 4.0 is too old"),
        ({"hyperv_module_version": ""}, "fail", "Hyper-V module: is not installed — Install-WindowsFeature"),
        ({"replica_broker": ""}, "warn", "no Hyper-V Replica Broker"),
        (server(enabled=False), "warn", "replica server: is off"),
        ({"replica_firewall_open": False}, "warn", "no inbound rule"),
        (server(authorizations=[]), "warn", "no primary server is authorized"),
        ({"broker_online": False}, "warn", "broker.example.net, is not online"),
        ({"certificates": []}, "warn", "AB12 is not in the host's own store"),
        (server(certificate_thumbprint=""), "warn", "certificate (none) is not in the host's own store"),
        ({"certificates": [certificate(subject="CN=hv1.example.net")]}, "warn", "does not name the cluster's"),
        ({"certificates": [certificate(usages=[SERVER_AUTHENTICATION])]}, "warn", "not for server and client"),
        (
            {"certificates": [certificate(not_after=NOW - timedelta(days=1))]},
            "warn",
            "CN=broker.example.net, expired on 2026-01-01",
        ),
        (
            {"certificates": [certificate(not_after=NOW + timedelta(days=9))]},
            "warn",
            "CN=broker.example.net, expires on 2026-01-11",
        ),
        ({"volumes": [Volume(path="D:\\", free=GIB, size=100 * GIB)]}, "warn", "1.0 of 100.0 GiB are free"),
        ({"volumes": [Volume(path="C:\\", free=GIB, size=GIB)]}, "warn", "is on no volume of the host"),
    ],
    ids=str,
)
def test_what_is_missing_is_said_with_what_to_do(changes: dict[str, Any], severity: str, words: str) -> None:
    wrong = [finding for finding in judge(FACTS.model_copy(update=changes), NOW) if finding.severity != Severity.PASS]
    assert wrong
    assert {finding.severity.value for finding in wrong} == {severity}
    assert all(finding.remedy for finding in wrong)
    assert words in "\n".join(str(finding) for finding in wrong)


def check(host: SimulatedHost, *options: str, password: str = "env:HOST_PASSWORD") -> Result:
    address = f"127.0.0.1:{host.server.port}"
    ca = str(host.server.certificate.certificate)
    login = ["--auth", "ntlm", "--user", USER, "--password", password, "--ca", ca]
    return CliRunner().invoke(app, ["hyperv", "check", "--host", address, *login, *options])


@pytest.mark.contract
def test_the_command_shows_a_host_and_changes_nothing(host: SimulatedHost) -> None:
    host.result = FACTS.model_copy(update={"time": datetime.now(UTC)}).model_dump(mode="json")
    plain = check(host)
    assert plain.exit_code == 0, plain.output
    assert "hv1.example.net answers; ntlm is accepted" in plain.stdout
    assert "D:\\Replicas: 50.0 of 100.0 GiB are free" in plain.stdout
    document = json.loads(check(host, "--json").stdout)
    assert document["ok"] is True
    assert document["hosts"][0]["facts"]["hyperv_module_version"] == "2.0.0.0"
    assert {request.script for request in host.requests} == {"check_host"}
    assert len(host.server.shells) == 0


@pytest.mark.contract
def test_the_exit_code_says_how_it_went(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"time": datetime.now(UTC)}
    host.result = FACTS.model_copy(update=now | {"administrator": False}).model_dump(mode="json")
    assert check(host).exit_code == 1

    host.result = FACTS.model_copy(update=now).model_dump(mode="json")
    unreachable = check(host, "--host", "127.0.0.1:1")
    assert unreachable.exit_code == 4
    assert "Connection refused" in unreachable.stdout
    assert "check that the host is up and its WinRM service runs; then check again" in unreachable.stdout
    assert "by itself" not in unreachable.stdout  # a worker would try it again; this command does not
    assert "hv1.example.net answers" in unreachable.stdout

    not_set = check(host, "--password", "env:NOT_SET_AT_ALL")
    assert "env:NOT_SET_AT_ALL: the environment variable is not set, or empty" in not_set.stdout

    monkeypatch.setenv("HOST_PASSWORD", "wrong")
    refused = check(host, "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["ok"] is False


@pytest.mark.contract
@pytest.mark.parametrize("password", ["env:NOT_SET_AT_ALL", PASSWORD])
def test_a_password_is_a_reference_and_never_repeated(host: SimulatedHost, password: str) -> None:
    refused = check(host, password=password)
    assert refused.exit_code in (1, 2)
    assert PASSWORD not in refused.output
    assert "reference" in refused.output or "environment variable is not set" in refused.output


@pytest.mark.contract
def test_not_looking_at_the_certificate_is_a_warning(host: SimulatedHost) -> None:
    host.result = FACTS.model_copy(update={"time": datetime.now(UTC)}).model_dump(mode="json")
    found = check(host, "--no-verify")
    assert found.exit_code == 0
    assert "its certificate was not checked" in found.stdout


@pytest.mark.contract
def test_all_hosts_of_a_site_are_asked_as_the_inventory_says(host: SimulatedHost, tmp_path: Path) -> None:
    vault = tmp_path / "leeward.yaml"
    login = f"authentication: ntlm, user: '{USER}', ca: '{host.server.certificate.certificate}'"
    vault.write_text(
        "version: 1\nsites:\n  east:\n    fabric: hyperv\n    credentials: env:HOST_PASSWORD\n"
        f"    hyperv: {{hosts: ['127.0.0.1:{host.server.port}', '127.0.0.1:1'], {login}}}\n"
        "    networks: {production: {}}\npolicies: {gold: {frequency: 30s}}\nnetwork_mappings: []\nmachines: {}\n"
    )
    host.result = FACTS.model_copy(update={"time": datetime.now(UTC)}).model_dump(mode="json")
    checked = CliRunner().invoke(app, ["hyperv", "check", "--site", "east", "--vault", str(vault)])
    assert checked.exit_code == 4, checked.output
    assert f"127.0.0.1:{host.server.port}" in checked.stdout
    assert "Connection refused" in checked.stdout
    wrong = CliRunner().invoke(app, ["hyperv", "check", "--site", "eats", "--vault", str(vault)])
    assert wrong.exit_code == 2
    assert "there is no Hyper-V site 'eats'" in wrong.output


@pytest.mark.unit
def test_something_has_to_be_checked() -> None:
    nothing = CliRunner().invoke(app, ["hyperv", "check"])
    assert nothing.exit_code == 2
    assert "name hosts with --host" in nothing.output
