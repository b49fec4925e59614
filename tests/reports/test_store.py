"""Reports on disk: written whole, read again, verified, and never trusted without reason."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import stat
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from samples import at, planned_report, planned_run, step

from reports.model import Report
from reports.signing import KEY_FILE, PUBLIC_FILE, NotTrusted, own_key
from reports.store import ReportStore, read_report, verify_report
from reports.timeline import ticks, timeline
from vault.errors import BadInput, Damaged, LeewardError, NotFound

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> ReportStore:
    return ReportStore(tmp_path / "reports")


def test_a_report_comes_back_as_it_was(store: ReportStore) -> None:
    report = planned_report()
    saved = store.save(report)
    assert saved.json == store.root / "payments" / "20260314T020000-ab12.json"
    assert store.load("payments") == store.load("payments", report.run.run_id) == read_report(saved.json) == report
    assert list(store.reports()) == [report]
    assert not [path for path in store.root.rglob("*") if path.suffix == ".part"]


def test_both_files_verify_and_name_their_writer(store: ReportStore) -> None:
    for path in store.save(planned_report()):
        found = verify_report(path, store.root, [])
        assert "@" in found.signature.signed_by
        assert found.trusted_by == str(store.root / PUBLIC_FILE)


def test_a_second_implementation_verifies_from_the_documented_format_alone(store: ReportStore) -> None:
    saved = store.save(planned_report())
    document = json.loads(saved.json.read_text())
    in_json = document.pop("signature")
    page, _, last = saved.html.read_bytes().removesuffix(b" -->\n").rpartition(b"\n<!-- leeward-signature ")

    def as_documented(value: object) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    for content, signature in ((as_documented(document), in_json), (page, json.loads(last))):
        assert hashlib.sha256(content).hexdigest() == signature["digest"]
        signed = {name: value for name, value in signature.items() if name != "signature"}
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signature["key"]))
        key.verify(base64.b64decode(signature["signature"]), as_documented(signed))


def test_json_may_be_laid_out_anew_but_not_changed(store: ReportStore) -> None:
    path = store.save(planned_report()).json
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document, sort_keys=True))
    verify_report(path, store.root, [])
    document["report"]["run"]["decisions"][0]["by"] = "eve"
    path.write_text(json.dumps(document))
    with pytest.raises(Damaged, match="changed after it was signed"):
        verify_report(path, store.root, [])


def test_any_changed_byte_of_a_page_is_noticed(store: ReportStore) -> None:
    path = store.save(planned_report()).html
    raw = path.read_bytes()
    for place in range(0, len(raw), 997):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(LeewardError):
            verify_report(path, store.root, [])
    path.write_bytes(raw.replace(b"\n<!-- leeward-signature", b"<p>more</p>\n<!-- leeward-signature"))
    with pytest.raises(Damaged):
        verify_report(path, store.root, [])


@pytest.mark.parametrize("field", ["signed_by", "signed_at", "digest", "key", "signature"])
def test_nothing_in_a_signature_can_be_swapped(store: ReportStore, field: str) -> None:
    path = store.save(planned_report()).json
    document = json.loads(path.read_text())
    other = {"signed_by": "eve@elsewhere", "signed_at": "2020-01-01T00:00:00Z", "digest": "0" * 64}
    document["signature"][field] = other.get(field, "AAAA")
    path.write_text(json.dumps(document))
    with pytest.raises(Damaged):
        verify_report(path, store.root, [])


def test_a_file_without_signature_is_refused(store: ReportStore) -> None:
    saved = store.save(planned_report())
    document = json.loads(saved.json.read_text())
    del document["signature"]
    saved.json.write_text(json.dumps(document))
    saved.html.write_bytes(re.sub(rb"\n<!-- leeward-signature .*", b"", saved.html.read_bytes(), flags=re.DOTALL))
    for path in saved:
        with pytest.raises(Damaged, match="no signature"):
            verify_report(path, store.root, [])


def test_a_strangers_key_counts_only_when_named(store: ReportStore, tmp_path: Path) -> None:
    stranger = ReportStore(tmp_path / "elsewhere")
    path = stranger.save(planned_report()).json
    store.save(planned_report())
    with pytest.raises(NotTrusted, match="not trusted here"):
        verify_report(path, store.root, [])
    public = stranger.root / PUBLIC_FILE
    assert verify_report(path, store.root, [public]).trusted_by == str(public)
    (store.root / "trusted").mkdir()
    shutil.copy(public, store.root / "trusted" / "dr-site.pub")
    assert verify_report(path, store.root, []).trusted_by.endswith("dr-site.pub")


def test_the_key_is_its_owners_alone_and_made_once_by_many(tmp_path: Path) -> None:
    keys = []
    threads = [threading.Thread(target=lambda: keys.append(own_key(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key.private_bytes_raw() for key in keys}) == 1
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [KEY_FILE, PUBLIC_FILE]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", '{"format": "leeward-report"}', '{"format": "leeward-report", "version": 9}', "[" * 9999],
)
def test_what_is_no_report_is_refused_with_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    for read in (read_report, lambda file: verify_report(file, tmp_path, [])):
        with pytest.raises((Damaged, BadInput)) as caught:
            read(path)
        assert str(path) in str(caught.value)
    with pytest.raises(NotFound):
        read_report(tmp_path / "absent.json")


def test_a_broken_report_does_not_hide_the_others(store: ReportStore) -> None:
    report = planned_report()
    store.save(report)
    (store.root / "payments" / "20260101T000000-0000.json").write_text("{")
    found = list(store.reports())
    assert [type(entry) for entry in found] == [Damaged, Report]
    assert store.load("payments") == report


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".hidden", "a\0b"])
def test_no_name_leads_out_of_the_folder(store: ReportStore, name: str) -> None:
    with pytest.raises(BadInput):
        store.paths("payments", name)
    with pytest.raises(BadInput):
        store.load(name)


def test_parts_become_the_whole_run_again(store: ReportStore) -> None:
    stages = planned_run().stages
    cut = stages[3]
    first = [*stages[:3], cut.model_copy(update={"steps": cut.steps[:1]})]
    second = [cut.model_copy(update={"steps": cut.steps[1:]}), *stages[4:]]
    for number, part in ((1, second), (0, first), (0, first)):
        store.keep_part("payments", "run", number, part)
    assert store.kept_stages("payments", "run", 2) == stages
    with pytest.raises(NotFound, match="part 3 of 3"):
        store.kept_stages("payments", "run", 3)
    store.drop_parts("payments", "run")
    assert list((store.root / "payments").iterdir()) == []


def test_a_page_quotes_whatever_a_run_says(store: ReportStore) -> None:
    evil = "</title><script>alert(1)</script> --> \x00\x1b"
    report = planned_report(message=evil, requested_by=evil, state="failed")
    rows = report.run.stages[0].model_copy(
        update={
            "steps": [report.run.stages[0].steps[0].model_copy(update={"name": evil, "detail": evil, "output": evil})]
        }
    )
    page = store.save(report.model_copy(update={"run": report.run.model_copy(update={"stages": [rows]})})).html
    text = page.read_text()
    assert "<script" not in text
    assert text.count("-->") == 1
    verify_report(page, store.root, [])


def test_a_page_names_machines_that_were_left_out(store: ReportStore) -> None:
    word = {"action": "leave out", "machine": "mail", "by": "olga", "at": at(0), "note": "damaged, ticket 4711"}
    files = store.save(planned_report(decisions=[word]))
    text = files.html.read_text()
    row = re.search(r"<tr><td class=\"w\">mail</td>.*</tr>", text)
    assert row is not None
    assert "left out by olga: damaged, ticket 4711" in row[0]
    assert "not measured: not all machines were in this run" in text
    assert "Passed" not in text
    assert read_report(files.json).measured.left_out[0].machine == "mail"


def test_a_page_needs_nothing_from_the_network(store: ReportStore) -> None:
    text = store.save(planned_report()).html.read_text()
    assert re.findall(r"""(?:src|href|url\()\s*=?\s*["']?(https?:[^"' )]+)""", text) == []
    assert "<script" not in text


def test_the_timeline_has_a_bar_for_every_step_that_ran() -> None:
    run = planned_run()
    root = ElementTree.fromstring(timeline(run))
    hints = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    for row in (row for stage in run.stages for row in stage.steps):
        assert any(hint and hint.startswith(f"{row.name}: {row.state}, ") for hint in hints), row.name


def test_a_thousand_machines_are_still_one_picture() -> None:
    run = planned_run()
    rows = [step("machine", f"vm-{number:04}", 31, 31 + number / 10) for number in range(1000)]
    big = planned_run(stages=[run.stages[0].model_dump(), {**run.stages[3].model_dump(), "steps": rows}])
    root = ElementTree.fromstring(timeline(big))
    assert float(root.get("height", "inf")) < 3000
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) > 1000


@pytest.mark.parametrize("whole", [0.001, 0.5, 1.9, 2, 59, 61, 3600, 86400, 40 * 86400])
def test_ticks_are_few_and_within_the_run(whole: float) -> None:
    found = ticks(whole)
    assert found[0] == 0
    assert 2 <= len(found) <= 11
    assert found[-1] <= whole * (1 + 1e-9)


def test_the_moments_on_the_axis_are_round() -> None:
    """A run of a second ended with a mark at '+1.04385 s'."""
    assert [f"{moment:g}" for moment in ticks(1.04385)] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
