"""Toxics that act on HTTP messages: on request 2 and later of kept-alive connections, pipelined, chunked."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up; stand-ins ignore arguments)

from __future__ import annotations

import errno
import http.client
import json
import socket
import threading
import time

import pytest
from fault_world import OK, Browser, add, in_background, pending, read_exactly

from monkeyproof.clock import wait_for
from monkeyproof.faults.proxy.http.messages import without_headers
from monkeyproof.faults.proxy.toxics.corrupt_json import CorruptJson
from monkeyproof.faults.proxy.toxics.drop_headers import DropHeaders
from monkeyproof.faults.proxy.toxics.http_error import HttpError
from monkeyproof.faults.proxy.toxics.latency import Latency
from monkeyproof.faults.proxy.toxics.truncate import Truncate

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-A: 1\r\n"


def counted(body: bytes, head: bytes = JSON_HEAD) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, head: bytes = JSON_HEAD) -> bytes:
    half = len(body) // 2
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"


# Latency of answers.


def test_answers_are_held_after_the_server_gave_them(proxy, browser, web):
    toxic_id = add(proxy, "latency", low_ms=60_000, high_ms=60_000, seed=1, direction="response")
    answer = in_background(lambda: browser.ask("/done", body=b"order"))
    assert wait_for(lambda: pending(proxy, toxic_id), within_s=5)
    assert web.saw[-1] == ("/done", b"order")
    started_s = time.monotonic()
    proxy.links.remove(toxic_id)
    assert answer() == (200, b"ok")
    assert time.monotonic() - started_s < 1


@pytest.mark.parametrize("distribution", ["constant", "normal", "lognormal", "pareto"])
def test_each_answer_is_held_once_for_its_own_time(proxy, browser, web, distribution):
    more = {"jitter_ms": 10} if "normal" in distribution else {}
    parameters = {
        "low_ms": 5,
        "high_ms": 60,
        "seed": 4,
        "direction": "response",
        "distribution": distribution,
        "mean_ms": 20,
        **more,
    }
    toxic_id = add(proxy, "latency", **parameters)
    latency = Latency(**parameters)
    web.answer = lambda path: chunked(b"x" * 40_000) if path == "/long" else OK
    for n in range(5):
        took_ms = browser.timed_ms("/long" if n % 2 else "/short")
        assert latency.delay_ms(n) <= took_ms < latency.delay_ms(n) + 200
    stats = proxy.links.stats(toxic_id)
    assert stats["affected"] == stats["seen"] == 5


def test_pipelined_answers_stay_in_order(proxy, web):
    add(proxy, "latency", low_ms=5, high_ms=60, seed=1, direction="response")
    web.answer = lambda path: counted(path.encode())
    with proxy.connect("web") as client:
        client.sendall(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % n for n in range(10)))
        expected = b"".join(counted(b"/%d" % n) for n in range(10))
        assert read_exactly(client, len(expected)) == expected


def test_a_streamed_answer_is_delayed_at_its_head_and_keeps_its_gaps(proxy, server):
    go = [threading.Event() for _ in range(2)]
    first = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"

    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(first)
        for one in go:
            one.wait(10)
            connection.sendall(b"1\r\nb\r\n")
        connection.sendall(b"0\r\n\r\n")

    server.handler = handler
    toxic_id = add(proxy, "latency", low_ms=250, high_ms=250, seed=1, direction="response")
    with proxy.connect("web") as client:
        started_s = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_exactly(client, len(first)) == first
        assert time.monotonic() - started_s >= 0.25
        # What comes later comes at once, not another delay later and not with the rest.
        for one in go:
            one.set()
            asked_s = time.monotonic()
            assert read_exactly(client, 6) == b"1\r\nb\r\n"
            assert time.monotonic() - asked_s < 0.2
    assert proxy.links.stats(toxic_id)["affected"] == 1


def test_an_answer_is_delayed_once_though_an_interim_one_came_before(proxy, server):
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"

    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(interim)
        time.sleep(0.02)
        connection.sendall(final)

    server.handler = handler
    toxic_id = add(proxy, "latency", low_ms=50, high_ms=50, seed=1, direction="response")
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_exactly(client, len(interim + final)) == interim + final
    assert proxy.links.stats(toxic_id)["affected"] == 1


@pytest.mark.parametrize("direction", ["request", "response"])
def test_a_delayed_upgrade_is_a_tunnel_in_order(proxy, server, direction):
    request = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def handler(connection: socket.socket) -> None:
        read_exactly(connection, len(request))
        connection.sendall(answer + b"first")
        connection.sendall(connection.recv(100))

    server.handler = handler
    add(proxy, "latency", low_ms=40, high_ms=40, seed=1, direction=direction)
    with proxy.connect("web") as client:
        started_s = time.monotonic()
        client.sendall(request)
        assert read_exactly(client, len(answer) + 5) == answer + b"first"
        assert time.monotonic() - started_s >= 0.04
        client.sendall(b"frame")
        client.shutdown(socket.SHUT_WR)
        assert read_exactly(client, 100) == b"frame"


# Refusals.


def test_requests_beyond_the_rate_are_refused_with_retry_after(proxy, browser, web):
    toxic_id = add(proxy, "rate_limit", limit_per_s=20.0, burst=3, retry_after_s=1.5)
    statuses = [browser.ask(f"/{n}")[0] for n in range(6)]
    assert statuses[:3] == [200] * 3
    assert 429 in statuses[3:]
    assert browser.headers.get("Retry-After", "2") == "2"
    # The bucket fills up again, and ours are counted apart.
    assert wait_for(lambda: browser.ask("/again")[0] == 200, within_s=2)
    assert browser.ask("/own", headers={"X-Monkeyproof": "evidence"})[0] == 200
    stats = proxy.links.stats(toxic_id)
    assert stats["seen"] == len(web.saw) - 2 + stats["affected"]  # Less /first and /own.
    assert (stats["own_seen"], stats["own_affected"]) == (1, 0)


def test_the_rate_holds_over_time_and_connections(proxy, web):
    add(proxy, "rate_limit", limit_per_s=50.0, burst=1)
    browsers = [Browser(proxy) for _ in range(3)]
    started_s = time.monotonic()
    passed = 0
    while (took_s := time.monotonic() - started_s) < 0.6:
        passed += sum(browser.ask()[0] == 200 for browser in browsers)
    assert 0.5 * 50 * took_s < passed <= 50 * (took_s + 0.1) + 1
    assert passed == len(web.saw)


def test_refusal_by_chance_can_be_429(proxy, browser):
    error = HttpError(probability=0.5, status=429, seed=3, retry_after_s=7)
    add(proxy, "http_error", probability=0.5, status=429, seed=3, retry_after_s=7)
    for n in range(10):
        status, _ = browser.ask()
        assert (status == 429) == error.hits(n)
        assert browser.headers.get("Retry-After") == ("7" if status == 429 else None)


# Answers that are cut off.


@pytest.mark.parametrize(("keep_bytes", "arrives"), [(0, 0), (7, 7), (100_000, 999)])
def test_an_answer_is_cut_off_and_the_connection_closed(proxy, browser, web, keep_bytes, arrives):
    body = bytes(1000)
    web.answer = lambda _: counted(body)
    toxic_id = add(proxy, "truncate", seed=1, keep_bytes=keep_bytes)
    with pytest.raises(http.client.IncompleteRead) as cut:
        browser.ask("/cut")
    assert cut.value.partial == body[:arrives]
    assert proxy.links.stats(toxic_id)["affected"] == 1
    proxy.links.remove(toxic_id)
    assert Browser(proxy).ask("/whole") == (200, body)


def test_a_chunked_answer_is_cut_off_before_its_end(proxy, browser, web):
    web.answer = lambda _: chunked(b"y" * 3000)
    add(proxy, "truncate", seed=1, keep_bytes=100_000)
    with pytest.raises(http.client.IncompleteRead):
        browser.ask("/cut")


def test_a_body_that_ends_with_the_connection_is_shorter(proxy, server):
    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"z" * 100)

    server.handler = handler
    toxic_id = add(proxy, "truncate", seed=1, keep_bytes=1000)
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_exactly(client, 1000) == b"HTTP/1.0 200 OK\r\n\r\n" + b"z" * 84
    assert proxy.links.stats(toxic_id)["affected"] == 1


def test_only_chosen_responses_are_cut_off(proxy, web):
    """Pipelined: the answers before the one that is cut arrive, those after it do not."""
    toxic = Truncate(seed=5, share=0.3)
    first = next(n for n in range(100) if toxic.hits(n))
    assert first > 1
    add(proxy, "truncate", seed=5, share=0.3)
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n" * (first + 3))
        assert read_exactly(client, 10_000) == OK * first + OK[:-2]
    assert len(web.saw) >= first + 1


def test_answers_without_a_body_cannot_be_cut_off(proxy, browser, web):
    web.answer = lambda _: b"HTTP/1.1 204 No Content\r\n\r\n"
    toxic_id = add(proxy, "truncate", seed=1)
    assert browser.ask("/empty") == (204, b"")
    assert proxy.links.stats(toxic_id)["skipped"] == 1
    assert proxy.links.stats(toxic_id)["affected"] == 0


# Garbled answers.


@pytest.mark.parametrize("framed", [counted, chunked])
def test_a_corrupted_answer_is_framed_well_and_is_not_json(proxy, browser, web, framed):
    body = json.dumps({"predictions": [0.25, 1], "model": "m"}).encode()
    web.answer = lambda _: framed(body)
    toxic_id = add(proxy, "corrupt_json", seed=2)
    for _ in range(5):
        status, got = browser.ask("/corrupted")
        assert status == 200
        assert browser.headers["X-A"] == "1"
        with pytest.raises(ValueError, match=r"Expecting|control|delimiter|Unterminated"):
            json.loads(got)
    proxy.links.remove(toxic_id)
    assert browser.ask("/whole") == (200, body)


def test_a_changed_answer_is_json_with_another_number(proxy, browser, web):
    message = {"predictions": [0, 1, 2], "scores": {"a": 0.5}, "ok": True, "name": "x"}
    web.answer = lambda _: counted(json.dumps(message).encode())
    toxic_id = add(proxy, "corrupt_json", seed=2, mode="changed", share=0.5)
    toxic = CorruptJson(seed=2, mode="changed", share=0.5)
    seen = set()
    for n in range(20):
        got = json.loads(browser.ask()[1])
        assert (got != message) == toxic.hits(n)
        assert (got["ok"], got["name"]) == (True, "x")
        seen.add(json.dumps(got))
        numbers = zip([*got["predictions"], got["scores"]["a"]], [0, 1, 2, 0.5], strict=True)
        assert sum(new - old for new, old in numbers) == (1 if toxic.hits(n) else 0)
    assert len(seen) > 2
    assert proxy.links.stats(toxic_id)["affected"] == sum(toxic.hits(n) for n in range(20))


def test_without_numbers_a_truth_value_changes(proxy, browser, web):
    answers = {"/truth": b'{"fraud": false}', "/words": b'{"a": "b"}', "/first": b"ok"}
    web.answer = lambda path: counted(answers[path])
    toxic_id = add(proxy, "corrupt_json", seed=2, mode="changed")
    assert browser.ask("/truth")[1] == b'{"fraud":true}'
    assert browser.ask("/words")[1] == answers["/words"]
    stats = proxy.links.stats(toxic_id)
    assert (stats["affected"], stats["skipped"]) == (1, 1)


def test_what_is_not_json_is_not_corrupted(proxy, browser, web):
    toxic_id = add(proxy, "corrupt_json", seed=2)
    assert browser.ask("/text") == (200, b"ok")
    assert proxy.links.stats(toxic_id)["skipped"] == 1


def test_removing_a_toxic_releases_the_response_it_collects(proxy, server):
    first, rest = counted(b"[1, 2, 3]")[:-4], b", 3]"
    toxic: list[str] = []

    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(first)
        assert wait_for(lambda: proxy.links.stats(toxic[0])["pending"] == 1, within_s=5)
        proxy.links.remove(toxic[0])
        connection.sendall(rest)

    server.handler = handler
    toxic.append(add(proxy, "corrupt_json", seed=1))
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_exactly(client, len(first + rest)) == first + rest


# Lost headers.


def test_named_headers_of_answers_go_missing(proxy, browser, web):
    web.answer = lambda _: counted(b"{}", JSON_HEAD + b"x-b: 2\r\nETag: 3\r\n")
    toxic = DropHeaders(names="X-A, etag", seed=1, share=0.5)
    toxic_id = add(proxy, "drop_headers", names="X-A, etag", seed=1, share=0.5)
    for n in range(12):
        assert browser.ask() == (200, b"{}")
        assert ("X-A" in browser.headers, "ETag" in browser.headers) == ((not toxic.hits(n),) * 2)
        assert browser.headers["Content-Type"] == "application/json"
    assert proxy.links.stats(toxic_id)["affected"] == sum(toxic.hits(n) for n in range(12))


def test_named_headers_of_requests_go_missing(proxy, browser, server, asked):
    """Request 2 and later of a kept-alive connection, with bodies, pipelined."""
    toxic_id = add(proxy, "drop_headers", names="authorization", seed=1, direction="request")
    with proxy.connect("web") as client:
        request = b"GET /a HTTP/1.1\r\nAuthorization: secret\r\nHost: h\r\n\r\n"
        client.sendall(request * 2 + b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_exactly(client, 3 * 40).count(b"200 OK") == 3
    expected = [b"GET /a HTTP/1.1\r\nHost: h\r\n"] * 2 + [b"GET /b HTTP/1.1\r\nHost: h\r\n"]
    assert asked[-3:] == expected
    stats = proxy.links.stats(toxic_id)
    assert (stats["affected"], stats["skipped"]) == (2, 1)


def test_a_header_is_left_out_with_the_lines_that_belong_to_it():
    piece = b"\r\nHTTP/1.1 200 OK\r\nX-A: 1,\r\n\t2\r\nX-AB: 3\r\nX-A: 4\r\n\r\nX-A: body"
    without = b"HTTP/1.1 200 OK\r\nX-AB: 3\r\n\r\nX-A: body"
    assert without_headers(piece, frozenset({"x-a"})) == without
    assert without_headers(piece, frozenset({"x-c"})) is piece


# Together.


def test_a_refusal_after_the_server_closed_ends_in_a_reset(proxy, server):
    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(OK)

    server.handler = handler
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_exactly(client, 1000) == OK
        add(proxy, "http_error", probability=1, status=503, seed=1)
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert wait_for(lambda: _is_reset(client), within_s=5)
    assert "Traceback" not in proxy.log.read_text()


def _is_reset(client: socket.socket) -> bool:
    # After an end, a reset shows as a broken pipe.
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE


def test_a_refusal_takes_its_turn_behind_an_answer_that_is_held(proxy, web):
    seed = next(
        seed
        for seed in range(99)
        if [HttpError(probability=0.5, status=503, seed=seed).hits(n) for n in (0, 1)] == [False, True]
    )
    add(proxy, "http_error", probability=0.5, status=503, seed=seed)
    latency = add(proxy, "latency", low_ms=60_000, high_ms=60_000, seed=1, direction="response")
    with proxy.connect("web") as client:
        client.sendall(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert wait_for(lambda: pending(proxy, latency), within_s=5)
        proxy.links.remove(latency)
        got = read_exactly(client, 10_000)
    assert got.startswith(OK + b"HTTP/1.1 503 ")
    assert got.endswith(b"503 Service Unavailable\n")
