"""Calls of other systems against a real HTTP server, and checks by real commands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receiver_support import Answer, Receiver, receiving

from activities import checks
from activities.checks import CheckFailed, run_check
from activities.contracts import CallDone, CheckDone, RunCheck, SendCall
from activities.programs import Programs, masked
from activities.running import Running, Stopped
from activities.webcalls import BODY_KEPT, CallFailed, idempotency_key, send_call
from plans.context import MachineInRun, RunContext
from plans.steps import CallStep, CheckStep
from vault.errors import BadInput, NotFound

pytestmark = pytest.mark.unit

CONTEXT = RunContext(
    plan="shop",
    run_id="run-1",
    run_type="planned",
    direction="primary-to-recovery",
    machines={"web": MachineInRun(name="web", site="recovery", address="10.0.0.1:80")},
)
SECRET = "correct-horse"


@pytest.fixture
def balancer() -> Iterator[Receiver]:
    with receiving(Answer(200, b"switched")) as server:
        yield server


def step_to(balancer: Receiver, **keys: Any) -> CallStep:
    return CallStep.model_validate({"call": "switch", "url": balancer.url("/pool"), **keys})


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.webcalls.LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr("activities.webcalls.FIRST_PAUSE_S", 0.01)


def send(step: CallStep, **given: Any) -> CallDone:
    return send_call(SendCall(step=step, context=CONTEXT, row_id="recover web/switch", **given), Running())


def test_a_request_is_rendered_and_carries_its_secret(balancer: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    balancer.answers = [Answer(201, f"hello {SECRET}".encode())]
    step = step_to(
        balancer,
        method="PUT",
        headers={"authorization": "Bearer ${T}", "X-Plan": "{{ plan }}", "content-type": "application/json"},
        secrets={"T": "env:TOKEN"},
        body='{"to": {{ machines.web.address | tojson }}}',
    )
    done = send(step)
    method, path, headers, body = balancer.got[0]
    assert (method, path, body) == ("PUT", "/pool", b'{"to": "10.0.0.1:80"}')
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert (headers["x-plan"], headers["content-type"]) == ("shop", "application/json")
    assert (done.status, done.tries, done.body) == (201, 1, "hello ***")


def test_busy_answers_and_dropped_connections_are_tried_again_with_one_key(balancer: Receiver) -> None:
    balancer.hang_up = 1
    balancer.answers = [Answer(503, b""), Answer(429, b"", {"Retry-After": "0"})]
    assert send(step_to(balancer)).tries == 4
    keys = {headers["Idempotency-Key"] for _, _, headers, _ in balancer.got}
    sent = SendCall(step=step_to(balancer), context=CONTEXT, row_id="recover web/switch")
    assert keys == {f'"{idempotency_key(sent)}"'}


def test_a_retry_by_an_operator_is_another_request_and_a_repeated_activity_is_not(balancer: Receiver) -> None:
    for given in ({"round": 1}, {"round": 1}, {"round": 2}):
        send(step_to(balancer), **given)
    first, repeated, retried = (headers["Idempotency-Key"] for _, _, headers, _ in balancer.got)
    assert first == repeated != retried


@pytest.mark.parametrize("status", [301, 400, 401, 404, 409, 501])
def test_a_refusal_is_not_repeated(balancer: Receiver, status: int) -> None:
    balancer.answers = [Answer(status, b"no such pool\nmore", {"Location": "http://127.0.0.1:1/"})]
    with pytest.raises(CallFailed, match=f"answers {status}, expected 2xx: no such pool") as caught:
        send(step_to(balancer))
    assert len(balancer.got) == 1
    assert caught.value.remedy


def test_what_is_expected_can_be_said(balancer: Receiver) -> None:
    balancer.answers = [Answer(404, b"gone already"), Answer(200, b"switched to other"), Answer(503, b"")]
    assert send(step_to(balancer, status=[200, 404])).status == 404
    with pytest.raises(CallFailed, match="without 'switched to 10"):
        send(step_to(balancer, contains="switched to {{ machines.web.address }}"))
    assert send(step_to(balancer, status=[503])).status == 503


def test_its_time_is_for_all_tries(balancer: Receiver) -> None:
    balancer.answers = [Answer(503, b"")] * 100
    with pytest.raises(CallFailed, match=r"answers 503, expected 2xx \(try [0-9]+\)"):
        send(step_to(balancer, timeout="200ms"))
    assert 2 < len(balancer.got) < 50
    balancer.answers = [Answer(429, b"", {"Retry-After": "3600"})]
    began = time.monotonic()
    with pytest.raises(CallFailed, match="429"):
        send(step_to(balancer, timeout="10s"))
    assert time.monotonic() - began < 5


def test_an_answer_is_kept_in_part_and_no_secret_at_its_edge(
    balancer: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    balancer.answers = [Answer(200, b"x" * (BODY_KEPT - 5) + SECRET.encode() + b"y" * 100)]
    done = send(step_to(balancer, headers={"A": "${T}"}, secrets={"T": "env:TOKEN"}))
    assert len(done.body) <= BODY_KEPT
    assert "corre" not in done.body


def test_nothing_that_can_go_wrong_tells_the_secret(balancer: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    step = step_to(balancer, headers={"A": "Bearer ${T}"}, secrets={"T": "env:TOKEN"})
    monkeypatch.setenv("TOKEN", f"{SECRET}\r\nX-Other: 1")
    with pytest.raises(BadInput, match="'A' has a character") as caught:
        send(step)
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("TOKEN", f"{SECRET}€")
    with pytest.raises(BadInput):
        send(step)
    assert balancer.got == []
    monkeypatch.setenv("TOKEN", SECRET)
    balancer.answers = [Answer(400, f"bad token {SECRET}".encode())]
    with pytest.raises(CallFailed, match=r"bad token \*\*\*") as refused:
        send(step)
    assert SECRET not in str(refused.value)
    monkeypatch.delenv("TOKEN")
    with pytest.raises(NotFound, match="TOKEN"):
        send(step)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "file:///etc/passwd", "http://", "x", "http://x y", "http://x:0/", "http://[x"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="is not a URL"):
        send(CallStep(name="c", url=url))


def test_a_longer_secret_is_masked_before_one_that_it_contains() -> None:
    assert masked("a secretive secret", ["secret", "secretive", ""]) == "a *** ***"


# -- checks by a command -----------------------------------------------------------------------------------------


def check(step: dict[str, Any], running: Running | None = None) -> CheckDone:
    programs = Programs(adapters=None)  # type: ignore[arg-type]
    given = RunCheck(step=CheckStep.model_validate({"check": "lag", "every": "10ms", **step}), context=CONTEXT)
    return run_check(given, programs, running or Running())


def test_a_command_is_asked_until_it_answers_as_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    run = f'echo "$T" >> {tmp_path}/log; test $(wc -l < {tmp_path}/log) -ge 3; echo "{{{{ plan }}}} of $T: lag 2 s"'
    step = {"command": {"run": run, "secrets": {"T": "env:TOKEN"}, "matches": "^shop of .*: lag [0-4] s$"}}
    done = check(step)
    assert done.detail.startswith("the command answered 'shop of ***: lag 2 s' after")
    assert done.output == "shop of ***: lag 2 s\n"
    assert len((tmp_path / "log").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ({"run": "echo down; exit 4"}, "ends with exit code 4, expected 0: down"),
        ({"run": "true", "exit_code": 2}, "ends with exit code 0, expected 2: no output"),
        ({"run": "echo lag 9", "matches": "lag [0-4]$"}, r"says nothing that matches 'lag \[0-4\]\$': lag 9"),
    ],
)
def test_a_command_that_never_answers_as_expected(command: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckFailed, match=says) as caught:
        check({"command": command, "timeout": "10s", "every": "20s"})
    assert caught.value.remedy


def test_a_command_that_does_not_end_is_killed() -> None:
    with pytest.raises(CheckFailed, match="did not end in time and was killed"):
        check({"command": {"run": "sleep 60"}, "timeout": "150ms"})


def test_an_expected_exit_code_can_be_another_one() -> None:
    assert "after" in check({"command": {"run": ["sh", "-c", "exit 3"], "exit_code": 3}}).detail


def test_a_pattern_that_never_comes_to_an_end_does_not_hold_the_worker_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PATTERN_S", 0.3)
    with pytest.raises(BadInput, match=r"takes longer than 0\.3 s"):
        checks.has_match("(a+)+$", "a" * 40 + "b", "here")


def test_a_cancelled_check_ends_its_command() -> None:
    running = Running()
    running.stop()
    with pytest.raises(Stopped):
        check({"command": {"run": "sleep 60"}}, running)
