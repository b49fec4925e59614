"""Secrets are found by reference, and no error ever tells one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vault.errors import AuthorizationRefused, BadInput, LeewardError, NotFound
from vault.secrets import MAX_SECRET_BYTES, resolve

pytestmark = pytest.mark.unit


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PASSWORD", "s3cret")
    assert resolve("env:LAB_PASSWORD") == "s3cret"
    monkeypatch.delenv("LAB_PASSWORD")
    with pytest.raises(NotFound, match="env:LAB_PASSWORD"):
        resolve("env:LAB_PASSWORD")


@pytest.mark.parametrize(
    ("content", "secret"), [(b"s3cret\n", "s3cret"), (b"a\r\n", "a"), (b" two\nlines\n", " two\nlines")]
)
def test_from_a_file_without_its_last_line_break(tmp_path: Path, content: bytes, secret: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert resolve(f"file:{path}") == secret


@pytest.mark.parametrize("content", [b"s3cret\xff", b"s3cret" * MAX_SECRET_BYTES, b"\n"])
def test_no_error_tells_the_secret(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(LeewardError) as caught:
        resolve(f"file:{path}")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_secret_given_instead_of_a_reference_is_not_told() -> None:
    with pytest.raises(BadInput) as caught:
        resolve("hunter2:hunter2")
    assert "hunter2" not in str(caught.value)


def test_missing_and_forbidden_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        resolve(f"file:{tmp_path / 'gone'}")
    with pytest.raises(NotFound):
        resolve(f"file:{tmp_path}")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AuthorizationRefused):
        resolve(f"file:{tmp_path / 'forbidden'}")
