"""`make` on a bare machine: what is missing is said, and what was set up is used again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "dirname", "basename", "date", "tail", "grep", "cat")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine whose PATH holds a few tools, and no Python."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (bin_folder / tool).symlink_to(found)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/make-venv", tmp_path / ".ci/make-venv")
    return tmp_path


def set_up(machine: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("sh") or "sh", ".ci/make-venv"],
        cwd=machine,
        env={"PATH": str(machine / "bin"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fake_python(machine: Path, name: str, script: str) -> Path:
    path = machine / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_without_python_it_says_which_ones_it_looked_for(machine: Path) -> None:
    result = set_up(machine)
    assert result.returncode == 1
    assert result.stderr.startswith("set-up failed: no Python 3.11 or newer was found\n")
    assert "apt-get install python3.11" in result.stderr
    assert not (machine / ".venv").exists()


def test_an_old_python_is_not_taken(machine: Path) -> None:
    fake_python(machine, "python3", "exit 1")
    assert "no Python 3.11 or newer was found" in set_up(machine).stderr


def test_a_python_named_by_hand_is_checked(machine: Path) -> None:
    old = fake_python(machine, "old", "exit 1")
    result = set_up(machine, PYTHON=str(old))
    assert result.returncode == 1
    assert f"PYTHON={old} is not a working Python 3.11 or newer" in result.stderr


def test_a_python_without_venv_names_the_package_to_install(machine: Path) -> None:
    fake_python(machine, "python3.11", 'case "$*" in *"import venv"*) exit 1;; esac')
    result = set_up(machine)
    assert result.returncode == 1
    assert "python3.11 has no venv module" in result.stderr
    assert "apt-get install python3.11-venv" in result.stderr


@pytest.mark.parametrize(
    ("pip_says", "message"),
    [
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "is not the one that was pinned"),
        ("WARNING: Retrying after connection broken by NewConnectionError", "the package registry cannot be reached"),
        ("error: something else", "pip could not install"),
    ],
)
def test_a_failing_pip_is_explained(machine: Path, pip_says: str, message: str) -> None:
    fake_python(machine, "python3.11", "exit 0")
    (machine / ".venv/bin").mkdir(parents=True)
    python = machine / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *install*) echo "{pip_says}"; exit 1;; esac\n')
    python.chmod(0o755)
    result = set_up(machine)
    assert result.returncode == 1
    assert message in result.stderr
    assert pip_says in result.stderr


def test_a_set_up_that_is_there_is_used_again(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".ci").mkdir()
    for needed in ("pyproject.toml", "constraints.txt", "requirements-embedded.txt", "requirements-test.txt"):
        (tmp_path / needed).touch()
    (tmp_path / ".ci/make-venv").write_text("mkdir -p .venv && echo setting up\n")

    first = subprocess.run(["make", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
    second = subprocess.run(["make", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert first.stdout.count("setting up") == 1
    assert "setting up" not in second.stdout
