"""What ends a trial at once: each condition by itself, and what it makes of silence and of nonsense."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.config.limits import AbortIf, public_url
from monkeyproof.probes.abort import monitor
from monkeyproof.probes.abort.conditions import bad_s, good_share, readings_conditions, why_metric
from monkeyproof.probes.abort.monitor import PolledCondition, bad_before_s
from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.record.history import READINGS_FILE
from monkeyproof.record.readings import Reading, Readings, ReadingsWriter, SignalState

RATE_PER_S = 10.0
LAG_S = 1.0
UP = json.dumps(
    {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "1"]}]}}
).encode()


def rows(pattern: str) -> list[Reading]:
    """One letter a slot: g good, b bad, u unknown, - no row."""
    sights = {"g": SignalState.GOOD, "b": SignalState.BAD, "u": SignalState.UNKNOWN}
    return [
        Reading(slot, at, at, at + 0.01, sights[letter], sights[letter], sights[letter])
        for slot, letter in enumerate(pattern)
        if letter != "-" and (at := slot / RATE_PER_S) >= 0
    ]


def schedule(pattern: str) -> ProbeSchedule:
    found = ProbeSchedule.of(Readings.of(rows(pattern)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("pattern", "now_s", "expected"),
    [
        ("g" * 50, 5.0, 1.0),
        ("g" * 40 + "b" * 10, 5.0, 0.5),
        ("g" * 40 + "u" * 10, 5.0, 0.5),
        # The last 0.5 s may still be in flight; a hole from before that cannot be.
        ("g" * 45, 5.0, 1.0),
        ("g" * 32 + "-" * 8 + "g" * 10, 5.0, 12 / 20),
        # The prober stopped 1.5 s ago: what it should have written since is not good.
        ("g" * 35, 5.0, 5 / 10),
        ("g" * 35, 20.0, 0.0),
    ],
)
def test_good_share_of_the_last_two_seconds(pattern: str, now_s: float, expected: float) -> None:
    assert good_share(schedule(pattern), now_s - 2.0, now_s, LAG_S) == pytest.approx(expected, abs=0.06)


def test_no_readings_are_no_share() -> None:
    assert good_share(None, 0.0, 2.0, LAG_S) is None


def sli(pattern: str | None, now_s: float, *, from_s: float = 0.0) -> str:
    (one,) = readings_conditions(
        (AbortIf(sli_below=0.5, for_s=2),), objective=0.99, before_s=0.0, from_s=from_s, lag_s=LAG_S
    )
    return one.why(schedule(pattern) if pattern else None, now_s)


def test_sli_below() -> None:
    assert sli("g" * 40 + "b" * 9, 5.0) == ""
    assert "sli_below: 45.0% of the readings of the last 2 s were good" in sli("g" * 39 + "b" * 11, 4.95)
    assert "no readings in the last 2 s" in sli(None, 5.0)
    # Not before so much time has passed as it looks at.
    assert sli(None, 1.9) == ""
    assert sli("b" * 50, 5.0, from_s=3.5) == ""


def budget(pattern: str | None, now_s: float, *, before_s: float = 0.0) -> str:
    # One percent of 1000 s is the budget: 10 s. A fifth of it may be spent: 2 s.
    condition = AbortIf(error_budget_spent=0.2, of_days=1000 / 86400)
    (one,) = readings_conditions((condition,), objective=0.99, before_s=before_s, from_s=0.0, lag_s=LAG_S)
    return one.why(schedule(pattern) if pattern else None, now_s)


def test_error_budget_spent_over_the_campaign() -> None:
    assert budget("g" * 30 + "b" * 20, 5.0) == ""
    why = budget("g" * 29 + "b" * 21, 5.0)
    assert "2.1 s without good answers in this campaign are 21.00% of the error budget" in why
    assert "at most 20.00%" in why
    assert budget("g" * 40 + "b" * 10, 5.0, before_s=0.9) == ""
    assert "2.1 s" in budget("g" * 40 + "b" * 10, 5.0, before_s=1.1)
    assert "no readings for 3.6 s" in budget("g" * 10, 4.5)
    assert "no readings" in budget(None, 4.5)


def test_what_earlier_trials_of_the_campaign_spent(tmp_path: Path) -> None:
    trials = tmp_path / "trials"
    aside = "../discarded/002"  # By 'run --resume', after an abort.
    for name, pattern in (("001", "g" * 10 + "b" * 5 + "g"), ("002", "gg" + "u" * 3 + "--g"), (aside, "gbbg")):
        (trials / name).mkdir(parents=True)
        writer = ReadingsWriter(trials / name / READINGS_FILE)
        writer.write(rows(pattern))
        writer.close()
    assert bad_before_s(trials / "002") == 0.0  # No campaign: these are strangers.
    (tmp_path / "campaign.json").write_text("{}")
    assert bad_before_s(trials / "002") == pytest.approx(0.5 + 0.2)
    assert bad_before_s(trials / "003") == pytest.approx(1.0 + 0.2)


def test_bad_time_is_never_shortened_by_what_is_missing() -> None:
    assert bad_s(schedule("ggggg-----ggggg"), 1.5, 0.0) == pytest.approx(0.5)
    assert bad_s(schedule("ggggg"), 3.5, 1.0) == pytest.approx(2.0)


def metric(value: object, *, status: int = 200, kind: str = "vector", **bounds: float) -> str:
    result = [0, value] if kind == "scalar" else [{"metric": {}, "value": [0, one]} for one in (value or [])]  # type: ignore[attr-defined]
    body = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
    condition = AbortIf(
        prometheus="http://me:secret@p:9090/x?token=secret", query="up", **(bounds or {"above": 5})
    )
    return why_metric(condition, status, body)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (metric(["4.9", "5"]), ""),
        (metric("4", kind="scalar"), ""),
        (metric(["4.9", "5.1"]), "5.1 is above 5"),
        (metric("5.1", kind="scalar"), "5.1 is above 5"),
        (metric(["0.5", "0.9"], below=0.6), "0.5 is below 0.6"),
        (metric([]), "no data"),
        (metric(["NaN"]), "not a number"),
        (metric(["1", "+Inf"]), "not a number"),
        (metric(["much"]), "not as Prometheus does"),
        (metric(["1"], kind="matrix"), "not as Prometheus does"),
        (metric(["1"], status=503), "answers 503"),
    ],
)
def test_metric(found: str, words: str) -> None:
    assert words in found
    assert bool(words) == bool(found)
    assert "secret" not in found


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"status":"success"}', b"[" * 100_000, b"\xff"])
def test_a_body_that_is_not_prometheus(body: bytes) -> None:
    assert why_metric(AbortIf(prometheus="http://p", query="up", above=1), 200, body)


def test_an_address_is_shown_without_what_may_be_secret() -> None:
    assert public_url("https://me:pass@h:1/a?token=x#y") == "https://h:1/a"


class Server:
    """Answers each request as ``answer(path, query)`` says: (status, body), or None for never."""

    def __init__(self) -> None:
        self.answer: Callable[[str, dict[str, list[str]]], tuple[int, bytes] | None] = lambda *_: (200, b"")
        self.ended = threading.Event()
        self.key = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if self.headers.get("X-Key", "") != outer.key:
                    self.send_error(401)
                    return
                found = outer.answer(parts.path, parse_qs(parts.query))
                if found is None:
                    outer.ended.wait(20)
                    return
                self.send_response(found[0])
                self.end_headers()
                self.wfile.write(found[1])

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(monitor, "EVERY_S", 0.05)
    monkeypatch.setattr(monitor, "ANSWER_WITHIN_S", 0.5)
    one = Server()
    yield one
    one.ended.set()
    one.server.shutdown()
    one.thread.join()
    one.server.server_close()


def holds(polled: PolledCondition) -> str:
    assert wait_for(lambda: bool(polled.why(None, 0.0)), within_s=10)
    return polled.why(None, 0.0)


def test_a_healthy_url_lets_the_trial_go_on_until_it_is_not(server: Server) -> None:
    polled = PolledCondition(AbortIf(health_url=f"{server.url}/health"))
    assert wait_for(lambda: polled.answered, within_s=10)
    assert polled.why(None, 0.0) == ""
    server.answer = lambda *_: (503, b"")
    assert "/health answers 503, not 200" in holds(polled)


def test_a_redirect_is_not_health(server: Server) -> None:
    server.answer = lambda *_: (302, b"")
    assert "answers 302" in holds(PolledCondition(AbortIf(health_url=server.url)))
    assert "answers 302" not in str(PolledCondition(AbortIf(health_url=server.url, status=302)).why(None, 0.0))


def test_a_server_that_hangs_is_no_answer(server: Server) -> None:
    server.answer = lambda *_: None
    assert "answer" in holds(PolledCondition(AbortIf(health_url=server.url)))


def test_a_refused_connection_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "does not answer: ConnectError" in holds(
        PolledCondition(AbortIf(health_url=f"http://127.0.0.1:{port}"))
    )


@pytest.mark.usefixtures("server")
def test_a_server_that_trickles_is_no_answer() -> None:
    """Each byte comes in time, and the answer never."""
    ended = threading.Event()

    def trickle() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not ended.wait(0.1):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            assert "has not answered for" in holds(PolledCondition(AbortIf(prometheus=url, query="up", above=1)))
        finally:
            ended.set()
            thread.join()


def test_prometheus_is_asked_as_its_api_is_documented(server: Server) -> None:
    asked_for: list[tuple[str, dict[str, list[str]]]] = []

    def answer(path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        asked_for.append((path, query))
        value = {"metric": {"job": "api"}, "value": [1435781451.781, "0.25"]}
        return 200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": [value]}}).encode()

    server.answer = answer
    query = 'sum(rate(errors{job="api"}[1m])) > bool 0'
    polled = PolledCondition(AbortIf(prometheus=f"{server.url}/", query=query, above=0.5))
    assert wait_for(lambda: polled.answered, within_s=10)
    assert polled.why(None, 0.0) == ""
    assert asked_for[0] == ("/api/v1/query", {"query": [query]})
    assert "0.25 is below 0.5" in holds(PolledCondition(AbortIf(prometheus=server.url, query=query, below=0.5)))


def test_requests_carry_the_conditions_headers(server: Server) -> None:
    server.key = "right"
    server.answer = lambda path, _: (200, UP if path.endswith("query") else b"")
    with_key = {"headers": {"X-Key": "right"}}
    polled = [
        PolledCondition(AbortIf(health_url=server.url, **with_key)),
        PolledCondition(AbortIf(prometheus=server.url, query="up", below=1, **with_key)),
    ]
    assert wait_for(lambda: all(one.answered for one in polled), within_s=10)
    assert [one.why(None, 0.0) for one in polled] == ["", ""]
    assert "answers 401, not 200" in holds(
        PolledCondition(AbortIf(health_url=server.url, headers={"X-Key": "wrong"}))
    )
    assert "answers 401" in holds(PolledCondition(AbortIf(prometheus=server.url, query="up", below=1)))


def test_an_endless_answer_is_cut_off(server: Server) -> None:
    server.answer = lambda *_: (200, b" " * (2 * 1024 * 1024))
    assert "more than 1048576 bytes" in holds(PolledCondition(AbortIf(prometheus=server.url, query="up", above=1)))
