"""Odd but legal HTTP, what is not HTTP at all, and how connections end: the relay must not lose count or bytes."""

from __future__ import annotations

import socket

import pytest
from fault_world import read_exactly

from monkeyproof.targets.port import Toxic


def scripted(server, steps):
    """Have the server read exactly and answer, step by step, on one connection; returns what it saw."""
    saw: list[bytes] = []

    def handler(connection: socket.socket) -> None:
        for expected, answer in steps:
            saw.append(read_exactly(connection, len(expected)))
            connection.sendall(answer)
        saw.append(connection.recv(1000))

    server.handler = handler
    return saw


def test_responses_without_bodies_keep_the_count(proxy, server):
    """HEAD, 204, 304 and interim responses: each later request must still be told apart."""
    steps = [
        (b"HEAD /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
        (b"GET /b HTTP/1.1\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET /c HTTP/1.1\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n"),
        (
            b"GET /d HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        ),
        (b"HEAD /e HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"GET /f HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nf"),
    ]
    scripted(server, steps)
    toxic_id = proxy.links.add(Toxic("web", "latency", {"low_ms": 1, "high_ms": 2, "seed": 1}))
    with proxy.connect("web") as client:
        for request, answer in steps:
            client.sendall(request)
            assert read_exactly(client, len(answer)) == answer
        # Now one that the proxy answers: it comes at once if nothing before is thought to be unanswered.
        proxy.links.add(Toxic("web", "http_error", {"probability": 1, "status": 500, "seed": 1}))
        client.sendall(b"GET /g HTTP/1.1\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 500 ")
    assert proxy.links.stats(toxic_id)["affected"] == len(steps)


@pytest.mark.parametrize("pipelined", [True, False])
def test_upgrade_becomes_a_tunnel(proxy, server, pipelined):
    request = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    first = b"\x81\x05hello\r\n\r\n"
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02yo"
    saw = scripted(server, [(request, answer), (first, b"\x81\x03bye")])
    with proxy.connect("web") as client:
        client.sendall(request + first if pipelined else request)
        assert read_exactly(client, len(answer)) == answer
        if not pipelined:
            client.sendall(first)
        assert read_exactly(client, 5) == b"\x81\x03bye"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    assert saw[:2] == [request, first]


@pytest.mark.parametrize(
    "body", [b"", b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_a_declined_upgrade_stays_http(proxy, server, body):
    request = b"POST /h2c HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + (body or b"\r\n")
    second = b"GET /next HTTP/1.1\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    saw = scripted(server, [(request, answer), (second, answer)])
    toxic_id = proxy.links.add(Toxic("web", "latency", {"low_ms": 0.1, "high_ms": 0.2, "seed": 1}))
    with proxy.connect("web") as client:
        client.sendall(request + second)
        assert read_exactly(client, 2 * len(answer)) == answer * 2
    assert saw[:2] == [request, second]
    assert proxy.links.stats(toxic_id)["affected"] == 2


def test_connect_becomes_a_tunnel(proxy, server):
    request, answer = b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
    scripted(server, [(request, answer), (b"\x16\x03ping", b"\x16\x03pong")])
    with proxy.connect("web") as client:
        client.sendall(request)
        assert read_exactly(client, len(answer)) == answer
        client.sendall(b"\x16\x03ping")
        assert read_exactly(client, 6) == b"\x16\x03pong"


def test_expect_continue_passes(proxy, server):
    head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    scripted(server, [(head, b"HTTP/1.1 100 Continue\r\n\r\n"), (b"abc", final), (head, final)])
    with proxy.connect("web") as client:
        client.sendall(head)
        assert read_exactly(client, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert read_exactly(client, len(final)) == final
        client.sendall(head)
        assert read_exactly(client, len(final)) == final


def test_a_body_that_ends_with_the_connection(proxy, server):
    answer = b"HTTP/1.0 200 OK\r\n\r\nuntil\r\n\r\nthe end"

    def handler(connection: socket.socket) -> None:
        read_exactly(connection, 18)
        connection.sendall(answer)

    server.handler = handler
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_exactly(client, 1000) == answer


@pytest.mark.parametrize(
    "nonsense", [b"\x00\x01\x02 what is this\r\n\r\n", b"G" * 100_000, b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HT"]
)
def test_what_is_not_http_is_the_servers_to_judge(proxy, server, nonsense):
    saw: list[bytes] = []

    def handler(connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            saw.append(data)
        connection.sendall(b"no idea")

    server.handler = handler
    with proxy.connect("web") as client:
        client.sendall(nonsense)
        client.shutdown(socket.SHUT_WR)
        assert read_exactly(client, 100) == b"no idea"
    assert b"".join(saw) == nonsense


def test_a_tcp_server_may_speak_first(proxy, server):
    server.handler = lambda connection: connection.sendall(b"220 hello\r\n")
    with proxy.connect("raw") as client:
        assert read_exactly(client, 100) == b"220 hello\r\n"


@pytest.mark.parametrize("link", ["web", "raw"])
def test_a_reset_server_connection_resets_the_client(proxy, server, link):
    def handler(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    server.handler = handler
    with proxy.connect(link) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(10)


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_a_dead_server_resets_the_client(start_proxy, protocol):
    with socket.create_server(("127.0.0.1", 0)) as dead:
        port = dead.getsockname()[1]
    running = start_proxy({"dead": (port, protocol)})

    def ask() -> bytes:
        with running.connect("dead") as client:  # The reset can come as early as here.
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return client.recv(10)

    with pytest.raises(ConnectionError):
        ask()
