"""No container engine runs here, so what `docker compose config` would find is found by reading the files."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from activities.contracts import CONTROL_QUEUE, replication_queue, site_queue

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = {name: service for name, service in SERVICES.items() if service.get("command", [None])[0] == "worker"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SECRET_FILE = re.compile(r"/run/secrets/([\w-]+)")
PINNED_IMAGE = re.compile(r"^[\w./-]+:\d[\w.-]*$")
SECRET_SHAPED = re.compile(r"PASSWORD|PASSWD|PWD|SECRET|TOKEN|API_?KEY|ACCOUNT", re.IGNORECASE)

every_service = pytest.mark.parametrize("name", SERVICES)
every_worker = pytest.mark.parametrize("name", WORKERS)


def options(command: list[str], option: str) -> list[str]:
    return [value for flag, value in pairwise(command) if flag == option]


def runs_once(service: dict[str, Any]) -> bool:
    return str(service["restart"]).startswith("on-failure")


def mounted_scripts(service: dict[str, Any]) -> dict[str, Path]:
    """Path in the container → file of this repository, for every bind mount of a service."""
    mounts = (volume.split(":") for volume in service.get("volumes", []))
    return {mount[1]: ROOT / mount[0] for mount in mounts if mount[0].startswith("./")}


@every_service
@pytest.mark.parametrize("kind", ["secrets", "networks", "configs", "volumes"])
def test_what_a_service_refers_to_is_defined(name: str, kind: str) -> None:
    for reference in SERVICES[name].get(kind, []):
        target = reference["source"] if isinstance(reference, dict) else reference.split(":")[0]
        if kind == "volumes" and target.startswith("./"):
            assert (ROOT / target).is_file(), f"{name} mounts {target}, which is not in the repository"
        else:
            assert target in COMPOSE[kind], f"{name} uses {kind} {target!r}, which is not defined"


@pytest.mark.parametrize("kind", ["secrets", "networks", "configs", "volumes"])
def test_what_is_defined_is_used(kind: str) -> None:
    used = {
        reference["source"] if isinstance(reference, dict) else reference.split(":")[0]
        for service in SERVICES.values()
        for reference in service.get(kind, [])
    }
    assert set(COMPOSE[kind]) <= used


@every_service
def test_a_service_waits_for_what_can_become_ready(name: str) -> None:
    for dependency, how in SERVICES[name].get("depends_on", {}).items():
        assert dependency in SERVICES
        expected = "service_completed_successfully" if runs_once(SERVICES[dependency]) else "service_healthy"
        assert how["condition"] == expected


def test_no_service_waits_for_itself() -> None:
    def before(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"{' → '.join((*path, name))} never starts"
        for dependency in SERVICES[name].get("depends_on", {}):
            before(dependency, (*path, name))

    for name in SERVICES:
        before(name, ())


@every_service
def test_a_service_shares_a_network_with_what_it_waits_for(name: str) -> None:
    for dependency in SERVICES[name].get("depends_on", {}):
        assert set(SERVICES[name]["networks"]) & set(SERVICES[dependency]["networks"])


@every_service
def test_a_service_restarts_and_is_watched(name: str) -> None:
    service = SERVICES[name]
    if runs_once(service):
        assert service["healthcheck"] == {"disable": True}
        assert any(name in other.get("depends_on", {}) for other in SERVICES.values()), "nobody waits for its success"
    else:
        assert service["restart"] == "unless-stopped"
        check = service["healthcheck"]
        assert check["test"][0] in {"CMD", "CMD-SHELL"}
        assert {"interval", "timeout", "retries", "start_period"} <= set(check)


@every_service
def test_images_are_pinned_by_version(name: str) -> None:
    assert PINNED_IMAGE.match(SERVICES[name]["image"]), "a tag that starts with a version number, never 'latest'"


def test_base_images_are_pinned_by_version() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases
    assert all(PINNED_IMAGE.match(base) for base in bases)


@every_service
def test_published_ports_stay_on_this_host(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{name} publishes {port} to the whole network without TLS"


@every_service
def test_no_secret_stands_in_the_environment(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRET_SHAPED.search(variable):
            assert variable.endswith("_FILE"), f"{name}: {variable} belongs into a file"
            assert SECRET_FILE.match(value)


@every_service
def test_a_service_reads_only_secrets_it_was_given(name: str) -> None:
    service = SERVICES[name]
    scripts = "\n".join(path.read_text() for path in mounted_scripts(service).values())
    wanted = set(SECRET_FILE.findall(scripts + str(service.get("environment", ""))))
    assert wanted <= set(service.get("secrets", []))
    if "build" not in service:
        assert wanted == set(service.get("secrets", [])), "a secret that nothing reads"


@every_service
def test_an_entrypoint_script_is_mounted_and_parses(name: str) -> None:
    shell_script = SERVICES[name].get("entrypoint", [])[1:]
    for script in shell_script:
        source = mounted_scripts(SERVICES[name])[script]
        subprocess.run(["sh", "-n", source], check=True)


def test_secrets_are_written_by_the_script_and_ignored_by_git(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    script = tmp_path / "make-secrets"
    script.write_bytes((ROOT / "deploy/make-secrets").read_bytes())
    subprocess.run(["sh", script], check=True, capture_output=True)
    first = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    subprocess.run(["sh", script], check=True, capture_output=True)
    second = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    assert set(first) == set(COMPOSE["secrets"])
    assert all(value.strip() == value and len(value) >= 24 for value in first.values())
    assert len(set(first.values())) == len(first)
    assert second == first, "a second run must keep the secrets of a running deployment"
    for name, secret in COMPOSE["secrets"].items():
        assert secret["file"] == f"./deploy/secrets/{name}"
        ignored = subprocess.run(["git", "check-ignore", "-q", secret["file"]], cwd=ROOT, check=False)
        assert ignored.returncode == 0, f"{secret['file']} could be committed"


def test_every_role_has_a_worker_and_both_sites_have_theirs() -> None:
    served = {
        (role, site)
        for worker in WORKERS.values()
        for role in options(worker["command"], "--role")
        for site in options(worker["command"], "--site") or [""]
    }
    assert served == {
        ("control", ""),
        ("site", "primary"),
        ("site", "recovery"),
        ("replication", "primary"),
        ("replication", "recovery"),
    }


def test_a_master_target_is_reached_by_process_servers_and_needs_no_temporal() -> None:
    target = SERVICES["master-target"]
    assert target["profiles"] == ["master-target"], (
        "an inventory without 'master_target' must not make it fail for ever"
    )
    (site,), (listen,) = options(target["command"], "--site"), options(target["command"], "--listen")
    assert f"('127.0.0.1', {listen.rpartition(':')[2]})" in target["healthcheck"]["test"][-1]
    for name, worker in WORKERS.items():
        reaches_it = bool(set(worker["networks"]) & set(target["networks"]))
        assert reaches_it == ("replication" in options(worker["command"], "--role")), name
    assert site == "recovery"
    assert not target["depends_on"]
    assert target["volumes"] == WORKERS["worker-site-recovery"]["volumes"], "site workers read its replicas' files"
    assert "ports" not in target


@every_worker
def test_a_worker_is_healthy_when_it_polls_its_own_queue(name: str) -> None:
    worker = WORKERS[name]
    (role,) = options(worker["command"], "--role")
    queue = {
        "control": lambda: CONTROL_QUEUE,
        "site": lambda: site_queue(*options(worker["command"], "--site")),
        "replication": lambda: replication_queue(*options(worker["command"], "--site")),
    }[role]()
    assert worker["healthcheck"]["test"] == ["CMD", "python", "/opt/leeward/worker_health.py", queue]
    assert re.search(r"^COPY deploy/worker_health\.py /opt/leeward/worker_health\.py$", DOCKERFILE, re.MULTILINE)


@every_worker
def test_a_worker_gets_its_own_sites_secret_and_no_other(name: str) -> None:
    worker = WORKERS[name]
    assert worker.get("secrets", []) == [f"site-{site}" for site in options(worker["command"], "--site")]


@every_worker
def test_a_worker_cannot_reach_the_database(name: str) -> None:
    assert "database" not in WORKERS[name]["networks"]
    assert WORKERS[name]["environment"]["TEMPORAL_ADDRESS"] == "temporal:7233"


def test_the_image_starts_the_console_script_as_nobody_special() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (entrypoint,) = re.findall(r'^ENTRYPOINT \["([^"]+)"\]$', DOCKERFILE, re.MULTILINE)
    assert entrypoint in project["scripts"]
    instructions = [line.split()[0] for line in DOCKERFILE.splitlines() if re.match(r"^[A-Z]+ ", line)]
    assert instructions.index("USER") < instructions.index("ENTRYPOINT")
    assert not re.search(r"^USER (root|0)\b", DOCKERFILE, re.MULTILINE)
    assert all(worker["image"] == f"leeward:{project['version']}" for worker in WORKERS.values())


def test_the_image_holds_every_package_and_what_it_copies_exists() -> None:
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, _target = shlex.split(line)
        copied.update(sources)
    for source in copied:
        assert (ROOT / source).exists(), f"the Dockerfile copies {source}, which does not exist"

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= copied

    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_through, "what .dockerignore lets through and what the Dockerfile copies must be the same"
