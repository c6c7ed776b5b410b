"""Toxics that destroy nothing come and go at random under traffic, and not one byte is lost or out of place."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time

import pytest
from fault_world import add, read_exactly

WEB_ONLY = [("lose_headers", {"names": "x-none", "seed": 1, "direction": "request"})]
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
