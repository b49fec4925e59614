"""Numbers as people read them."""

from __future__ import annotations

import pytest

from vault.words import counted, size

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 30, "3.0 GiB"), (5 << 50, "5120.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_one_is_no_plural() -> None:
    assert [counted(count, "disk") for count in (0, 1, 2)] == ["0 disks", "1 disk", "2 disks"]
