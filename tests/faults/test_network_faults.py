"""The network faults injected through a trial: proof, undo, undo again, limits, and refusals in words."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up; stand-ins ignore arguments)

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fault_world import Traffic, assert_undone, events

from monkeyproof.clock import wait_for
from monkeyproof.config.limits import Limits
from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults import network
from monkeyproof.injection import fault_registry
from monkeyproof.injection.inject import revert
from monkeyproof.record.history import Kind
from monkeyproof.targets import port


class Users:
    """Opens connection after connection, asks twice over each and closes it, whatever becomes of it."""

    def __init__(self, proxy, link: str, length: int = 0) -> None:
        self._proxy, self._link, self._length = proxy, link, length
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            try:
                with self._proxy.connect(self._link) as connection:
                    connection.settimeout(0.5)
                    for _ in range(2):
                        head = b"GET / HTTP/1.1\r\nX-Id: 7\r\nX-Fill: %s\r\n\r\n" % (b"f" * self._length)
                        connection.sendall(head)
                        if not connection.recv(1000):
                            break
                    self._stop.wait(0.02)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)
            except OSError:
                self._stop.wait(0.01)

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def answering(server) -> None:
    """A server that answers every request with a little JSON."""
    body = b'{"predictions": [0.5, 1]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Id: 7\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )

    def handler(connection: socket.socket) -> None:
        file = connection.makefile("rb")
        while file.readline():
            while file.readline() not in (b"\r\n", b""):
                pass
            connection.sendall(head + body)

    server.handler = handler


CASES: list[tuple[Callable[[str], dict], tuple[str, ...], str]] = [
    (lambda link: network.reset_connections(link, after_bytes=40), ("web", "raw"), "connections were reset"),
    (lambda link: network.reset_connections(link, after_ms=10.0), ("web", "raw"), "connections were reset"),
    (network.blackhole, ("web", "raw"), "were discarded"),
    (network.partition, ("web", "raw"), "wait, and do not arrive"),
    (lambda link: network.partition(link, "request"), ("raw",), "wait, and do not arrive"),
    (lambda link: network.half_close(link, after_bytes=10), ("web", "raw"), "was ended early"),
    (lambda link: network.limit_bandwidth(link, kib_per_s=2.0), ("web", "raw"), "had to wait"),
    (lambda link: network.delay_closes(link, 60.0, direction="request"), ("web", "raw"), "was held for at least"),
    (lambda link: network.corrupt_bytes(link, 0.9), ("web", "raw"), "bits flipped"),
    (lambda link: network.truncate_responses(link, keep_bytes=3), ("web",), "responses cut off"),
    (lambda link: network.corrupt_json(link, "changed"), ("web",), "JSON responses made changed"),
    (lambda link: network.drop_headers(link, "x-id"), ("web",), "responses without x-id"),
    (lambda link: network.drop_headers(link, "x-id", "request"), ("web",), "requests without x-id"),
    (lambda link: network.limit_rate(link, 2.0), ("web",), "requests were answered 429"),
    (
        lambda link: network.add_latency(
            link, distribution="pareto", mean_ms=40, high_ms=300, low_ms=20, direction="response"
        ),
        ("web", "raw"),
        "responses held for at least",
    ),
]


@pytest.mark.parametrize(
    ("inject", "link", "words"), [(inject, link, words) for inject, links, words in CASES for link in links]
)
def test_each_is_proven_by_users_and_reverted(world, proxy, answering, inject, link, words):
    world.file = replace(world.file, limits=Limits(latency_ms=25_000))
    with Users(proxy, link):
        found = inject(link)
        assert words in found["evidence"]
        json.dumps(found)
        (toxic_id,) = world.find(port.Links).active()
        assert revert() == [f"{link}: fault removed"]
    assert_undone(world)
    assert network.remove_toxic(world, link, toxic_id) == f"{link}: the fault had ended already"
    with Traffic(proxy, link) as traffic:
        assert wait_for(lambda: traffic.statuses[-3:] == [b"200"] * 3, within_s=5)


@pytest.mark.parametrize(
    "inject",
    [
        lambda: network.truncate_responses("web"),
        lambda: network.drop_headers("web", "X-Monkeyproof", "request"),
        lambda: network.corrupt_bytes("web", direction="request"),
    ],
)
def test_on_an_idle_http_link_an_own_request_is_hit(world, proxy, answering, inject):
    found = inject()
    links = world.find(port.Links)
    (toxic_id,) = links.active()
    stats = links.stats(toxic_id)
    if stats["own_seen"]:  # Told apart, so that the users' pattern is left alone.
        assert found["data"]["whose"] == "our own"
        assert stats["seen"] == 0
    revert()
    assert_undone(world)


def test_refusals_by_chance_carry_retry_after(world, proxy, answering):
    network.fail_requests("web", 1.0, 429, retry_after_s=3.0)
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"Retry-After: 3\r\n" in client.recv(1000)
    revert()
    assert_undone(world)


@pytest.mark.parametrize(
    ("inject", "most_ms"),
    [
        (lambda: network.blackhole("web"), 25_000),
        (lambda: network.partition("web"), 25_000),
        (lambda: network.half_close("web"), 25_000),
        (lambda: network.limit_bandwidth("web", 5.0), 25_000),
        (lambda: network.delay_closes("web", 300.0), 300),
        (lambda: network.add_latency("web", distribution="lognormal", mean_ms=9, jitter_ms=9, high_ms=300), 300),
    ],
)
def test_what_can_hold_a_request_is_held_against_the_limit(world, proxy, inject, most_ms):
    world.file = replace(world.file, limits=Limits(latency_ms=most_ms - 1))
    with pytest.raises(Refusal, match=f"would be {most_ms}, and target 'small' allows latency_ms {most_ms - 1}"):
        inject()
    assert not events(world, Kind.FAULT_INTENDED)


WRONG = [
    (lambda: network.reset_connections("web", after_bytes=-1), "after_bytes: -1 is not a whole number"),
    (lambda: network.reset_connections("web", after_bytes=5, after_ms=5.0), "after_ms: 5.0"),
    (lambda: network.reset_connections("web", direction="up"), "direction: 'up' is not 'request' or 'response'"),
    (lambda: network.reset_connections("web", share=1.5), "share: 1.5 is not in (0, 1]"),
    (lambda: network.fail_requests("web", 1e-320), "probability: 1e-320 is less than 1e-06, one in a million"),
    (lambda: network.corrupt_bytes("web", 1e-200, share=1e-200), "block_share: 1e-200 is less than 1e-06"),
    (lambda: network.truncate_responses("web", share=1e-9), "share: 1e-09 is less than 1e-06"),
    (lambda: network.blackhole("nowhere"), "no link 'nowhere'"),
    (
        lambda: network.blackhole("web", direction="sideways"),
        "'sideways' is not 'request' or 'response' or 'both'",
    ),
    (lambda: network.partition("web", direction="both"), "direction: 'both' is not"),
    (lambda: network.half_close("web", after_bytes=1.5), "after_bytes: 1.5 is not a whole number"),
    (lambda: network.limit_bandwidth("web", 0), "kib_per_s is between 0.1"),
    (lambda: network.limit_bandwidth("web", "5"), "kib_per_s: '5' is not a finite number"),
    (lambda: network.limit_bandwidth("web", 5, per="user"), "per is 'link' or 'connection'"),
    (lambda: network.delay_closes("web", 0), "delay_ms is in (0, 600000]"),
    (lambda: network.corrupt_bytes("web", 0), "block_share is in (0, 1]"),
    (lambda: network.corrupt_bytes("web", block_bytes=4), "block_bytes is in 8..1048576"),
    (lambda: network.truncate_responses("web", keep_bytes=True), "keep_bytes: True is not a whole number"),
    (lambda: network.corrupt_json("web", "softly"), "mode is 'unparsable' or 'changed'"),
    (lambda: network.drop_headers("web", "content-length"), "without content-length the receiver cannot tell"),
    (lambda: network.drop_headers("web", "a", share=0), "share is in (0, 1]"),
    (lambda: network.limit_rate("web", 0), "limit_per_s is in (0, 1000000]"),
    (lambda: network.limit_rate("web", 1, burst=0), "burst is at least 1"),
    (lambda: network.fail_requests("web", 0.5, retry_after_s=-1), "retry_after_s: -1 is not in 0..86400"),
    (lambda: network.add_latency("web"), "low_ms, high_ms: 0.0 and 0.0 are not"),
    (lambda: network.add_latency("web", distribution="pareto", mean_ms=5), "low_ms, high_ms: 0.0 and 0.0"),
    (lambda: network.add_latency("web", 1, 2, direction="down"), "direction: 'down' is not"),
    (lambda: network.add_latency("web", 1, 2, distribution="gamma"), "distribution is one of"),
]


@pytest.mark.parametrize(("call", "words"), WRONG)
def test_wrong_calls_are_refused_in_words_and_leave_no_trace(world, call, words):
    with pytest.raises(UsageError) as refusal:
        call()
    assert words in str(refusal.value)
    assert not events(world, Kind.FAULT_INTENDED)
    assert list(world.find(port.Links).active()) == []


@pytest.mark.parametrize("name", ["truncate_responses", "corrupt_json", "limit_rate"])
def test_faults_of_messages_need_a_link_that_has_messages(world, name):
    more = {"limit_per_s": 1.0} if name == "limit_rate" else {}
    with pytest.raises(Refusal, match="raw is a tcp link, and this fault needs one that speaks http"):
        getattr(network, name)("raw", **more)


def test_arguments_that_are_drawn_by_chance_are_taken(world, proxy, answering, monkeypatch):
    world.file = replace(world.file, limits=Limits(latency_ms=600_000))
    injected: list[str] = []

    def note(injection):
        injected.append(injection.fault)
        return {}

    for module in (network.breaks, network.common, network.damage, network.delays, network.refusals):
        monkeypatch.setattr(module, "inject", note)
    faults = [one for one in fault_registry.all_faults() if one.family == "network" and one.draw is not None]
    assert len(faults) >= 15
    for number, one in enumerate(faults):
        for intensity in (0.05, 1.0):
            arguments = one.draw(np.random.default_rng(number), world.file, intensity)
            one.function(**arguments)
    assert len(injected) == 2 * len(faults)
    assert set(injected) == {one.name for one in faults}
