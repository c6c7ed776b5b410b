"""Records that are corrupted on their way over an HTTP link, and everything else that passes it untouched."""

from __future__ import annotations

import json
import socket
import threading

import numpy as np
import pytest
from fault_world import add, pending

from monkeyproof.clock import wait_for
from monkeyproof.faults.data import Scale, corrupt


def records(first: int, count: int) -> list[dict]:
    return [
        {"position": n, "entity": f"shuttle-{n % 7}", "features": [n + 0.1, -2.5, 1e6 + n], "label": n % 2}
        for n in range(first, first + count)
    ]


def json_answer(value, *, chunked: bool) -> bytes:
    body = json.dumps(value).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Kept: yes\r\n"
    if not chunked:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    half = len(body) // 2
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:])]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n"


CORRUPTING = {"fault": "scale", "parameters": {"share": 0.1, "low": -10, "high": 10}, "seed": 77}
EVERYTHING = {"fault": "scale", "parameters": {"share": 1, "low": 2, "high": 3}, "seed": 1}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("batch", [10, 40])
def test_records_are_corrupted_by_position_and_every_change_is_noted(proxy, browser, web, chunked, batch):
    web.answer = lambda path: json_answer({"records": records(int(path[1:]), batch), "more": 1}, chunked=chunked)
    toxic_id = add(proxy, "corrupt_records", **CORRUPTING)
    got, clean = [], records(0, 120)
    for first in range(0, 120, batch):
        status, body = browser.ask(f"/{first}")
        assert status == 200
        assert json.loads(body)["more"] == 1
        got += json.loads(body)["records"]
        assert browser.headers["X-Kept"] == "yes"
    features = np.array([one["features"] for one in clean])
    expected = corrupt(features, Scale(share=0.1, low=-10, high=10), seed=77)
    assert [one["features"] for one in got] == expected.table.tolist()
    assert [{**one, "features": 0} for one in got] == [{**one, "features": 0} for one in clean]
    stats = proxy.links.stats(toxic_id)
    assert stats["records"] == 120
    assert stats["corrupted_cells"] == expected.mask().sum() == len(stats["journal"])
    assert stats["corrupted_records"] == expected.mask().any(axis=1).sum()
    for cell in stats["journal"]:
        at, column = cell["position"], cell["column"]
        assert cell["old"] == clean[at]["features"][column] != cell["new"] == got[at]["features"][column]
        assert cell["entity"] == clean[at]["entity"]
    proxy.links.remove(toxic_id)
    assert json.loads(browser.ask("/0")[1])["records"] == records(0, batch)


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({"no": "records"}, chunked=True),
        json_answer({"records": [{"position": "1", "entity": "a", "features": [1.0]}]}, chunked=False),
        json_answer({"records": [{"position": -1, "entity": "a", "features": [1.0]}]}, chunked=False),
        json_answer({"records": [{"position": 1, "entity": "a", "features": ["1.0"]}]}, chunked=False),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{not",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: br\r\nContent-Length:2\r\n\r\nzz",
    ],
)
def test_what_has_no_records_passes_untouched(proxy, web, answer):
    web.answer = lambda _: answer
    toxic_id = add(proxy, "corrupt_records", **EVERYTHING)
    with proxy.connect("web") as client:
        for n in range(2):
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            got = b""
            while len(got) < len(answer):
                got += client.recv(1 << 16)
            assert got == answer
            assert proxy.links.stats(toxic_id)["skipped"] == n + 1


def test_a_response_beyond_8_mb_passes_untouched(proxy, browser, web):
    answer = json_answer({"records": records(0, 10), "ballast": "x" * (9 << 20)}, chunked=False)
    web.answer = lambda _: answer
    toxic_id = add(proxy, "corrupt_records", **EVERYTHING)
    assert browser.ask()[1] == answer.split(b"\r\n\r\n", 1)[1]
    assert proxy.links.stats(toxic_id)["skipped"] == 1


def test_removing_corrupt_records_releases_the_response(proxy, server):
    answer = json_answer({"records": records(0, 10)}, chunked=False)
    go = threading.Event()

    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(answer[:-20])
        go.wait(10)
        connection.sendall(answer[-20:])

    server.handler = handler
    toxic_id = add(proxy, "corrupt_records", **EVERYTHING)
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert wait_for(lambda: pending(proxy, toxic_id), within_s=5)
        proxy.links.remove(toxic_id)
        got = b""
        while len(got) < len(answer) - 20:
            got += client.recv(1 << 16)
        go.set()
        while len(got) < len(answer):
            got += client.recv(1 << 16)
    assert got == answer
