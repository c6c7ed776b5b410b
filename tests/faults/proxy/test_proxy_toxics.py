"""Every toxic on a live, kept-alive connection, and what becomes of what it holds when it goes."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up; stand-ins ignore arguments)

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time

import pytest
from fault_world import OK, Browser, add, in_background, pending

from monkeyproof.clock import wait_for
from monkeyproof.faults.proxy.toxics.latency import Latency

# Latency.


def test_latency_holds_each_request_of_a_live_connection_once(proxy, browser, web):
    toxic_id = add(proxy, "latency", low_ms=30, high_ms=50, seed=7)
    latency = Latency(low_ms=30, high_ms=50, seed=7)
    for n in range(8):
        took_ms = browser.timed_ms("/x", body=b"b" * 200_000 if n % 2 else None)
        assert latency.delay_ms(n) <= took_ms < latency.delay_ms(n) + 60
    stats = proxy.links.stats(toxic_id)
    assert stats["affected"] == stats["seen"] == 8
    assert stats["pending"] == 0
    assert 30 <= stats["delay_min_ms"] <= stats["delayed_ms_total"] / 8
    assert proxy.links.remove(toxic_id)
    assert browser.timed_ms("/y") < 25
    assert all(len(body) in (0, 200_000) for _, body in web.saw)


def test_no_delay_is_ever_short(proxy, browser):
    toxic_id = add(proxy, "latency", low_ms=0.2, high_ms=6, seed=3)
    latency = Latency(low_ms=0.2, high_ms=6, seed=3)
    early = [n for n in range(150) if browser.timed_ms() < latency.delay_ms(n)]
    assert early == []
    assert proxy.links.stats(toxic_id)["delay_min_ms"] >= 0.2


def test_pipelined_requests_wait_at_the_same_time_and_stay_in_order(proxy, web):
    add(proxy, "latency", low_ms=40, high_ms=80, seed=1)
    with proxy.connect("web") as client:
        started_s = time.monotonic()
        client.sendall(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % n for n in range(20)))
        got = b""
        while len(got) < 20 * len(OK):
            got += client.recv(1 << 16)
        assert time.monotonic() - started_s < 0.3  # Not 20 times 60 ms.
    assert [path for path, _ in web.saw] == [f"/{n}" for n in range(20)]


def test_the_share_and_the_own_requests_have_their_own_randomness(proxy, browser):
    """Proving a fault must not shift which of the users' requests it hits."""
    latency = Latency(low_ms=15, high_ms=15, seed=9, share=0.5)
    toxic_id = add(proxy, "latency", low_ms=15, high_ms=15, seed=9, share=0.5)
    hit = []
    for _ in range(20):
        browser.ask("/own", headers={"X-Monkeyproof": "evidence"})
        hit.append(browser.timed_ms() >= 15)
    assert hit == [latency.delay_ms(n) is not None for n in range(20)]
    stats = proxy.links.stats(toxic_id)
    assert (stats["seen"], stats["own_seen"]) == (20, 20)
    assert stats["affected"] == sum(hit)
    assert stats["own_affected"] == sum(latency.delay_ms(n, own=True) is not None for n in range(20))


def test_tcp_chunks_are_held_in_order_and_not_dropped(proxy, server):
    def echo(connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    server.handler = echo
    with proxy.connect("raw") as client:
        client.sendall(b"warm")
        assert client.recv(10) == b"warm"
        toxic_id = add(proxy, "latency", link="raw", low_ms=20, high_ms=60, seed=4)
        started_s = time.monotonic()
        for n in range(10):
            client.sendall(b"%04d" % n)
            time.sleep(0.003)  # So that most of them arrive as chunks of their own.
        client.shutdown(socket.SHUT_WR)
        got = b""
        while data := client.recv(100):
            got += data
    assert got == b"".join(b"%04d" % n for n in range(10))
    assert time.monotonic() - started_s >= 0.02
    assert proxy.links.stats(toxic_id)["affected"] >= 2


def test_removing_a_latency_forwards_what_it_held(proxy, browser, web):
    toxic_id = add(proxy, "latency", low_ms=60_000, high_ms=60_000, seed=1)
    body = os.urandom(300_000)
    answer = in_background(lambda: browser.ask("/held", body=body))
    assert wait_for(lambda: pending(proxy, toxic_id), within_s=5)
    started_s = time.monotonic()
    assert proxy.links.remove(toxic_id)
    assert answer() == (200, b"ok")
    assert time.monotonic() - started_s < 1
    assert web.saw[-1] == ("/held", body)
    assert browser.ask("/after") == (200, b"ok")


def test_a_client_that_gives_up_takes_its_request_along(proxy, web):
    toxic_id = add(proxy, "latency", low_ms=60_000, high_ms=60_000, seed=1)
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert wait_for(lambda: pending(proxy, toxic_id), within_s=5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert wait_for(lambda: proxy.links.stats(toxic_id)["pending"] == 0, within_s=5)
    assert proxy.links.stats(toxic_id)["affected"] == 0
    assert web.saw == []


# Errors.


def test_http_error_answers_and_keeps_the_connection(proxy, browser, web):
    toxic_id = add(proxy, "http_error", probability=1, status=503, seed=1, retry_after_s=2)
    assert browser.ask("/gone", body=b"x" * 1_000_000)[0] == 503
    assert browser.headers["Retry-After"] == "2"
    assert "X-Monkeyproof" not in browser.headers
    assert browser.ask("/gone")[0] == 503
    assert browser.ask("/gone", method="HEAD") == (503, b"")
    assert browser.ask("/gone")[0] == 503
    assert proxy.links.stats(toxic_id)["affected"] == 4
    proxy.links.remove(toxic_id)
    assert browser.ask("/back") == (200, b"ok")
    assert [path for path, _ in web.saw] == ["/first", "/back"]


def test_http_error_needs_no_server(start_proxy):
    with socket.create_server(("127.0.0.1", 0)) as dead:
        port = dead.getsockname()[1]
    running = start_proxy({"dead": (port, "http")})
    add(running, "http_error", link="dead", probability=1, status=500, seed=1)
    assert Browser(running, "dead").ask("/")[0] == 500


def test_a_refused_body_is_not_waited_for(proxy, web):
    add(proxy, "http_error", probability=1, status=503, seed=1)
    with proxy.connect("web") as client:
        client.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        answer = b""
        while data := client.recv(1000):
            answer += data
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: close" in answer


def test_the_same_seed_fails_the_same_requests(proxy, browser):
    patterns = []
    for _ in range(2):
        toxic_id = add(proxy, "http_error", probability=0.3, status=503, seed=42)
        patterns.append([browser.ask()[0] for _ in range(60)])
        proxy.links.remove(toxic_id)
    assert patterns[0] == patterns[1]
    assert 5 < patterns[0].count(503) < 35


# Down.


@pytest.mark.parametrize(
    ("mode", "error"), [("reset", ConnectionResetError), ("refuse-like", ConnectionRefusedError)]
)
@pytest.mark.parametrize("link", ["web", "raw"])
def test_down_breaks_live_connections_and_new_ones(proxy, browser, web, link, mode, error):
    other = Browser(proxy, link)
    assert other.ask() == (200, b"ok")
    toxic_id = add(proxy, "down", link=link, mode=mode)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        other.ask()
    for _ in range(3):
        with pytest.raises(error), proxy.connect(link) as client:
            client.recv(1)
    stats = proxy.links.stats(toxic_id)
    assert stats["live_connections"] >= 1
    assert stats["new_connections"] == (3 if mode == "reset" else 0)
    assert stats["affected"] == stats["live_connections"] + stats["new_connections"]
    assert proxy.links.remove(toxic_id)
    assert Browser(proxy, link).ask() == (200, b"ok")


def test_down_ends_a_request_that_is_held(proxy, browser, web):
    add(proxy, "latency", low_ms=60_000, high_ms=60_000, seed=1)
    latency_id = proxy.links.active()[0]

    def ask():
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            return browser.ask("/held")
        return "broken"

    answer = in_background(ask)
    assert wait_for(lambda: pending(proxy, latency_id), within_s=5)
    add(proxy, "down")
    assert answer() == "broken"
    assert proxy.links.stats(latency_id)["pending"] == 0
    assert [path for path, _ in web.saw] == ["/first"]


# Hang.


@pytest.mark.parametrize("link", ["web", "raw"])
def test_hang_holds_live_and_new_connections_and_then_lets_go(proxy, web, link):
    live = Browser(proxy, link)
    assert live.ask() == (200, b"ok")
    toxic_id = add(proxy, "hang", link=link)
    body = os.urandom(100_000)
    answers = [in_background(lambda: live.ask("/live", body=body))]
    fresh = Browser(proxy, link)
    answers.append(in_background(lambda: fresh.ask("/fresh", body=body)))
    assert wait_for(lambda: proxy.links.stats(toxic_id)["affected"] == 2, within_s=5)
    assert proxy.links.stats(toxic_id)["waiting_bytes"] > 1000
    assert len(web.saw) == 1
    assert proxy.links.remove(toxic_id)
    assert [answer() for answer in answers] == [(200, b"ok")] * 2
    assert sorted(web.saw[1:]) == [("/fresh", body), ("/live", body)]


def test_hang_holds_back_an_answer_that_is_on_its_way(proxy, web):
    asked, go = threading.Event(), threading.Event()

    def slow(path: str) -> bytes:
        if path == "/slow":
            asked.set()
            go.wait(10)
        return OK

    web.answer = slow
    browser = Browser(proxy)
    assert browser.ask() == (200, b"ok")
    answer = in_background(lambda: browser.ask("/slow"))
    assert asked.wait(5)
    toxic_id = add(proxy, "hang")
    go.set()
    assert wait_for(lambda: proxy.links.stats(toxic_id)["waiting_bytes"] == len(OK), within_s=5)
    proxy.links.remove(toxic_id)
    assert answer() == (200, b"ok")
