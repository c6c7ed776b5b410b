"""The telemetry collector against real sockets: one slow, silent or broken part hides no other."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof.config.target_file import Link, Predict, TargetFile
from monkeyproof.errors import TargetError, UsageError
from monkeyproof.healing.samples import (
    Canary,
    Sample,
    body_of,
    choose_canaries,
    count_right,
    parse_metrics,
    read_canaries,
)
from monkeyproof.healing.telemetry import TICK_S, TelemetryCollector
from monkeyproof.targets.port import Replica, Replicas, Telemetry

C = TypeVar("C")
METRICS = """# HELP replica_requests_total n
# TYPE replica_requests_total counter
replica_requests_total{code="200"} 7.0
replica_requests_created{code="200"} 1.7e9
replica_request_seconds_bucket{le="0.1"} 5.0
replica_feature_value_mean{feature="f1"} 42.5
replica_model_version 3.0
process_cpu_seconds_total 1.0
"""


@dataclass
class ScoringService:
    """A scoring service on a real socket that answers, is slow, fails or hangs, as the test asks."""

    delay_s: float = 0.0
    status: int = 200
    scrape_delay_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=lambda: {"X-Model-Version": "3"})

    def __post_init__(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["dataframe_records"]
                time.sleep(service.delay_s)
                answers = [float(int(row["entity"]) % 2) for row in rows]
                self._answer(service.status, json.dumps({"predictions": answers}).encode())

            def do_GET(self) -> None:
                time.sleep(service.scrape_delay_s)
                self._answer(200, METRICS.encode())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                for name, value in service.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class FakeTarget:
    """A gateway and two replicas; listing them may fail or hang."""

    def __init__(self, gateway: ScoringService, replicas: Sequence[ScoringService], folder: Path) -> None:
        links = {f"gateway->r{n}": Link(one.address, one.address, "http") for n, one in enumerate(replicas)}
        predict = Predict(
            f"http://{gateway.address}/invocations",
            Path("g"),
            degraded="X-Degraded",
            model_version="X-Model-Version",
        )
        self.file = TargetFile("fake", predict, links=links)
        self._replicas = replicas
        self._path = folder / "canary.jsonl"
        lines = [
            {"body": {"dataframe_records": [{"entity": str(n)}]}, "expect": n % 2, "tolerance": 0}
            for n in range(20)
        ]
        self._path.write_text("\n".join(map(json.dumps, lines)))
        self.listing: Callable[[], None] = lambda: None

    def find(self, capability: type[C]) -> C | None:
        return self if capability in (Telemetry, Replicas) else None  # type: ignore[return-value]

    def close(self) -> None:
        pass

    def list(self) -> Sequence[Replica]:
        self.listing()
        return [Replica(f"r{n}", 1, "ready", False, f"gateway->r{n}", "") for n in range(len(self._replicas))]

    def metrics_urls(self) -> Mapping[str, str]:
        return {f"r{n}": f"http://{one.address}/metrics" for n, one in enumerate(self._replicas)} | {
            "replica-x": f"http://{self._replicas[0].address}/metrics"
        }

    def canary(self) -> Path:
        return self._path

    def canary_url(self) -> str:
        return self.file.predict.url


@dataclass
class Bench:
    services: list[ScoringService]
    target: FakeTarget

    def samples(self, times: int, during: Callable[[int], None] = lambda _: None) -> list[Sample]:
        """Take samples at the Elephant's own pace."""

        async def run() -> list[Sample]:
            taken = []
            async with TelemetryCollector(self.target) as collector:
                for number in range(times):
                    during(number)
                    began_s = time.monotonic()
                    taken.append(await collector.sample())
                    await asyncio.sleep(max(0.0, TICK_S - (time.monotonic() - began_s)))
            return taken

        return asyncio.run(run())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    services = [ScoringService(), ScoringService(), ScoringService()]
    yield Bench(services, FakeTarget(services[0], services[1:], tmp_path))
    for one in services:
        one.close()


def test_a_healthy_target_is_sampled_whole(bench: Bench) -> None:
    last = bench.samples(3)[-1]
    assert (last.gateway.right, last.gateway.wrong, last.gateway.failed) == (8, 0, 0)
    assert last.gateway.versions == {"3"}
    assert last.replicas is not None
    assert [one.canary.right for one in last.replicas.values()] == [8, 8]
    assert last.store_ok is None, "this target has no such link"
    assert last.pipeline is None


def test_a_slow_part_shows_at_once_and_delays_no_other(bench: Bench) -> None:
    bench.samples(1)
    bench.services[2].delay_s = 0.6
    began_s = time.monotonic()
    samples = bench.samples(5)
    assert time.monotonic() - began_s < 5 * TICK_S + 1.0, "no part waits for the slowest"
    slow = [one.replicas["r1"].canary.latency_ms for one in samples[1:] if one.replicas]
    assert slow
    assert all(latency is not None and latency > 100.0 for latency in slow), "also while it is in flight"
    assert all(one.gateway.right == 8 for one in samples)


def test_a_hung_part_fails_after_its_time_limit(bench: Bench) -> None:
    bench.services[0].delay_s = 5.0
    samples = bench.samples(7)
    assert sum(one.gateway.failed for one in samples) >= 1
    assert sum(one.gateway.right for one in samples) == 0
    assert samples[-1].gateway.latency_ms is not None
    assert samples[-1].gateway.latency_ms >= 900.0


def test_a_dead_part_fails_at_once(bench: Bench) -> None:
    bench.services[1].close()
    last = bench.samples(3)[-1]
    assert last.replicas is not None
    assert last.replicas["r0"].canary.failed == 1
    assert last.replicas["r0"].canary.why
    assert last.replicas["r0"].metrics is None


@pytest.mark.parametrize(("status", "failed", "right"), [(200, 0, 8), (503, 1, 0), (404, 1, 0)])
def test_only_a_2xx_is_an_answer(bench: Bench, status: int, failed: int, right: int) -> None:
    bench.services[0].status = status
    last = bench.samples(2)[-1]
    assert (last.gateway.failed, last.gateway.right) == (failed, right)


def test_a_fallback_shows_in_its_header(bench: Bench) -> None:
    bench.services[0].headers = {"X-Degraded": "fallback"}
    bench.services[1].headers = {"X-Degraded": "snapshot"}
    last = bench.samples(2)[-1]
    assert last.gateway.fallback
    assert last.replicas is not None
    assert not last.replicas["r0"].canary.fallback


def test_without_a_listing_the_replicas_are_unknown(bench: Bench) -> None:
    def fail() -> None:
        raise TargetError("no")

    def break_listing(number: int) -> None:
        if number == 1:
            bench.target.listing = fail

    samples = bench.samples(7, break_listing)
    assert samples[0].replicas is not None
    assert samples[-1].replicas is None
    bench.target.listing = lambda: time.sleep(30.0)
    began_s = time.monotonic()
    assert all(one.replicas is None for one in bench.samples(3))
    assert time.monotonic() - began_s < 5.0, "a stuck call does not keep the process from ending"


def test_a_slow_scrape_is_unknown_not_zero(bench: Bench) -> None:
    bench.services[1].scrape_delay_s = 5.0
    last = bench.samples(3)[-1]
    assert last.replicas is not None
    assert last.replicas["r0"].metrics is None
    assert last.replicas["r0"].canary.right == 8


# --- bytes to values -----------------------------------------------------------------------------------------


def test_metrics_are_named_with_their_label_and_without_the_rest() -> None:
    assert parse_metrics(METRICS) == {
        "replica_requests_total/200": 7.0,
        "replica_requests_created/200": 1.7e9,
        "replica_feature_value_mean/f1": 42.5,
        "replica_model_version": 3.0,
    }
    assert parse_metrics("") == {}


CANARIES = [Canary({"dataframe_records": [{"entity": str(n)}]}, float(n % 2), 0.0, str(n)) for n in range(10)]


@pytest.mark.parametrize(
    ("content", "right"),
    [
        (b'{"predictions": [0, 1]}', 2),
        (b'{"predictions": [1, 1]}', 1),
        (b'{"predictions": [0]}', 0),
        (b'{"predictions": "no"}', 0),
        (b'{"predictions": [null, 1]}', 0),
        (b"<html>", 0),
        (b"[]", 0),
    ],
)
def test_right_answers_are_counted(content: bytes, right: int) -> None:
    assert count_right(content, CANARIES[:2]) == right


@given(st.integers(0, 1000), st.integers(1, 10))
def test_every_canary_has_its_turn(start: int, size: int) -> None:
    few = CANARIES[:size]
    sent = {canary.entity for turn in range(start, start + 10) for canary in choose_canaries(few, turn)}
    assert sent == {canary.entity for canary in few}


def test_canaries_that_cannot_be_asked_together_are_asked_alone() -> None:
    alone = [Canary({"inputs": [[1.0]]}, 1.0, 0.0), *CANARIES]
    assert body_of(choose_canaries(alone, 0)) == {"inputs": [[1.0]]}
    assert len(body_of(choose_canaries(CANARIES, 0))["dataframe_records"]) == 8


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no canaries"),
        ("{}\n", ":1: not a canary"),
        ('{"body": {}, "expect": 1}\nnonsense\n', ":2: not a canary"),
    ],
)
def test_canaries_that_cannot_be_read_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "canary.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        read_canaries(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_canaries(tmp_path / "nowhere")
