from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from house import House, open_house


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A time-skipping server, workers for every place, and the world of fakes behind them."""
    async with open_house(monkeypatch) as opened:
        yield opened
