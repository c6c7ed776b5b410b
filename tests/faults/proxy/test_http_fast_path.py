"""The fast path of whole HTTP messages, and changes in the middle of things: no byte is lost or out of turn."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import socket
import threading
from collections.abc import Iterator

import pytest
from fault_world import OK, add, read_exactly
from hypothesis import given, settings
from hypothesis import strategies as st

from monkeyproof.clock import wait_for
from monkeyproof.faults.proxy.http import framing
from monkeyproof.faults.proxy.http.framing import NotHttp

REQUEST = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
MESSAGES = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
    b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"\r\nGET /after-an-empty-line HTTP/1.1\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
]


def taken_apart(chunks: list[bytes], *, short: bool) -> list[tuple[bytes, bytes]]:
    """The messages of a stream, with the method of each; ``short`` asks first whether a chunk is a whole one."""
    framer, found, message, method = framing.requests(), [], b"", b""
    for chunk in chunks:
        if short and (head := framer.whole(chunk)) is not None:
            assert message == b""
            found.append((chunk, head.method))
            continue
        framer.feed(chunk)
        while (piece := framer.next()) is not None:
            message, method = message + piece.data, piece.head.method if piece.head else method
            if piece.end:
                found.append((message, method))
                message = b""
    return [*found, (message + framer.rest(), b"")]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.lists(st.integers(1, 60), max_size=8), st.booleans())
def test_the_fast_path_sees_the_messages_that_the_full_path_sees(messages, cuts, by_message):
    chunks, stream = list(messages) if by_message else [], b"".join(messages)
    if not by_message:
        for cut in cuts:
            chunks.append(stream[:cut])
            stream = stream[cut:]
        chunks = [one for one in [*chunks, stream] if one]
    assert taken_apart(chunks, short=True) == taken_apart(chunks, short=False)


def test_what_is_not_http_is_left_to_the_long_way():
    framer = framing.requests()
    assert framer.whole(b"\x00\x01 what is this\r\n\r\n") is None
    framer.feed(b"\x00\x01 what is this\r\n\r\n")
    with pytest.raises(NotHttp):
        framer.next()


class Told(queue.Queue):
    """A server that reads what comes, and sends what is put here."""

    def __init__(self) -> None:
        super().__init__()
        self.saw = b""

    def saw_requests(self, count: int) -> None:
        assert wait_for(lambda: self.saw.count(b"GET /") == count, within_s=5)


@pytest.fixture
def told(server) -> Iterator[Told]:
    answers = Told()

    def handler(connection: socket.socket) -> None:
        def read() -> None:
            with contextlib.suppress(OSError):
                while data := connection.recv(1 << 16):
                    answers.saw += data

        threading.Thread(target=read, daemon=True).start()
        while answer := answers.get(timeout=10):
            connection.sendall(answer)

    server.handler = handler
    yield answers
    answers.put(b"")


def test_a_fault_that_comes_while_answers_are_due_takes_its_turn(proxy, told):
    with proxy.connect("web") as client:
        client.sendall(REQUEST % 1)
        told.put(OK)
        assert read_exactly(client, len(OK)) == OK
        client.sendall(REQUEST % 2)
        told.saw_requests(2)
        error = add(proxy, "http_error", probability=1, status=503, seed=1)
        client.sendall(REQUEST % 3)
        assert wait_for(lambda: proxy.links.stats(error)["seen"] == 1, within_s=5)
        proxy.links.remove(error)
        client.sendall(REQUEST % 4)
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)  # The proxy's own answer waits for the server's to the request before.
        client.settimeout(10)
        told.put(OK)
        told.put(OK)
        got = read_exactly(client, len(OK) + 12)
        assert got == OK + b"HTTP/1.1 503"
        while not got.endswith(OK):
            got += client.recv(1000)
        assert got.count(b"HTTP/1.1 ") == 3
        client.sendall(REQUEST % 5)
        told.put(OK)
        assert read_exactly(client, len(OK)) == OK


def test_a_toxic_changes_a_response_that_was_due_when_it_came(proxy, told):
    sent = json.dumps({"records": [{"position": 0, "entity": "a", "features": [1.5, 2.5], "label": 1}]}).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(sent) + sent
    with proxy.connect("web") as client:
        for n, changed in enumerate([True, False]):
            client.sendall(REQUEST % n)
            told.saw_requests(n + 1)
            if changed:
                toxic = add(
                    proxy,
                    "corrupt_records",
                    fault="scale",
                    parameters={"share": 1.0, "low": 3.0, "high": 3.0},
                    seed=1,
                )
            told.put(answer)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += read_exactly(client, 1)
            length = int(head.lower().split(b"content-length:")[1].split()[0])
            body = read_exactly(client, length)
            assert (body != sent) == changed
            if changed:
                proxy.links.remove(toxic)


@pytest.mark.parametrize("link", ["web", "raw"])
@pytest.mark.parametrize("kind", ["latency", "hang"])
def test_a_fault_in_the_middle_of_a_bulk_copy_loses_no_byte(proxy, server, link, kind):
    size = 24 << 20
    sent, head = os.urandom(size), b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size
    digests: list[str] = []

    def handler(connection: socket.socket) -> None:
        read_exactly(connection, len(head))
        digests.append(hashlib.sha256(read_exactly(connection, size)).hexdigest())
        assert connection.recv(1) == b""  # The client has ended its half, and listens on.
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        connection.sendall(sent)

    server.handler = handler
    parameters = {"low_ms": 20, "high_ms": 30, "seed": 1} if kind == "latency" else {}
    with proxy.connect(link) as client:
        client.sendall(head)
        for at in range(0, size, size // 4):
            toxic = add(proxy, kind, link=link, **parameters)
            part = sent[at : at + size // 4]
            sender = threading.Thread(target=client.sendall, args=(part,))
            sender.start()
            proxy.links.remove(toxic)
            sender.join()
        client.shutdown(socket.SHUT_WR)
        answer_head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        assert read_exactly(client, len(answer_head)) == answer_head
        middle = read_exactly(client, size // 2)
        toxic = add(proxy, kind, link=link, **parameters)
        proxy.links.remove(toxic)
        got = middle + read_exactly(client, size - size // 2)
        assert client.recv(1) == b""
    assert got == sent
    assert digests == [hashlib.sha256(sent).hexdigest()]


@pytest.mark.parametrize("link", ["web", "raw"])
def test_a_reset_in_the_middle_of_a_bulk_copy_reaches_the_other_side(proxy, server, link):
    outcome: queue.Queue[str] = queue.Queue()

    def handler(connection: socket.socket) -> None:
        try:
            while connection.recv(1 << 16):
                pass
            outcome.put("end")
        except ConnectionResetError:
            outcome.put("reset")

    server.handler = handler
    with proxy.connect(link) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + bytes(1 << 20))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert outcome.get(timeout=5) == "reset"
