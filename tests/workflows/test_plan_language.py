"""What a plan can say beyond groups and machines, in real runs (requirements §D)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from house import House

from plans.model import Plan

pytestmark = pytest.mark.workflow


def plan(*groups: dict[str, Any], **parts: Any) -> Plan:
    return Plan.model_validate({"plan": "shop", "groups": list(groups), **parts})


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    """Refuses the first request, takes the others; ``keys`` are the idempotency keys it saw."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.keys.append(self.headers["Idempotency-Key"])
            self.send_response(409 if len(server.keys) == 1 else 200)
            self.end_headers()
            self.wfile.write(b"pool is switched")

        def log_message(self, *_: Any) -> None:
            return

    class Receiver(HTTPServer):
        keys: list[str] = []

    server = Receiver(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_calls_and_commands_are_steps_like_others(house: House, receiver: Any) -> None:
    """A call that was refused waits for the operator; his retry is a new request, with a key of its own."""
    await house.replicating("db")
    after = [
        {"call": "switch", "url": f"http://127.0.0.1:{receiver.server_port}/pool"},
        {"check": "here", "command": {"run": "echo 'lag 3 s'", "matches": "lag [0-9] s"}},
        {"check": "there", "command": {"on": "db", "run": "app-status", "matches": "^done"}},
    ]
    handle = await house.plan(plan({"name": "data", "machines": ["db"], "after": after}), "planned")
    failed = await house.row(handle, "recover data/switch", "failed")
    assert "answers 409, expected 2xx: pool is switched (try 1)" in failed.detail
    await house.steer(handle, "retry", failed.id)
    status = await house.run_ends(handle)
    rows = {row.name: row for stage in status.stages for row in stage.steps}
    assert (status.state, rows["switch"].kind, rows["switch"].detail) == (
        "completed",
        "call",
        "answered 200: pool is switched",
    )
    assert len(set(receiver.keys)) == 2
    assert rows["here"].detail.startswith("the command answered 'lag 3 s'")
    assert rows["there"].output == "done in guest\n"
    assert [call.site for call in house.world.of("run_in_guest", "db")] == ["recovery"]
