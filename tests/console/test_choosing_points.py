"""``--recovery-point``: what cannot be meant is told before anything begins, in a dry run, too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from lab_support import lab_machine, make_inventory
from typer.testing import CliRunner, Result

from console import starting
from console.choosing import points_of, require_a_choice, require_that_it_exists
from console.exits import Exit
from console.main import app
from plans.model import Plan
from vault.domain import RecoveryPoint
from vault.errors import BadInput, NotFound, Unreachable
from vault.inventory import Inventory

pytestmark = pytest.mark.unit

AT = datetime(2026, 3, 14, 9, 30, tzinfo=UTC)
POINTS = {
    "db": [RecoveryPoint(id=f"db-{n}", sequence=n, time=AT + timedelta(minutes=n), group="pair") for n in (1, 2)],
    "app": [RecoveryPoint(id=f"app-{n}", sequence=n, time=AT + timedelta(minutes=n), group="pair") for n in (1, 2)],
    "web": [RecoveryPoint(id="web-1", sequence=1, time=AT)],
}
PLAN = Plan.model_validate({"plan": "shop", "groups": [{"name": "all", "machines": ["db", "app"]}]})


def inventory() -> Inventory:
    made = make_inventory({name: lab_machine() for name in POINTS})
    return made.model_copy(update={"consistency_groups": {"pair": ["db", "app"], "others": ["web"]}})


@pytest.mark.parametrize(
    "choice",
    [
        "latest",
        "latest-processed",
        "latest-app-consistent",
        "latest-consistent:pair",
        "2026-03-14T09:30:00Z",
        "2026-03-14",
        "rp-000007-98b8ed95",
        "A2CDE27E-3B5E-4B5B-9A39-0C4B8A7F1B7E",
        "2026abcd-3b5e-4b5b-9a39-0c4b8a7f1b7e",
    ],
)
def test_what_may_be_meant(choice: str) -> None:
    require_a_choice(choice, PLAN, inventory())


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("2026-13-01", "'2026-13-01' is no time — a time is written like 2026-01-31T03:04:05Z"),
        ("31.1.2026 03:00", "'31.1.2026 03:00' is no time — "),
        ("03:00", "'03:00' is no time — "),
        ("latest-procesed", "'latest-procesed' is not known — did you mean 'latest-processed'"),
        ("latest-consistent:piar", "there is no consistency group 'piar' — did you mean 'pair'"),
        ("latest-consistent:others", "no machine of plan shop is in consistency group 'others' — "),
        ("", "nothing was named — "),
    ],
)
def test_what_cannot_be_meant(choice: str, told: str) -> None:
    with pytest.raises(BadInput) as refused:
        require_a_choice(choice, PLAN, inventory())
    assert str(refused.value).startswith(f"--recovery-point: {told}")


class Engine:
    def __init__(self) -> None:
        self.inventory = inventory()

    async def recovery_points(self, machine: str) -> Any:
        return SimpleNamespace(points=POINTS[machine])


@pytest.mark.parametrize(
    ("choice", "exists"),
    [
        ("db-1", True),  # means the moment that app has, too
        ("2026-03-14T09:31:30Z", True),
        ("latest-consistent:pair", True),
        ("db-3", False),
        ("2026-03-14T09:00:00Z", False),
    ],
)
async def test_it_exists_where_the_sites_would_find_it(choice: str, exists: bool) -> None:
    points = await points_of(Engine(), ["db"])  # type: ignore[arg-type]
    assert set(points) == {"db", "app"}
    if exists:
        require_that_it_exists(choice, PLAN.machines, points, inventory())
    else:
        with pytest.raises(NotFound, match=rf"machine db: no recovery point is '{choice}' — choose one of 2 points"):
            require_that_it_exists(choice, PLAN.machines, points, inventory())


def leeward(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.usefixtures("lab")
def test_a_dry_run_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It showed the steps of a run that would be refused."""

    async def nobody(_: object) -> Engine:
        raise Unreachable("no answer", where="127.0.0.1:7233", remedy="leeward up")

    monkeypatch.setattr(starting, "connected", nobody)
    failover = ("plan", "failover", "payments", "--unplanned", "--dry-run", "--recovery-point")
    no_time = leeward(*failover, "2026-02-30")
    assert (no_time.exit_code, no_time.stdout) == (Exit.BAD_INPUT, "")
    not_asked = leeward(*failover, "rp-000001-no")
    assert not_asked.exit_code == Exit.OK
    assert not_asked.stderr == (
        "warning: it is not known whether there is a recovery point 'rp-000001-no': 127.0.0.1:7233: no answer — "
        "leeward up\n"
    )
    assert leeward(*failover, "latest").stderr == ""

    payments = Engine()
    machines = {name: lab_machine() for name in ("payment-db", "payment-app-1", "payment-app-2", "web")}
    payments.inventory = make_inventory(machines)
    monkeypatch.setitem(POINTS, "payment-db", POINTS["db"])
    monkeypatch.setitem(POINTS, "payment-app-1", POINTS["db"])
    monkeypatch.setitem(POINTS, "payment-app-2", POINTS["db"])

    async def there(_: object) -> Engine:
        return payments

    monkeypatch.setattr(starting, "connected", there)
    missing = leeward(*failover, "db-2")
    assert (missing.exit_code, missing.stdout) == (Exit.REFUSED, "")
    assert missing.stderr.startswith("error: machine web: no recovery point is 'db-2' — ")
