"""What may and may not stand in the repository."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HASHED = ("requirements-embedded.txt", "requirements-test.txt")
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[0-9][0-9A-Za-z.+!-]*)$")
# Written in pieces, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of somebody's machine": re.compile(
        r"(?<![\w.])/(" + "|".join(["wo" + "rk", "ro" + "ot", "ho" + r"me/(?!leeward\b)\w+"]) + r")\b"
    ),
    "a package registry's host": re.compile(
        "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "registry\\." + "npmjs", "deb\\." + "debian"])
    ),
    "a private key": re.compile("-----BEGIN " + "[A-Z ]*PRIVATE KEY"),
}


def tracked() -> list[Path]:
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def pins(name: str) -> dict[str, str]:
    lines = (line.strip() for line in (ROOT / name).read_text().splitlines())
    found = {}
    for line in lines:
        if not line or line.startswith(("#", "--hash=")):
            continue
        match = PIN.match(line.removesuffix("\\").strip())
        assert match, f"{name}: '{line}' is not an exact pin; no host, path, option or range belongs here"
        found[canonicalize_name(match["name"])] = match["version"]
    return found


CONSTRAINTS = pins("constraints.txt")
HASH_PINS = {package: version for name in HASHED for package, version in pins(name).items()}


def test_constraints_and_hashed_packages_do_not_overlap() -> None:
    assert not set(CONSTRAINTS) & set(HASH_PINS)


@pytest.mark.parametrize("name", HASHED)
def test_a_binary_is_pinned_by_the_hash_of_each_platform(name: str) -> None:
    hashes = re.findall(r"--hash=(\S+)", (ROOT / name).read_text())
    assert len(hashes) == len(set(hashes)) == 4
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes)


def test_everything_that_is_needed_is_pinned() -> None:
    """Follow the requirements of leeward and its development tools through what is installed."""
    pinned = CONSTRAINTS | HASH_PINS
    waiting = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    waiting += [Requirement(text) for text in PROJECT["project"]["optional-dependencies"]["dev"]]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or name == "leeward":
            continue
        seen.add(name)
        assert name in pinned, f"{requirement.name} is needed but not pinned"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} does not allow {pinned[name]}"
        for text in metadata.requires(name) or []:
            further = Requirement(text)
            if further.marker is None or further.marker.evaluate({"extra": ",".join(requirement.extras)}):
                waiting.append(further)
    assert seen - set(HASH_PINS) == set(CONSTRAINTS), "pinned, but nothing needs it"


@pytest.mark.parametrize(("package", "version"), sorted((CONSTRAINTS | HASH_PINS).items()))
def test_what_is_installed_is_what_is_pinned(package: str, version: str) -> None:
    assert metadata.version(package) == version


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_repository_speaks_only_of_itself(what: str) -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), start=1)
            if FORBIDDEN[what].search(line)
        ]
    assert not found, f"{what}:\n" + "\n".join(found)


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


@pytest.mark.parametrize("path", [".ci/run", ".ci/make-venv", ".ci/make-azurite", "deploy/make-secrets"])
def test_a_script_is_strict_and_executable(path: str) -> None:
    script = ROOT / path
    assert script.stat().st_mode & 0o111
    assert re.search(r"^set -eu", script.read_text(), re.MULTILINE)
