"""The faults that sit on links, injected through a trial: proof, undo, and refusals."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up; stand-ins ignore arguments)

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace

import pytest
from fault_world import Traffic, assert_undone, events, impatient

from monkeyproof.clock import wait_for
from monkeyproof.config.limits import Limits
from monkeyproof.errors import MonkeyproofError, NotReverted, Refusal, UsageError
from monkeyproof.faults import data, features, network, registry, replicas
from monkeyproof.faults.network import breaks, delays
from monkeyproof.faults.support import record_stream
from monkeyproof.injection.inject import current, revert, set_current
from monkeyproof.record.history import Kind
from monkeyproof.targets import port

# Network.


def test_latency_is_proven_by_a_users_request(world, proxy, asked):
    with Traffic(proxy, "web"):
        found = network.add_latency("web", low_ms=20, high_ms=40)
    assert "of users' requests held for at least" in found["evidence"]
    assert found["data"]["delay_min_ms"] >= 20
    assert found["data"]["whose"] == "users'"
    assert not any(b"X-Monkeyproof" in head for head in asked)
    json.dumps(found)
    assert revert() == ["web: fault removed"]
    assert_undone(world)


def test_latency_of_an_idle_link_is_proven_by_an_own_request(world, asked):
    started_s = time.monotonic()
    found = network.add_latency("web", low_ms=20, high_ms=40, share=0.5)
    assert time.monotonic() - started_s < 8
    assert found["data"]["whose"] == "our own"
    assert all(b"GET /health " in head and b"X-Monkeyproof: evidence" in head for head in asked)


def test_latency_of_a_tcp_link_needs_traffic(world, proxy, asked, monkeypatch):
    monkeypatch.setattr(delays, "inject", impatient(delays.inject))
    with pytest.raises(MonkeyproofError, match="no evidence of an effect within"):
        network.add_latency("raw", low_ms=20, high_ms=40)
    assert_undone(world)
    with Traffic(proxy, "raw"):
        assert "held for at least" in network.add_latency("raw", low_ms=20, high_ms=40)["evidence"]


def test_fail_requests_is_proven_by_own_requests_only(world, proxy, asked):
    found = network.fail_requests("web", probability=0.2, status=502)
    assert found["data"]["own_failed"] == 1
    assert found["data"]["requests"] == 0
    assert "answered 502 by the fault proxy" in found["evidence"]
    links = world.find(port.Links)
    (toxic_id,) = links.active()
    assert links.stats(toxic_id)["seen"] == 0
    with Traffic(proxy, "web") as traffic:
        assert wait_for(lambda: traffic.statuses.count(b"502") >= 3, within_s=10)
    assert links.stats(toxic_id)["affected"] == traffic.statuses.count(b"502") < len(traffic.statuses)
    assert revert() == ["web: fault removed"]
    assert_undone(world)


def test_a_server_that_fails_by_itself_is_no_proof(world, server, monkeypatch):
    def handler(connection: socket.socket) -> None:
        while connection.recv(1000):
            connection.sendall(b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n")

    server.handler = handler
    found = network.fail_requests("web", probability=0.04, status=503)
    assert found["data"]["own_failed"] == 1
    assert found["data"]["own_requests"] > 1  # Those before were answered 503 as well, by the server.


@pytest.mark.parametrize(("mode", "how"), [("reset", "reset"), ("refuse-like", "refused")])
def test_block(world, proxy, asked, mode, how):
    found = network.block("web", mode)
    assert found["data"]["own"] == how
    revert()
    assert_undone(world)
    with Traffic(proxy, "web") as traffic:
        assert traffic.statuses[0] == b"200"


@pytest.mark.parametrize("first", ["reset", "refuse-like"])
@pytest.mark.parametrize("second", [network.block, features.outage])
@pytest.mark.usefixtures("raw_is_a_store")
def test_a_link_that_is_down_already_is_not_blocked_again(world, first, second):
    network.block("raw", first)
    for mode in ("reset", "refuse-like"):
        with pytest.raises(Refusal, match=r"raw is down already, by down-\w+; what another block does"):
            second("raw", mode)
    assert len(world.find(port.Links).active()) == 1


def test_another_break_does_not_prove_a_block(world, monkeypatch):
    monkeypatch.setattr(breaks, "inject", impatient(breaks.inject))
    monkeypatch.setattr(breaks, "broken_how", lambda _: "refused")
    with pytest.raises(MonkeyproofError, match="no evidence"):
        network.block("raw", "reset")
    assert_undone(world)


@pytest.mark.parametrize("link", ["web", "raw"])
def test_hang_is_proven_by_bytes_that_wait(world, proxy, asked, link):
    world.file = replace(world.file, limits=Limits(latency_ms=25_000))
    with Traffic(proxy, "raw"):
        found = network.hang(link)
        assert found["data"]["waiting_bytes"] > 0
        revert()
    assert_undone(world)


PARTITION = ("partition", {"direction": "request", "share": 1.0, "seed": 1})


@pytest.mark.parametrize(
    ("there", "second"),
    [(PARTITION, network.hang), (("hang", {}), network.hang), (("hang", {}), network.partition)],
)
def test_bytes_that_wait_because_of_another_fault_prove_nothing(world, proxy, asked, monkeypatch, there, second):
    world.file = replace(world.file, limits=Limits(latency_ms=60_000))
    links = world.find(port.Links)
    links.add(port.Toxic("raw", *there, "there"))
    with proxy.connect("raw") as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert wait_for(lambda: links.stats("there")["waiting_bytes"], within_s=5)
        monkeypatch.setattr(breaks, "inject", impatient(breaks.inject))
        arguments = {"direction": "request"} if second is network.partition else {}
        with pytest.raises(MonkeyproofError, match="no evidence"):
            second("raw", **arguments)


def test_undo_of_a_toxic_that_has_ended(world, proxy, asked):
    network.block("web")
    links = world.find(port.Links)
    (toxic_id,) = links.active()
    links.remove(toxic_id)
    assert revert() == ["web: the fault had ended already"]
    assert network.remove_toxic(world, "web", toxic_id) == "web: the fault had ended already"


def test_what_sat_on_the_link_before_is_on_record_and_stays(world, proxy, asked):
    links = world.find(port.Links)
    theirs = links.add(port.Toxic("web", "latency", {"low_ms": 1, "high_ms": 1, "seed": 1}, "theirs"))
    links.add(port.Toxic("raw", "hang", {}, "elsewhere"))
    network.block("web")
    (fault,) = current().undo.open_faults()
    assert fault.prior == {"faults_on_link": [theirs]}
    assert fault.lease_s == port.LEASE_S
    assert revert() == ["web: fault removed"]
    assert set(links.active()) == {theirs, "elsewhere"}


def test_a_proxy_that_keeps_a_fault_is_not_called_reverted(world, proxy, asked, monkeypatch):
    network.block("web")
    links = world.find(port.Links)
    monkeypatch.setattr(links, "remove", lambda _: True)
    with pytest.raises(NotReverted, match=r"web: the fault proxy still has down-\w+; end the proxy if it stays"):
        revert()


WRONG = [
    (lambda: network.add_latency("wbe", 1, 2), UsageError, "no link 'wbe'; it has raw, web"),
    (lambda: network.add_latency("web", 5, 2), UsageError, "low_ms, high_ms: 5 and 2"),
    (lambda: network.add_latency("web", "1", 2), UsageError, "low_ms: '1' is not a finite number"),
    (lambda: network.add_latency("web", 1, float("nan")), UsageError, "high_ms: nan is not a finite number"),
    (lambda: network.add_latency("web", 1, 2, share=0), UsageError, "share: 0 is not in (0, 1]"),
    (lambda: network.fail_requests("web", 0), UsageError, "probability: 0 is not in (0, 1]"),
    (lambda: network.fail_requests("web", 0.5, 302), UsageError, "status: 302 is not a failure"),
    (
        lambda: network.fail_requests("raw", 0.5),
        Refusal,
        "raw is a tcp link, and this fault needs one that speaks http",
    ),
    (lambda: network.block("web", "softly"), UsageError, "mode: 'softly' is not"),
    (lambda: features.outage("nowhere"), UsageError, "no link 'nowhere'"),
    (lambda: features.outage("web"), UsageError, "'web' does not lead to a feature store; these do: none"),
    (lambda: features.slow("web"), UsageError, "'web' does not lead to a feature store; these do: none"),
    (lambda: data.scale_records("web", share=2), UsageError, "share: 2 is not in (0, 1]"),
    (lambda: data.scale_records("raw"), Refusal, "choose one of: web"),
    (lambda: data.scale_records("web"), Refusal, "offers no features control"),
    (replicas.kill, Refusal, "offers no replicas control"),
    (registry.promote_degraded, Refusal, "offers no registry control"),
]


@pytest.mark.parametrize(("call", "error", "words"), WRONG)
def test_wrong_calls_are_refused_in_words_and_leave_no_trace(world, call, error, words):
    with pytest.raises(error) as refusal:
        call()
    assert words in str(refusal.value)
    assert not events(world, Kind.FAULT_INTENDED)
    assert list(world.find(port.Links).active()) == []


def test_no_trial_or_no_permission_means_no_fault(world, proxy):
    world.file = replace(world.file, allow_faults=("noop",))
    with pytest.raises(Refusal, match="does not allow faults of the family 'network'"):
        network.block("web")
    set_current(None)
    with pytest.raises(Refusal, match="no trial is open"):
        network.block("web")
    assert list(proxy.links.active()) == []


# Features.


@pytest.fixture
def raw_is_a_store(world) -> None:
    links = {**world.file.links, "raw": replace(world.file.links["raw"], protocol="redis")}
    world.file = replace(world.file, links=links)


@pytest.mark.parametrize(("mode", "how"), [("reset", "reset"), ("refuse-like", "refused")])
def test_outage_is_proven_by_the_replicas_connections(world, proxy, asked, raw_is_a_store, mode, how):
    with Traffic(proxy, "raw") as traffic:
        found = features.outage("raw", mode)
        assert found["data"]["own"] == how
        assert found["data"]["connections"] >= 1
        revert()
        count = len(traffic.statuses)
        assert wait_for(lambda: len(traffic.statuses) > count, within_s=5)
    assert_undone(world)


def test_outage_of_an_unused_link_is_not_proven(world, raw_is_a_store, monkeypatch):
    monkeypatch.setattr(breaks, "inject", impatient(breaks.inject))
    with pytest.raises(MonkeyproofError, match="no evidence"):
        features.outage("raw")
    assert_undone(world)


# Data.


class Store:
    """A feature store, filled by a pipeline that pulls records over the link."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def read(self, entities):
        return {entity: self.values.get(entity) for entity in entities}


@pytest.mark.parametrize("writes", [True, False])
def test_scaled_records_are_read_back_from_the_store(world, proxy, server, writes, monkeypatch):
    def source(connection: socket.socket) -> None:
        at = 0
        while connection.recv(1000):
            records = [
                {"position": n, "entity": f"e{n % 50}", "features": [1.5, 0.1 * n, -3.0], "label": 0}
                for n in range(at, at + 20)
            ]
            at += 20
            body = json.dumps({"records": records}).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            connection.sendall(head + body)

    server.handler = source
    store, stop = Store(), threading.Event()
    world.parts[port.Features] = store

    def pull() -> None:
        with proxy.connect("web") as connection:
            file = connection.makefile("rb")
            while not stop.wait(0.01):
                connection.sendall(b"GET /records HTTP/1.1\r\n\r\n")
                while not (line := file.readline()).startswith(b"Content-Length"):
                    pass
                file.readline()
                for record in json.loads(file.read(int(line.split()[1])))["records"]:
                    if writes:
                        store.values[record["entity"]] = record["features"]

    pipeline = threading.Thread(target=pull)
    pipeline.start()
    try:
        if not writes:
            monkeypatch.setattr(record_stream, "inject", impatient(record_stream.inject))
            with pytest.raises(MonkeyproofError, match="no evidence"):
                data.scale_records("web")
            return
        found = data.scale_records("web")
    finally:
        stop.set()
        pipeline.join()
    cell = found["data"]["read_back"]
    assert cell["old"] != cell["new"]
    assert found["data"]["corrupted_cells"] >= found["data"]["corrupted_records"] >= 1
    assert "read back from the feature store: " + cell["entity"] in found["evidence"]
    json.dumps(found)
    assert revert() == ["web: fault removed"]
    assert_undone(world)
