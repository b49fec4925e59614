"""A plan whose file bears another name: its runs have the plan's, and whoever asks by the file's hears of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.plan_files import hinting_at_its_name
from vault.errors import InvalidState, NotFound
from workers.settings import Settings

pytestmark = pytest.mark.unit

REFUSALS = [NotFound("no run is known", remedy="start one"), InvalidState("no run is going on", remedy="see the last")]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "shop.plan.yaml").write_text("plan: shop\n")
    (tmp_path / "renamed.plan.yaml").write_text("plan: shop\n")
    (tmp_path / "broken.plan.yaml").write_text("plan: [\n")
    (tmp_path / "list.plan.yaml").write_text("- plan\n")
    return Settings(vault=tmp_path / "leeward.yaml", data=tmp_path, time_scale=1)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("as_a_file", [False, True])
def test_the_plans_own_name_is_told(
    refusal: NotFound | InvalidState, as_a_file: bool, settings: Settings, tmp_path: Path
) -> None:
    given = str(tmp_path / "renamed.plan.yaml") if as_a_file else "renamed"
    with pytest.raises(type(refusal)) as told, hinting_at_its_name(given, settings):
        raise refusal
    assert told.value.remedy == (f"{refusal.remedy}; renamed.plan.yaml has plan 'shop': leeward plan status shop")


@pytest.mark.parametrize("given", ["shop", "broken", "list", "nosuch"])
def test_otherwise_nothing_is_added(given: str, settings: Settings) -> None:
    with pytest.raises(NotFound) as told, hinting_at_its_name(given, settings):
        raise REFUSALS[0]
    assert told.value is REFUSALS[0]
