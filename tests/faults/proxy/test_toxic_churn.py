"""Toxics that destroy nothing come and go at random under traffic, and not one byte is lost or out of place."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
import time

import pytest
from fault_world import add, read_exactly

from monkeyproof.clock import wait_for

WEB_ONLY = [("drop_headers", {"names": "x-none", "seed": 1, "direction": "request"})]
HARMLESS = [
    ("latency", {"low_ms": 0, "high_ms": 8, "seed": 1}),
    ("latency", {"low_ms": 0, "high_ms": 8, "seed": 2, "direction": "response"}),
    ("latency", {"low_ms": 1, "high_ms": 50, "seed": 3, "distribution": "pareto", "mean_ms": 4, "share": 0.5}),
    ("bandwidth", {"kib_per_s": 2000.0, "seed": 4, "direction": "request"}),
    ("bandwidth", {"kib_per_s": 900.0, "seed": 5, "direction": "response", "per": "connection"}),
    ("partition", {"seed": 6, "direction": "request", "share": 0.5}),
    ("partition", {"seed": 7, "direction": "response", "share": 0.5}),
    ("slow_close", {"seed": 8, "direction": "request", "delay_ms": 5.0}),
    ("slow_close", {"seed": 9, "direction": "response", "delay_ms": 5.0}),
    ("reset", {"seed": 10, "direction": "response", "after_bytes": 1 << 30}),
    ("hang", {}),
]


@pytest.mark.parametrize("link", ["web", "raw"])
def test_nothing_is_lost(proxy, server, link):
    def handler(connection: socket.socket) -> None:
        file = connection.makefile("rb")
        while file.readline():
            length = 0
            while (header := file.readline()) not in (b"\r\n", b""):
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            body = file.read(length)
            digest = hashlib.sha256(body).digest()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (32 + length) + digest)
            connection.sendall(body)
        connection.shutdown(socket.SHUT_WR)

    server.handler = handler
    wrong: list[str] = []
    finished: list[int] = []

    def user(number: int) -> None:
        rng = random.Random(number)
        for _ in range(3):
            with proxy.connect(link) as connection:
                for _ in range(6):
                    body = rng.randbytes(rng.choice([0, 3, 5000, 60_000] * 2 + [700_000]))
                    connection.sendall(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (32 + len(body))
                    expected = head + hashlib.sha256(body).digest() + body
                    if read_exactly(connection, len(expected)) != expected:
                        wrong.append(f"user {number}: {len(body)} bytes")
                        return
                connection.shutdown(socket.SHUT_WR)
                if connection.recv(10) != b"":
                    wrong.append(f"user {number}: no end")
        finished.append(number)

    users = [threading.Thread(target=user, args=(number,)) for number in range(5)]
    for one in users:
        one.start()
    rng = random.Random(5)
    there: list[str] = []
    while any(one.is_alive() for one in users):
        if there and (len(there) > 3 or rng.random() < 0.5):
            proxy.links.remove(there.pop(rng.randrange(len(there))))
        else:
            kind, parameters = rng.choice(HARMLESS + (WEB_ONLY if link == "web" else []))
            there.append(add(proxy, kind, link=link, **parameters))
        time.sleep(0.004)
    for toxic_id in there:
        proxy.links.remove(toxic_id)
    for one in users:
        one.join(10)
    assert wrong == []
    assert sorted(finished) == [0, 1, 2, 3, 4]


OTHERS = [
    ("reset", {"seed": 10, "direction": "response", "after_bytes": 700, "share": 0.5}),
    ("reset", {"seed": 11, "direction": "request", "after_ms": 10.0, "share": 0.5}),
    ("half_close", {"seed": 12, "direction": "response", "after_bytes": 100, "share": 0.5}),
    ("half_close", {"seed": 13, "direction": "request", "after_bytes": 100, "share": 0.5}),
    ("blackhole", {"seed": 14, "direction": "both", "share": 0.5}),
    ("corrupt_bytes", {"seed": 15, "direction": "request", "share": 0.5}),
    ("corrupt_bytes", {"seed": 16, "direction": "response", "share": 0.5}),
    ("down", {}),
]
OF_MESSAGES = [
    ("http_error", {"probability": 0.3, "status": 503, "seed": 1}),
    ("rate_limit", {"limit_per_s": 50.0}),
    ("truncate", {"seed": 1, "share": 0.3, "keep_bytes": 10}),
    ("corrupt_json", {"seed": 1, "share": 0.3, "mode": "changed"}),
    ("drop_headers", {"seed": 1, "share": 0.3, "names": "x-a"}),
]


@pytest.mark.parametrize("link", ["web", "raw"])
def test_random_toxics_and_connections_leave_nothing_behind(proxy, server, link):
    body = b'{"a": [1, 2, 3]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-A: 1\r\n"
    answers = [
        head + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    ]

    def handler(connection: socket.socket) -> None:
        rng = random.Random(1)
        while connection.recv(1 << 16):
            connection.sendall(rng.choice(answers))

    server.handler = handler
    stop = threading.Event()

    def user(number: int) -> None:
        rng = random.Random(number)
        while not stop.is_set():
            with contextlib.suppress(OSError), proxy.connect(link) as connection:
                connection.settimeout(0.05)
                for _ in range(4):
                    body = rng.randbytes(rng.choice([0, 3, 5000]))
                    connection.sendall(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    connection.recv(1000)
                if rng.random() < 0.5:
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1000)
            stop.wait(0.003)

    users = [threading.Thread(target=user, args=(number,)) for number in range(5)]
    for one in users:
        one.start()
    rng = random.Random(7)
    there: list[str] = []
    for _ in range(120):
        if there and (len(there) > 4 or rng.random() < 0.5):
            proxy.links.remove(there.pop(rng.randrange(len(there))))
        else:
            kind, parameters = rng.choice(HARMLESS + OTHERS + (OF_MESSAGES if link == "web" else []))
            there.append(add(proxy, kind, link=link, **parameters))
        time.sleep(0.008)
    for toxic_id in there:
        proxy.links.remove(toxic_id)
    stop.set()
    for one in users:
        one.join(10)

    def connections() -> float:
        hang_id = add(proxy, "hang", link=link)
        count = proxy.links.stats(hang_id)["connections"]
        proxy.links.remove(hang_id)
        return count

    assert wait_for(lambda: connections() == 0, within_s=5, every_s=0.05)
    assert proxy.log.read_text() == ""
