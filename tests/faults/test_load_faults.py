"""Locust asks a real service more than it expects: whatever the answers do, and for no longer than it may."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up)

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, pairwise

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import Predict
from monkeyproof.errors import Refusal, Unproven, UsageError
from monkeyproof.faults import load
from monkeyproof.faults.support import stressor
from monkeyproof.faults.support.stressors.traffic import due_by, due_times_s
from monkeyproof.injection.inject import current, revert
from monkeyproof.runtime.process_ref import reference_text
from monkeyproof.targets import port

QUESTIONS = 5


class Service(ThreadingHTTPServer):
    """Records every request with its time, and gives the answers that a test sets."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        self.asked: list[tuple[float, bytes]] = []
        self.delay_s = 0.0
        self.fails = False
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((time.monotonic(), body))
        time.sleep(self.server.delay_s)
        self.send_response(503 if self.server.fails else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_GET(self) -> None:
        page = b'replica_requests_total{code="200"} %d\n' % len(self.server.asked)
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None: ...


class Dashboard:
    def __init__(self, url: str) -> None:
        self.url = url

    def metrics_urls(self):
        return {"replica-1": self.url}

    def canary(self): ...

    def canary_url(self): ...

    def healer_registry(self): ...


@pytest.fixture
def service(world, tmp_path) -> Iterator[Service]:
    one = Service()
    threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{one.server_port}"
    golden = tmp_path / "golden.jsonl"
    golden.write_text("".join(json.dumps({"body": {"n": n}, "expect": 1}) + "\n" for n in range(QUESTIONS)))
    world.file.path.write_text(
        f"name: small\npredict: {{url: {address}/score, golden: golden.jsonl}}\nallow_faults: [load]\n"
    )
    world.file = replace(world.file, predict=Predict(f"{address}/score", golden), allow_faults=("load",))
    world.parts[port.Telemetry] = Dashboard(f"{address}/metrics")
    yield one
    revert()
    one.shutdown()
    one.server_close()


def rate_per_s(service: Service, for_s: float) -> float:
    since_s = time.monotonic() - for_s
    return sum(at_s >= since_s for at_s, _ in service.asked) / for_s


def test_a_service_that_slows_down_is_asked_no_less(world, service):
    service.delay_s = 0.4
    found = load.overload(40.0)
    data = found["data"]
    assert 0.7 * 40 <= data["sent_per_s"] <= 1.1 * 40
    assert data["left_out"] <= 0.2 * data["due"]
    assert data["target_per_s"] > 20
    assert "requests in" in found["evidence"]
    # One that waits for its answers, as many as it has users, would be slower.
    assert wait_for(lambda: rate_per_s(service, 1.0) > 0.7 * 40, within_s=5)
    assert {body for _, body in service.asked} == {b'{"n":%d}' % n for n in range(QUESTIONS)}
    assert revert() == ["the additional requests: ended"]
    asked = len(service.asked)
    assert not wait_for(lambda: len(service.asked) > asked + 1, within_s=0.3)
    stressor_id = json.loads(current().undo.path.read_text().splitlines()[0])["undo"]["arguments"]["stressor_id"]
    assert stressor.end(world, stressor_id, "it") == "it: had ended already"


def test_what_fails_is_asked_again_at_once(world, service):
    service.fails = True
    found = load.retry_storm(10.0, retries=2)
    data = found["data"]
    assert data["answered"] == 0
    assert data["retries"] >= 1.5 * (data["sent"] - 10)
    assert f"{data['retries']} retries after {data['failed']} failures" in found["evidence"]
    pauses_s = [later - earlier for (earlier, one), (later, other) in pairwise(service.asked) if one == other]
    assert sorted(pauses_s)[len(pauses_s) // 2] < 0.1


def test_a_storm_without_failures_is_none(world, service, monkeypatch):
    monkeypatch.setattr(load, "inject", lambda one: load_inject(replace(one, evidence_within_s=2.0)))
    with pytest.raises(Unproven, match=r"load\.retry_storm on predict: injected, but no evidence"):
        load.retry_storm(20.0)
    assert not current().undo.open_faults()


load_inject = load.inject


def test_everybody_asks_for_the_same(world, service):
    found = load.hot_key(30.0)
    (only,) = {body for _, body in service.asked}
    (intent,) = [json.loads(line) for line in current().undo.path.read_text().splitlines()[:1]]
    assert found["data"]["sent"] > 15
    assert json.loads(only)["n"] in range(QUESTIONS)
    assert intent["lease_s"] == port.LEASE_S


def test_the_requests_end_with_their_owner_and_with_their_time(service, world, tmp_path):
    owner = subprocess.Popen(["/bin/sleep", "60"])

    def started(for_s: float, owned_by: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "monkeyproof.faults.support.stressors.traffic", "--id", "x"),
                *("--for-s", str(for_s), "--owner", reference_text(owned_by), "--target", str(world.file.path)),
                *("--out", str(tmp_path / "out.json"), "--rate-per-s", "20", "--seed", "1"),
            ],
            stdout=subprocess.PIPE,
        )

    both = [started(60.0, owner.pid), started(2.5, os.getpid())]
    try:
        assert "pid" in json.loads(both[0].stdout.readline())
        owner.kill()
        assert [one.wait(10) for one in both] == [0, 0]
    finally:
        for one in (*both, owner):
            one.kill()
            one.wait()


@pytest.mark.parametrize(("rate_per_s", "spike_s"), [(100.0, 0.0), (100.0, 2.0), (7.0, 3.0)])
def test_due_times_are_those_of_the_shape(rate_per_s, spike_s):
    times_s = list(islice(due_times_s(rate_per_s, spike_s), 400))
    assert times_s == sorted(times_s)
    for look_s in (0.0, 0.3, 0.9, 1.0, 1.7, 2.0, 2.9):
        due = sum(at_s <= look_s for at_s in times_s)
        assert abs(due - due_by(look_s, rate_per_s, spike_s)) <= 1
    if spike_s:
        assert len(times_s) == int(rate_per_s * spike_s / 2)
        by_third = Counter(int(3 * at_s / spike_s) for at_s in times_s)
        assert by_third[1] > by_third[0]
        assert by_third[1] > by_third[2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: load.overload(0), "rate_per_s: 0 is not a number that is more than 0 and at most 1000"),
        (lambda: load.overload(5000), "rate_per_s: 5000 is not"),
        (lambda: load.overload(10, spike_s=-1), "spike_s: -1 is not"),
        (lambda: load.retry_storm(10, retries=0), "retries: 0 is not a whole number from 1 to 10"),
        (lambda: load.retry_storm(1000, retries=9), "may be 10000 a second, and at most 2000 are sent"),
        (lambda: load.hot_key(10, question=5), "question: 5 is not a whole number from -1 to 4"),
    ],
)
def test_bad_parameters(world, service, call, words):
    with pytest.raises(UsageError, match=words):
        call()
    assert not service.asked


def test_a_target_that_does_not_allow_it_is_not_asked(world, service):
    world.file = replace(world.file, allow_faults=("network",))
    with pytest.raises(Refusal, match="does not allow faults of the family 'load'"):
        load.overload(10)
