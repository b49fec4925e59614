"""``leeward hyperv check``: is a Hyper-V host ready for leeward? Reads only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.exits import Exit, code_of, guarded
from console.options import Data, Json, Vault, settings_of
from console.output import Output

if TYPE_CHECKING:
    from adapters.hyperv.connection import HyperVHost
    from adapters.hyperv.host_check import HostChecked
    from vault.errors import LeewardError

    Checked = tuple[HostChecked, LeewardError | None]

Hosts = Annotated[list[str] | None, typer.Option("--host", help="A host, or host:port; may be given several times.")]
Site = Annotated[str | None, typer.Option("--site", help="All hosts of a site, logged in to as the inventory says.")]
Login = Annotated[str, typer.Option("--auth", help="kerberos, ntlm, credssp, certificate or basic.")]
User = Annotated[str | None, typer.Option("--user", help="DOMAIN\\user, or user@DOMAIN.")]
Password = Annotated[str | None, typer.Option("--password", help="A reference: env:NAME or file:PATH.")]
Ca = Annotated[Path | None, typer.Option("--ca", help="PEM with the authority of the host's certificate.")]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Whether to check the host's certificate.")]
Certificate = Annotated[Path | None, typer.Option("--certificate", help="PEM, for --auth certificate.")]
Key = Annotated[Path | None, typer.Option("--certificate-key", help="PEM, for --auth certificate.")]


def register(hyperv: typer.Typer) -> None:
    hyperv.command()(check)


def check(
    host: Hosts = None,
    site: Site = None,
    auth: Login = "kerberos",
    user: User = None,
    password: Password = None,
    ca: Ca = None,
    verify: Verify = True,
    certificate: Certificate = None,
    certificate_key: Key = None,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Check whether hosts are ready. Connection, login, rights, versions and replica settings; changes nothing.

    Before there is an inventory, name hosts and the login; afterwards, the site: leeward hyperv check --site east

    Example: leeward hyperv check --host hv1.example.net --auth ntlm --user LAB\\dr --password env:HYPERV_PASSWORD
    """

    from vault.errors import BadInput

    def work() -> list[Checked]:
        settings: dict[str, object] = {
            "authentication": auth,
            "user": user,
            "password": password,
            "ca": ca,
            "verify": verify,
            "certificate": certificate,
            "certificate_key": certificate_key,
        }
        hosts = [_settings(name, settings) for name in host or []]
        if site is not None:
            hosts += _of_site(site, settings_of(vault, data).vault)
        if not hosts:
            raise BadInput("nothing to check", remedy="name hosts with --host, or a site of the inventory with --site")
        return _check_all(hosts)

    checked = guarded(work)
    _show([found for found, _ in checked], Output(json))
    code = _code(checked)
    if code is not Exit.OK:
        raise typer.Exit(int(code))


def _settings(name: str, settings: dict[str, object]) -> HyperVHost:
    from pydantic import ValidationError

    from adapters.hyperv.connection import HyperVHost
    from vault.errors import BadInput

    address, separator, port = name.rpartition(":")
    is_port = bool(separator) and port.isdecimal() and (":" not in address or address.endswith("]"))
    place = {"address": (address if is_port else name).strip("[]"), **({"port": int(port)} if is_port else {})}
    try:
        return HyperVHost.model_validate(place | settings)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        what = first["msg"] if first["type"] == "value_error" else f"{field}: {first['msg']}"
        what = what.removeprefix("Value error, ")
        raise BadInput(what, where=name, remedy="see leeward hyperv check --help") from None


def _of_site(site: str, path: Path) -> list[HyperVHost]:
    from adapters.hyperv.fabrics import HyperVFabrics
    from vault.errors import BadInput
    from vault.loading import load_inventory
    from vault.validation import did_you_mean

    inventory = load_inventory(path)
    sites = [name for name, one in inventory.sites.items() if one.hyperv is not None]
    if site not in sites:
        remedy = did_you_mean(site, sites) or "add a site of 'fabric: hyperv' to the inventory"
        raise BadInput(f"there is no Hyper-V site '{site}'", where=str(path), remedy=remedy)
    return HyperVFabrics(inventory).reached_by(site)


def _check_all(hosts: list[HyperVHost]) -> list[Checked]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(len(hosts), 16)) as threads:
        return list(threads.map(_check_one, hosts))


def _check_one(host: HyperVHost) -> Checked:
    from adapters.hyperv.host_check import check_host
    from adapters.hyperv.session import HostSession
    from vault.errors import BadInput

    with HostSession(host) as session:
        checked, error = check_host(session)
    if isinstance(error, BadInput):
        raise error
    return checked, error


def _show(checked: list[HostChecked], output: Output) -> None:
    output.document({"ok": all(found.passes for found in checked), "hosts": checked})
    output.table(
        ["host", "result", "subject", "what", "what to do"],
        [
            [found.host, finding.severity.value, finding.subject, finding.what, finding.remedy]
            for found in checked
            for finding in found.findings
        ],
    )


def _code(checked: list[Checked]) -> Exit:
    """Unreachable only when nothing worse was found."""
    failures = [Exit.FAILED if error is None else code_of(error) for found, error in checked if not found.passes]
    if not failures:
        return Exit.OK
    return Exit.UNREACHABLE if set(failures) == {Exit.UNREACHABLE} else Exit.FAILED
