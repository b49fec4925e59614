"""What the inventory says about replication between Hyper-V hosts reaches the host; what stands against it is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from test_provider_failover import ID, Pair, inventory, quiet

from adapters.hyperv.facts import Authorization, Certificate, HostFacts, VirtualDisk, Volume
from adapters.hyperv.hosts import FACTS_FOR_S
from adapters.hyperv.operations import EnableReplication
from vault.domain import Retention, Severity
from vault.errors import BadInput
from vault.inventory import Inventory

pytestmark = pytest.mark.unit

OWN, OTHER = "A" * 40, "B" * 40
PAGEFILE = "D:\\vm\\pagefile.vhdx"


def said(*, replica: dict[str, Any] | None = None, shows: str = "", policy: dict[str, Any] | None = None) -> Inventory:
    """``replica``: how hosts replicate to west; ``shows``: the certificate that east's hosts show."""
    document = inventory(hyperv={"excluded_disks": [PAGEFILE]}).model_dump(mode="json", exclude_none=True)
    document["sites"]["west"]["hyperv"]["replica"] |= replica or {}
    if shows:
        document["sites"]["east"]["hyperv"]["replica"]["certificate_thumbprint"] = shows
    document["policies"]["gold"] |= policy or {}
    return Inventory.model_validate(document)


def enabled(pair: Pair) -> EnableReplication:
    pair.source.vm(ID).disks.append(VirtualDisk(path=PAGEFILE, size=2**30, controller="SCSI 0:1"))
    pair.provider.enable(pair.forward)
    (given,) = pair.world.settings
    assert isinstance(given, EnableReplication)
    return given


@pytest.mark.parametrize("frequency", [30, 300, 900])
def test_the_policy_becomes_the_hosts_settings(frequency: int) -> None:
    policy = {"frequency": f"{frequency}s", "app_consistent_every": "12h", "retention": {"count": 100, "hours": 72}}
    given = enabled(Pair(said(policy=policy)))
    assert (given.frequency_s, given.vss_frequency_h, given.recovery_history) == (frequency, 12, 24)
    assert (given.compression, given.authentication, given.replica_port) == (True, "Kerberos", 80)
    assert given.excluded_disks == [PAGEFILE]


def test_compression_can_be_turned_off() -> None:
    assert enabled(Pair(said(replica={"compression": False}))).compression is False


def test_certificates_are_shown_by_the_source_and_asked_for_at_their_own_port() -> None:
    given = enabled(Pair(said(replica={"authentication": "certificate"}, shows=OWN)))
    assert (given.authentication, given.certificate_thumbprint, given.replica_port) == ("Certificate", OWN, 443)
    own_port = enabled(Pair(said(replica={"authentication": "certificate", "port": 8443}, shows=OWN)))
    assert own_port.replica_port == 8443


def test_without_a_certificate_in_the_inventory_a_host_shows_its_own_or_it_is_said() -> None:
    pair = Pair(said(replica={"authentication": "certificate"}))
    with pytest.raises(BadInput, match="no certificate is known for replication") as unknown:
        pair.provider.enable(pair.forward)
    assert "set 'certificate_thumbprint'" in unknown.value.remedy
    assert pair.world.settings == []
    server = pair.source.facts.replica_server
    assert server is not None
    pair.source.facts = pair.source.facts.model_copy(
        update={"replica_server": server.model_copy(update={"certificate_thumbprint": OTHER})}
    )
    pair.now += FACTS_FOR_S + 1
    assert enabled(pair).certificate_thumbprint == OTHER


def by_certificate(pair: Pair, *, lasts: timedelta | None, **server: Any) -> list[str]:
    """What the check of a target says that accepts replicas by a certificate."""
    facts: HostFacts = pair.target.facts
    assert facts.replica_server is not None
    accepts = {"authentication": "CertificateAndKerberos", "certificate_thumbprint": OWN.lower()} | server
    held = (
        [] if lasts is None else [Certificate(thumbprint=OWN, subject="CN=hv2.example", not_after=facts.time + lasts)]
    )
    pair.target.facts = facts.model_copy(
        update={"certificates": held, "replica_server": facts.replica_server.model_copy(update=accepts)}
    )
    findings = pair.provider.check_target(pair.forward)
    return [f"{found.severity}: {found.what}" for found in findings if found.severity is not Severity.PASS]


@pytest.mark.parametrize(
    ("lasts", "server", "told"),
    [
        (timedelta(days=300), {}, []),
        (timedelta(days=9), {}, ["warn: its certificate, CN=hv2.example, expires on"]),
        (timedelta(days=-1), {}, ["fail: its certificate, CN=hv2.example, expired on"]),
        (None, {}, [f"fail: certificate {OWN.lower()} is not in the host's own store, with its key"]),
        (timedelta(days=300), {"authentication": "Kerberos"}, ["fail: it accepts replicas by Kerberos, but the inv"]),
        (timedelta(days=300), {"certificate_port": 444}, ["fail: it accepts replicas on port 444, but the inventory"]),
        (timedelta(days=300), {"from_any_server": False}, ["fail: no primary server may replicate to it"]),
        (
            timedelta(days=300),
            {"from_any_server": False, "authorizations": [Authorization(server="*.example", storage="D:\\")]},
            [],
        ),
    ],
)
def test_the_check_of_the_target_knows_its_certificate(
    lasts: timedelta | None, server: dict[str, Any], told: list[str]
) -> None:
    pair = Pair(said(replica={"authentication": "certificate"}, shows=OWN))
    found = by_certificate(pair, lasts=lasts, **server)
    assert len(found) == len(told)
    assert all(text.startswith(wanted) for text, wanted in zip(found, told, strict=True)), found


def test_a_closed_firewall_is_a_warning() -> None:
    pair = Pair(inventory())
    pair.target.facts = pair.target.facts.model_copy(update={"replica_firewall_open": False})
    (closed,) = [found for found in pair.provider.check_target(pair.forward) if found.severity is Severity.WARN]
    assert "firewall rules for Hyper-V Replica are off" in closed.what
    assert "Enable-NetFirewallRule" in closed.remedy


def shown_by_source(pair: Pair, *held: Certificate) -> list[str]:
    pair.source.facts = pair.source.facts.model_copy(update={"certificates": list(held)})
    pair.now += FACTS_FOR_S + 1
    findings = pair.provider.check_source(pair.forward)
    return [f"{found.severity}: {found.what}" for found in findings if found.severity is not Severity.PASS]


def test_the_check_of_the_source_knows_the_certificate_that_it_will_show() -> None:
    pair = Pair(without_exclusions(said(replica={"authentication": "certificate"}, shows=OWN)))
    time = pair.source.facts.time
    good = Certificate(thumbprint=OWN, subject="CN=any", not_after=time + timedelta(days=99), dns_names=["*.example"])
    assert shown_by_source(pair, good) == []
    assert shown_by_source(pair) == [f"fail: certificate {OWN} is not in the host's own store, with its key"]
    expired = good.model_copy(update={"not_after": time})
    assert shown_by_source(pair, expired) == [f"fail: its certificate, CN=any, expired on {time:%Y-%m-%d}"]
    other = good.model_copy(update={"dns_names": ["hv9.example", "*.other"]})
    assert shown_by_source(pair, other) == ["warn: its certificate, CN=any, does not name the host: hv1.example"]
    pair.protect()
    (warned,) = shown_by_source(pair, expired)
    assert warned.startswith("warn: "), "once it replicates, it is in no failover's way"
    pair = Pair(without_exclusions(said(replica={"authentication": "certificate"})))
    assert shown_by_source(pair, good) == ["fail: no certificate is known for replication"]


def without_exclusions(vault: Inventory) -> Inventory:
    machine = vault.machines["db"]
    assert machine.hyperv is not None
    whole = machine.model_copy(update={"hyperv": machine.hyperv.model_copy(update={"excluded_disks": []})})
    return vault.model_copy(update={"machines": {"db": whole}})


def test_hosts_that_know_no_frequency_of_replication_are_too_old() -> None:
    """Windows Server 2012 replicates every five minutes, and nothing else."""
    pair = Pair(inventory())
    for host, check in ((pair.source, pair.provider.check_source), (pair.target, pair.provider.check_target)):
        host.facts = host.facts.model_copy(update={"os_version": "6.2.9200"})
        (old,) = [found for found in check(pair.forward) if found.severity is Severity.FAIL]
        assert (old.subject, old.what) == (f"host {host.name}", "its Windows, 6.2.9200, is too old")


def test_a_broker_that_is_not_online_takes_no_replica() -> None:
    pair = Pair(inventory())
    broker = {"cluster": "CL", "replica_broker": "hv2", "broker_online": False}
    pair.target.facts = pair.target.facts.model_copy(update=broker)
    (offline,) = [found for found in pair.provider.check_target(pair.forward) if found.severity is Severity.FAIL]
    assert (offline.what, "Start-ClusterGroup" in offline.remedy) == (
        "the broker of its cluster, hv2, is not online",
        True,
    )


def test_a_changed_policy_reaches_the_host_with_the_next_turn() -> None:
    pair = Pair(inventory()).protect()
    pair.provider.replicate_once(pair.forward, quiet, app_consistent=False)
    assert "change_replication" not in pair.source.ran
    policy = {"frequency_s": 300.0, "app_consistent_every_s": None, "retention": Retention(count=4)}
    changed = pair.forward.model_copy(update=policy)
    for _ in range(2):
        pair.provider.replicate_once(changed, quiet, app_consistent=False)
    assert pair.source.ran.count("change_replication") == 1
    assert pair.source.vm(ID).policy == (300, 3, 0)


def told_of_room(pair: Pair, *, free: int, storage: str = "D:\\Replicas") -> list[tuple[Severity, str]]:
    server = pair.target.facts.replica_server
    assert server is not None
    facts = {
        "volumes": [Volume(path="D:\\", free=free, size=2**40)],
        "replica_server": server.model_copy(update={"storage": storage}),
        "virtual_disk_path": "",
    }
    pair.target.facts = pair.target.facts.model_copy(update=facts)
    pair.now += FACTS_FOR_S + 1
    asked = pair.forward.model_copy(update={"replica_space": pair.provider.replica_space(pair.forward)})
    findings = pair.fabrics["west"].check() + pair.provider.check_target(asked)
    return [(found.severity, found.what) for found in findings if "free" in found.what or "volume" in found.what]


def test_a_replica_that_does_not_fit_is_refused_before_the_first_copy() -> None:
    pair = Pair(inventory(hyperv={"excluded_disks": [PAGEFILE]}))
    pair.source.vm(ID).disks = [
        VirtualDisk(path="D:\\vm\\os.vhdx", size=2**41, file_size=2**39, controller="SCSI 0:0"),
        VirtualDisk(path=PAGEFILE, size=2**41, file_size=2**41, controller="SCSI 0:1"),
    ]
    assert told_of_room(pair, free=2**39) == [(Severity.PASS, "512 GiB are free for replicas")]
    full = (Severity.FAIL, "only 256.0 GiB are free in D:\\Replicas, but the replica of 'db' takes 512.0 GiB")
    assert full in told_of_room(pair, free=2**38)
    pair.protect()
    assert pair.provider.replica_space(pair.forward) is None, "it is there"


def test_room_that_a_host_cannot_tell_is_no_lack_of_it() -> None:
    pair = Pair(inventory())
    share = "replicas are kept on the share \\\\filer\\replicas, whose free space it does not tell"
    assert told_of_room(pair, free=0, storage="\\\\filer\\replicas") == [(Severity.PASS, share)]
    elsewhere = "replicas are kept in X:\\Replicas, which is on no volume of the host"
    assert told_of_room(pair, free=0, storage="X:\\Replicas") == [(Severity.WARN, elsewhere)]


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        (["*.east.example"], False),
        (["hv1.EAST.example"], False),
        (["broker.east.example"], False),
        (["*.west.example", "hv2.east.example"], True),
    ],
)
def test_a_replica_server_that_authorizes_no_host_of_the_source_is_told(entries: list[str], told: bool) -> None:
    document = inventory().model_dump(mode="json", exclude_none=True)
    document["sites"]["east"]["hyperv"] |= {"hosts": ["hv1.east.example:5986"]}
    document["sites"]["east"]["hyperv"]["replica"] |= {"server": "broker.east.example"}
    pair = Pair(Inventory.model_validate(document))
    server = pair.target.facts.replica_server
    assert server is not None
    listed = [Authorization(server=entry, storage="D:\\Replicas") for entry in entries]
    only = server.model_copy(update={"from_any_server": False, "authorizations": listed})
    pair.target.facts = pair.target.facts.model_copy(update={"replica_server": only})
    warned = [found.what for found in pair.provider.check_target(pair.forward) if found.severity is Severity.WARN]
    assert (
        warned
        == [
            "it takes replicas from *.west.example, hv2.east.example, and from none of the hosts of east: "
            "hv1.east.example, broker.east.example"
        ]
    ) is told
    assert bool(warned) is told
