"""Whether a certificate serves replication, judged alike for both ends and by ``leeward hyperv check``.

What it has to be is in the reference of Enable-VMReplication, at ``-CertificateThumbprint``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from adapters.hyperv.facts import Certificate, HostFacts
from vault.domain import Finding

EXPIRES_SOON = timedelta(days=30)
SERVER_AUTHENTICATION, CLIENT_AUTHENTICATION = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
"""RFC 5280, 4.2.1.12."""


def judge(subject: str, thumbprint: str, facts: HostFacts, now: datetime) -> Iterator[Finding]:
    """What the host's certificate of that thumbprint is good for, and until when."""
    found = next((each for each in facts.certificates if each.thumbprint.casefold() == thumbprint.casefold()), None)
    if found is None:
        yield Finding.failed(
            subject,
            f"certificate {thumbprint or '(none)'} is not in the host's own store, with its key",
            "import it into Cert:\\LocalMachine\\My, or name another: 'certificate_thumbprint' below 'replica' of the "
            "site, Set-VMReplicationServer -CertificateThumbprint",
        )
        return
    until, renew = f"{found.not_after:%Y-%m-%d}", "renew it, and name the new thumbprint where the old one is named"
    if found.not_after <= now:
        yield Finding.failed(subject, f"its certificate, {found.subject}, expired on {until}", renew)
    elif found.not_after - now < EXPIRES_SOON:
        yield Finding.warned(subject, f"its certificate, {found.subject}, expires on {until}", renew)
    else:
        yield Finding.passed(subject, f"its certificate, {found.subject}, is valid until {until}")
    if found.usages and not {SERVER_AUTHENTICATION, CLIENT_AUTHENTICATION} <= set(found.usages):
        yield Finding.failed(
            subject,
            f"its certificate, {found.subject}, is not for server and client authentication",
            "use one with both in its extended key usage",
        )
    name = facts.replica_broker if facts.cluster else facts.fully_qualified_name
    if name and not _names(found, name):
        whose = "the cluster's Hyper-V Replica Broker" if facts.cluster else "the host"
        yield Finding.warned(
            subject,
            f"its certificate, {found.subject}, does not name {whose}: {name}",
            "use one with that name as its subject or among its alternative names",
        )


def _names(certificate: Certificate, name: str) -> bool:
    """A wildcard stands for one label."""
    common = re.findall(r"(?:^|,\s*)CN=([^,]+)", certificate.subject)
    carried = {each.strip().casefold() for each in [*common, *certificate.dns_names]}
    return not carried.isdisjoint({name.casefold(), f"*.{name.casefold().partition('.')[2]}"})
