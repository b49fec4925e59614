"""``leeward report`` and the commands that make, draw and compare plans, as an operator types them."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.main import app
from reports.measure import report_of
from reports.model import PlanRecord, RunRecord
from reports.store import ReportStore

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
ASR = ROOT / "tests/plans/asr/rest-answer.json"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("leeward.yaml", "payments.plan.yaml"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for variable in ("LEEWARD_VAULT", "LEEWARD_DATA"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def leeward(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def store(here: Path) -> ReportStore:
    return ReportStore(here / ".leeward" / "reports")


def test_run(here: Path, run_id: str, *, days_ago: float = 1, state: str = "completed") -> Path:
    began = datetime.now(UTC) - timedelta(days=days_ago)
    point = {"id": "p", "sequence": 1, "time": began}
    result = {
        "recovered": {"name": "web-test", "site": "recovery", "network": "isolated", "point": point},
        "outage_began": began,
        "answered_at": began + timedelta(seconds=9),
    }
    row = {"id": "r/web", "kind": "machine", "name": "web", "machine": "web", "state": "done", "result": result}
    stage = {"id": "r", "title": "recover web", "state": "done", "started": began, "steps": [row]}
    run = RunRecord.model_validate(
        {
            "plan": "payments",
            "run_id": run_id,
            "run_type": "test",
            "state": state,
            "direction": "primary-to-recovery",
            "requested_by": "ada",
            "started": began,
            "finished": began + timedelta(seconds=11),
            "message": "stopped" if state == "failed" else "",
            "stages": [{**stage, "finished": began + timedelta(seconds=10)}],
        }
    )
    return store(here).save(report_of(run, PlanRecord(rto_s=60))).html


test_run.__test__ = False  # type: ignore[attr-defined]


def test_reports_are_listed_and_shown(here: Path) -> None:
    assert "no reports yet" in leeward("report", "list").output
    test_run(here, "one", days_ago=2)
    test_run(here, "two")
    rows = json.loads(leeward("report", "list", "--json").output)
    assert [(row["run_id"], row["verdict"], row["recovery_time_s"]) for row in rows] == [
        ("one", "passed", 10),
        ("two", "passed", 10),
    ]
    shown = leeward("report", "show", "payments")
    assert "test run two" in shown.output
    assert "recovery time 10.0 s (objective 1 min)" in shown.output
    missing = leeward("report", "show", "payments", "three")
    assert missing.exit_code == 3
    assert "there are: one, two" in missing.stderr


def test_an_exported_report_verifies_elsewhere_with_its_key_only(here: Path) -> None:
    test_run(here, "one")
    assert leeward("report", "export", "payments", "--to", "evidence").exit_code == 0
    copy = here / "evidence" / "payments-one.html"
    elsewhere = ("--data", str(here / "elsewhere"))
    stranger = leeward("report", "verify", str(copy), *elsewhere)
    assert (stranger.exit_code, "not trusted here" in stranger.stderr) == (1, True)
    known = leeward("report", "verify", str(copy), *elsewhere, "--key", str(here / "evidence/signing.pub"))
    assert (known.exit_code, "unchanged since" in known.output) == (0, True)
    copy.write_text(copy.read_text().replace("ada", "eve"))
    changed = leeward("report", "verify", str(copy))
    assert (changed.exit_code, "changed after it was signed" in changed.stderr) == (1, True)
    unsigned = here / "evidence" / "payments-one.json"
    document = json.loads(unsigned.read_text())
    del document["signature"]
    unsigned.write_text(json.dumps(document))
    assert leeward("report", "verify", str(unsigned)).exit_code == 1


def test_a_plans_report_is_verified_by_name(here: Path) -> None:
    test_run(here, "one", days_ago=2)
    newest = test_run(here, "two")
    told = leeward("report", "verify", "payments", "--json")
    assert [Path(row["file"]).name for row in json.loads(told.output)] == ["two.json", "two.html"]
    assert leeward("report", "verify", "payments", "one").exit_code == 0
    missing = leeward("report", "verify", "payments", "three")
    assert (missing.exit_code, "there are: one, two" in missing.stderr) == (3, True)
    assert leeward("report", "verify", str(newest), "two").exit_code == 2

    newest.write_text(newest.read_text().replace("ada", "eve"))
    changed = leeward("report", "verify", "payments")
    assert (changed.exit_code, "two.html: " in changed.stderr) == (1, True)
    shutil.copy(newest.with_name("one.json"), newest.with_name("two.json"))
    swapped = leeward("report", "verify", "payments", "two")
    assert (swapped.exit_code, "holds the report of run one of plan 'payments'" in swapped.stderr) == (1, True)


def test_a_broken_report_may_be_the_newest(here: Path) -> None:
    test_run(here, "one")
    (store(here).root / "payments" / "two.json").write_text("{")
    told = leeward("report", "verify", "payments")
    assert (told.exit_code, "two.json" in told.stderr) == (1, True)
    assert leeward("report", "verify", "payments", "one").exit_code == 0


def test_readiness_ends_with_1_until_the_last_test_is_good(here: Path) -> None:
    test_run(here, "one", days_ago=3, state="failed")
    bad = leeward("report", "readiness")
    assert (bad.exit_code, "never tested with success" in bad.output) == (1, True)
    test_run(here, "two", days_ago=2)
    good = leeward("report", "readiness", "--html", "r.html", "--json")
    assert good.exit_code == 0
    assert json.loads(good.output)[0]["standing"] == "pass"
    assert "<svg" in (here / "r.html").read_text()
    old = json.loads(leeward("report", "readiness", "--oldest-test", "1d", "--json").output)
    assert old[0]["standing"] == "warn"
    assert leeward("report", "readiness", "--oldest-test", "soon").exit_code == 2


def test_a_broken_report_is_a_warning_beside_the_others(here: Path) -> None:
    test_run(here, "one")
    (store(here).root / "payments" / "zero.json").write_text("{")
    listed = leeward("report", "list")
    assert listed.exit_code == 0
    assert "one" in listed.output
    assert "warning: " in listed.stderr and "zero.json" in listed.stderr


def test_an_import_says_what_is_left_and_never_overwrites(here: Path) -> None:
    item = "c0c14913-3d7a-48ea-9531-cc99e0e686e6"
    first = leeward("plan", "import", str(ASR), "--name", "imported")
    assert first.exit_code == 0
    assert f"--map {item}=NAME" in first.output
    assert "does not load yet" in first.output
    again = leeward("plan", "import", str(ASR), "--name", "imported")
    assert (again.exit_code, "exists already" in again.stderr) == (3, True)
    mapped = ("--map", f"{item}=payment-app-2", "--force", "--json")
    done = json.loads(leeward("plan", "import", str(ASR), "--name", "imported", *mapped).output)
    assert done["loads"] is True
    assert {note["kind"] for note in done["notes"]} == {"action"}
    assert leeward("plan", "check", "imported").exit_code == 0
    assert leeward("plan", "import", "absent.json").exit_code == 3
    assert leeward("plan", "import", str(ASR), "--map", "nonsense").exit_code == 2


def test_plans_are_drawn_and_compared(here: Path) -> None:
    assert leeward("plan", "graph", "payments").output.startswith("<svg")
    assert leeward("plan", "graph", "payments", "--run", "planned", "--out", "p.svg").exit_code == 0
    assert "shut down database" in (here / "p.svg").read_text()
    assert leeward("plan", "graph", "payments", "--run", "never").exit_code == 2
    assert leeward("plan", "diff", "payments", "payments.plan.yaml").exit_code == 0
    text = (here / "payments.plan.yaml").read_text()
    (here / "b.plan.yaml").write_text(text.replace("commit: manual", "commit: automatic"))
    changed = leeward("plan", "diff", "payments", "b", "--json")
    assert changed.exit_code == 1
    assert json.loads(changed.output)["changes"][0]["setting"] == "commit"
