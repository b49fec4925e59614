from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_support import House, no_overlaps, open_house


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One leeward for the tests of a module, one after another: its lab runs, nothing is protected yet."""
    with open_house(tmp_path_factory.mktemp("house"), policy={"retention": {"count": 500}}) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _never_two_copies(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "house" in request.fixturenames:
        no_overlaps(request.getfixturevalue("house"))
