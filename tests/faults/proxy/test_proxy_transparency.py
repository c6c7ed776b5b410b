"""Without a toxic the proxy passes every byte on, and with one it still knows where each message ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from fault_world import read_exactly
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monkeyproof.clock import wait_for
from monkeyproof.faults.proxy.toxics.http_error import HttpError
from monkeyproof.targets.port import Toxic

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BODIES = st.one_of(
    st.none(),
    st.binary(max_size=300),
    st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n" * 3, b"\r\n" * 9, b"x" * 70_000]),
)


def chunked(body: bytes, sizes: list[int], trailer: bool) -> bytes:
    parts = []
    for size in sizes:
        part, body = body[:size], body[size:]
        if part:
            parts.append(b"%x\r\n%b\r\n" % (len(part), part))
    if body:
        parts.append(b"%X;ext=1\r\n%b\r\n" % (len(body), body))
    return b"".join(parts) + b"0\r\n" + (b"X-Trailer: 1\r\n" if trailer else b"") + b"\r\n"


@st.composite
def messages(draw: st.DrawFn, start_line: bytes) -> bytes:
    """A request or response: no body, a counted one, or a chunked one."""
    body = draw(BODIES)
    if body is None:
        tail = b"" if start_line.endswith(b"HTTP/1.1") else b"Content-Length: 0\r\n"
        return start_line + b"\r\nHost: x\r\n" + tail + b"\r\n"
    if draw(st.booleans()):
        return start_line + b"\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    sizes = draw(st.lists(st.integers(1, 50), max_size=4))
    return start_line + b"\r\ntransfer-encoding:chunked\r\n\r\n" + chunked(body, sizes, draw(st.booleans()))


EXCHANGES = st.lists(
    st.tuples(messages(b"POST /a HTTP/1.1"), messages(b"HTTP/1.1 200 OK")), min_size=1, max_size=8
)
CUTS = st.lists(st.integers(1, 400), max_size=12)


def send_cut(connection: socket.socket, data: bytes, cuts: list[int]) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for cut in cuts:
        connection.sendall(data[:cut])
        data = data[cut:]
    connection.sendall(data)


def exchange(proxy, server, link, request, response, expected_request, cuts, answer_cuts, expect_bytes):
    """Send ``request``; the server waits for what it should see, and answers; returns what each side saw."""
    seen: list[bytes] = []
    done, answered = threading.Event(), threading.Event()

    def handler(connection: socket.socket) -> None:
        seen.append(read_exactly(connection, len(expected_request)))
        send_cut(connection, response, answer_cuts)
        # Not before: behind a server's end of file the proxy cannot give an answer of its own.
        answered.wait(10)
        connection.shutdown(socket.SHUT_WR)
        seen.append(connection.recv(1 << 16))  # Nothing more, then end-of-file.
        done.set()

    server.handler = handler
    with proxy.connect(link) as client:
        sender = threading.Thread(target=send_cut, args=(client, request, cuts))
        sender.start()
        got = read_exactly(client, expect_bytes)
        answered.set()
        sender.join()
        client.shutdown(socket.SHUT_WR)
        got += client.recv(1 << 16) if expected_request else b""
    if expected_request:
        assert done.wait(10)
    return b"".join(seen), got


@SETTINGS
@given(EXCHANGES, CUTS, CUTS, st.sampled_from(["web", "raw"]))
def test_pipelined_messages_arrive_byte_for_byte(proxy, server, exchanges, cuts, answer_cuts, link):
    requests = b"".join(request for request, _ in exchanges)
    responses = b"".join(response for _, response in exchanges)
    saw, got = exchange(proxy, server, link, requests, responses, requests, cuts, answer_cuts, len(responses))
    assert saw == requests
    assert got == responses


@SETTINGS
@given(EXCHANGES, CUTS, CUTS, st.integers(0, 2**63))
def test_failed_requests_are_cut_out_whole_and_answered_in_turn(proxy, server, exchanges, cuts, answer_cuts, seed):
    error = HttpError(probability=0.5, status=503, seed=seed)
    toxic_id = proxy.links.add(Toxic("web", "http_error", {"probability": 0.5, "status": 503, "seed": seed}))
    failed = [error.hits(n) for n in range(len(exchanges))]
    answer = (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 24\r\n"
        b"Connection: keep-alive\r\n\r\n503 Service Unavailable\n"
    )
    requests = b"".join(request for request, _ in exchanges)
    forwarded = b"".join(request for (request, _), fails in zip(exchanges, failed, strict=True) if not fails)
    responses = b"".join(response for (_, response), fails in zip(exchanges, failed, strict=True) if not fails)
    expected = b"".join(
        answer if fails else response for (_, response), fails in zip(exchanges, failed, strict=True)
    )
    try:
        saw, got = exchange(proxy, server, "web", requests, responses, forwarded, cuts, answer_cuts, len(expected))
        stats = proxy.links.stats(toxic_id)
    finally:
        # Left on, it would fail every example after the first that fails, ten seconds each.
        proxy.links.remove(toxic_id)
    assert saw == forwarded
    assert got == expected
    assert stats["seen"] == len(exchanges)
    assert stats["affected"] == sum(failed)


def test_bodies_of_8_mb_pass_both_ways_at_once(proxy, server):
    count, size = 8, 8 << 20

    def handler(connection: socket.socket) -> None:
        for _ in range(2):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            body = read_exactly(connection, size)
            digest = hashlib.sha256(body).hexdigest().encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n"
                + digest
                + b"\r\n"
                + b"%x\r\n" % size
            )
            connection.sendall(body)
            connection.sendall(b"\r\n0\r\n\r\n")

    server.handler = handler
    wrong: list[str] = []

    def client(link: str) -> None:
        body = os.urandom(size)
        with proxy.connect(link) as connection:
            for _ in range(2):
                connection.sendall(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + body)
                digest = hashlib.sha256(body).hexdigest().encode()
                expected = (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n"
                    + digest
                    + b"\r\n"
                    + b"%x\r\n" % size
                    + body
                    + b"\r\n0\r\n\r\n"
                )
                if read_exactly(connection, len(expected)) != expected:
                    wrong.append(link)

    threads = [threading.Thread(target=client, args=("web" if n % 2 else "raw",)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("link", ["web", "raw"])
def test_a_slow_server_is_not_buffered_for(proxy, server, link):
    """Backpressure: the sender is stopped, and the proxy's memory stays small."""
    go = threading.Event()
    size = 64 << 20
    received: list[int] = []

    def handler(connection: socket.socket) -> None:
        go.wait(20)
        received.append(len(read_exactly(connection, size)))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server.handler = handler
    before_kb = resident_kb(proxy.pid)
    with proxy.connect(link) as client:
        head = b"POST / HTTP/1.1\r\nContent-Length: %08d\r\n\r\n"
        head %= size - len(head % 0)
        client.sendall(head)
        client.setblocking(False)
        sent, block = len(head), b"y" * (1 << 20)

        def stuck() -> bool:
            nonlocal sent
            try:
                sent += client.send(block)
            except BlockingIOError:
                return True
            return False

        assert wait_for(stuck, within_s=10, every_s=0)
        assert sent < size / 2
        assert resident_kb(proxy.pid) - before_kb < 20_000
        go.set()
        client.settimeout(10)
        client.sendall(b"z" * (size - sent))
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert received == [size]


def resident_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


async def _echo(scope, receive, send) -> None:
    """Answers with what it was sent, in chunks if the path says so."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [] if scope["path"] == "/chunked" else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for at in range(0, len(body), 5000):
        await send({"type": "http.response.body", "body": body[at : at + 5000], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("toxic", [None, "latency", "http_error"])
def test_many_kept_alive_clients_of_a_real_server(start_proxy, toxic):
    listening = socket.create_server(("127.0.0.1", 0))
    application = uvicorn.Server(uvicorn.Config(_echo, http="httptools", log_level="error", lifespan="off"))
    thread = threading.Thread(target=application.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    running = start_proxy({"web": (listening.getsockname()[1], "http")})
    if toxic == "latency":
        running.links.add(Toxic("web", "latency", {"low_ms": 0, "high_ms": 5, "seed": 1}))
    if toxic == "http_error":
        running.links.add(Toxic("web", "http_error", {"probability": 0.3, "status": 503, "seed": 1}))
    statuses: list[int] = []
    wrong: list[str] = []

    async def user(client: httpx.AsyncClient, number: int) -> None:
        rng = random.Random(number)
        for _ in range(25):
            body = rng.randbytes(rng.choice([0, 10, 3000, 100_000]))

            async def parts(body: bytes = body) -> AsyncIterator[bytes]:
                for at in range(0, len(body), 7000):
                    yield body[at : at + 7000]

            path = rng.choice(["/chunked", "/counted"])
            answer = await client.post(path, content=rng.choice([body, parts()]))
            statuses.append(answer.status_code)
            if answer.status_code == 200 and answer.content != body:
                wrong.append(f"{path} {len(body)}")

    async def users() -> None:
        base = "http://{}:{}".format(*running.addresses["web"])
        async with httpx.AsyncClient(base_url=base, timeout=20) as client:
            await asyncio.gather(*(user(client, number) for number in range(12)))

    try:
        asyncio.run(users())
    finally:
        application.should_exit = True
        thread.join(10)
        listening.close()
    assert wrong == []
    assert len(statuses) == 300
    failed = statuses.count(503)
    assert failed == 300 - statuses.count(200)
    assert 50 < failed < 140 if toxic == "http_error" else failed == 0
