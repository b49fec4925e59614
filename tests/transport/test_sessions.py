"""The process server's end of a session, with a master target that behaves as none should."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from replication.transport import session as sessions
from replication.transport.messages import Done, encode
from replication.transport.session import Session, unlimited
from vault.errors import LeewardError, Unreachable

pytestmark = pytest.mark.unit


class Hanging:
    """Answers the first message and then never ends."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def __call__(self, requests: Iterator[bytes]) -> Hanging:
        return self

    def __iter__(self) -> Iterator[bytes]:
        yield encode(Done())
        self.cancelled.wait()

    def cancel(self) -> bool:
        self.cancelled.set()
        return True


def explain(error: object) -> LeewardError:
    raise AssertionError(error)


def test_a_master_target_that_never_lets_go_is_called_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ANSWERS_WITHIN_S", 0.05)
    monkeypatch.setattr(sessions, "ENDS_WITHIN_S", 0.05)
    call = Hanging()
    session = Session(call, explain, unlimited, "master target of site 'recovery'")
    session._inbox.get(timeout=30)
    with pytest.raises(Unreachable, match="no answer") as found:
        session.finish()
    assert found.value.where == "master target of site 'recovery'"
    assert found.value.remedy
    session.drop()
    assert call.cancelled.is_set()
