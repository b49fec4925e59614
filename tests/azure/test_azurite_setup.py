"""`make test` on a machine without Node.js, or without a registry, says what is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from simulation.azure import azurite
from vault.errors import InvalidState, NotFound

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    for folder in ("bin", ".ci", "simulation/azure/node"):
        (tmp_path / folder).mkdir(parents=True)
    for tool in ("sh", "dirname", "tail", "rm"):
        found = shutil.which(tool)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    shutil.copy(ROOT / ".ci/make-azurite", tmp_path / ".ci")
    return tmp_path


def tool(machine: Path, name: str, script: str) -> None:
    path = machine / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def set_up(machine: Path) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("sh") or "sh", ".ci/make-azurite"]
    environment = {"PATH": str(machine / "bin")}
    return subprocess.run(command, cwd=machine, env=environment, capture_output=True, text=True, check=False)


def test_a_missing_tool_is_named_with_the_package_that_has_it(machine: Path) -> None:
    result = set_up(machine)
    assert result.returncode == 1
    assert result.stderr.startswith("set-up failed: node was not found")
    assert "apt-get install nodejs npm" in result.stderr
    tool(machine, "node", "exit 0")
    assert set_up(machine).stderr.startswith("set-up failed: npm was not found")


def test_a_failing_npm_is_shown_and_explained(machine: Path) -> None:
    tool(machine, "node", "exit 0")
    tool(machine, "npm", "echo 'npm error code ECONNREFUSED'; exit 1")
    result = set_up(machine)
    assert result.returncode == 1
    assert "ECONNREFUSED" in result.stderr
    assert "npm could not install Azurite" in result.stderr


def test_npm_installs_exactly_what_is_locked_and_runs_no_scripts(machine: Path) -> None:
    tool(machine, "node", "exit 0")
    tool(machine, "npm", 'echo "$PWD $*" >called')
    assert set_up(machine).returncode == 0
    called = (machine / "simulation/azure/node/called").read_text()
    assert called == f"{machine}/simulation/azure/node ci --ignore-scripts\n"
    lock = (ROOT / "simulation/azure/node/package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert lock.count('"integrity"') > 300


def test_nothing_is_downloaded_when_it_starts_and_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match=r"Node.js is not installed.*apt-get install nodejs npm"):
        azurite.require_installed()
    (tmp_path / "node").write_text("#!/bin/sh\n")
    (tmp_path / "node").chmod(0o755)
    monkeypatch.setattr(azurite, "SCRIPT", tmp_path / "not-there.js")
    with pytest.raises(NotFound, match=r"Azurite is not installed.*make demo SCENARIO=hyperv-azure"):
        azurite.require_installed()


def test_one_that_does_not_come_up_is_said_with_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "node").write_text("#!/bin/sh\necho port is taken; exit 3\n")
    (tmp_path / "node").chmod(0o755)
    monkeypatch.setattr(azurite, "SCRIPT", tmp_path / "node")
    azurite.prepare(tmp_path / "account")
    with pytest.raises(InvalidState, match="Azurite did not start: port is taken"):
        azurite.start(tmp_path / "account")
    assert not azurite.stop(tmp_path / "account")
