"""A link that speaks RESP, with a real Valkey behind it: nothing is changed but what a toxic changes."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up)

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import redis
from fault_world import add, in_background, pending, read_exactly
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry
from store_world import ENTITIES, PASSWORD, vector
from test_resp import CUTS, REPLIES, REQUESTS

from monkeyproof.clock import wait_for
from monkeyproof.faults.proxy.resp.framing import OWN_NAME, command
from monkeyproof.faults.proxy.toxics.latency import Latency
from monkeyproof.faults.proxy.toxics.partial_answers import PartialAnswers

pytest_plugins = ("store_fixtures",)

# What comes in its own time (latency), and what changes nothing here: its keys are others.
TOXICS = {
    "none": None,
    "latency": ("latency", {"low_ms": 0, "high_ms": 1, "seed": 1}),
    "values": ("schema_mismatch", {"share": 1, "seed": 1, "key_prefix": "nobody:"}),
}


def send_cut(connection: socket.socket, data: bytes, cuts: list[int]) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for cut in cuts:
        connection.sendall(data[:cut])
        data = data[cut:]
    connection.sendall(data)


# Transparency.


@pytest.mark.parametrize("toxic", TOXICS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(REQUESTS, max_size=6), st.lists(st.one_of(REPLIES, st.binary(max_size=30)), max_size=6), CUTS, CUTS
)
def test_every_byte_passes_however_it_is_cut(store_proxy, server, toxic, requests, replies, cuts, reply_cuts):
    """Replies that fit the requests or not, and bytes that are no RESP at all."""
    stream, answer = b"".join(requests), b"".join(replies)
    saw: list[bytes] = []

    def handler(connection: socket.socket) -> None:
        saw.append(read_exactly(connection, len(stream)))
        send_cut(connection, answer, reply_cuts)
        connection.shutdown(socket.SHUT_WR)
        saw.append(connection.recv(1 << 16))

    server.handler = handler
    if TOXICS[toxic]:
        kind, parameters = TOXICS[toxic]
        toxic_id = add(store_proxy, kind, link="odd", **parameters)
    try:
        with store_proxy.connect("odd") as client:
            sender = threading.Thread(target=send_cut, args=(client, stream, cuts))
            sender.start()
            got = read_exactly(client, len(answer) + 1)
            sender.join()
            client.shutdown(socket.SHUT_WR)
            assert wait_for(lambda: len(saw) == 2, within_s=10)
    finally:
        if TOXICS[toxic]:
            store_proxy.links.remove(toxic_id)
    assert b"".join(saw) == stream
    assert got == answer


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_notices_no_proxy(connect, store, protocol):
    client = connect(protocol=protocol)
    with client.pipeline(transaction=False) as commands:
        for number in range(500):
            commands.set(f"k{number}", os.urandom(number))
            commands.get(f"k{number}")
        answers = commands.execute()
    assert answers[1::2] == store.direct.mget([f"k{number}" for number in range(500)])
    with client.pipeline(transaction=True) as commands:
        commands.get("e1")
        commands.incr("count")
        assert commands.execute() == [vector(1), 1]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.get("row1")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        client.execute_command("NONSENSE")
    assert client.hgetall("row2")[b"c"] == b"2"
    assert client.eval("return {1, {2, 'x'}, false}", 0) == [1, [2, b"x"], None]


def test_a_password_is_asked_for_and_given(connect):
    with pytest.raises(redis.AuthenticationError):
        connect("locked", retry=Retry(NoBackoff(), 0)).get("k")
    client = connect("locked", password=PASSWORD)
    assert client.set("k", b"v")
    assert client.get("k") == b"v"


def test_inline_words_and_pushes_between_replies(store_proxy, store):
    """A push answers no request: the replies behind it still find theirs."""
    add(store_proxy, "schema_mismatch", link="features", share=1, seed=1, change="column_dropped")
    with store_proxy.connect("features") as client:
        client.sendall(b"PING\r\n\r\nHELLO 3\r\n")
        assert read_exactly(client, 7) == b"+PONG\r\n"
        hello = b""
        while b"modules" not in hello:
            hello += client.recv(4096)
        client.sendall(b"CLIENT TRACKING ON BCAST\r\n")
        assert read_exactly(client, 5) == b"+OK\r\n"
        store.direct.set("other", b"x")
        assert client.recv(4096).startswith(b">2\r\n$10\r\ninvalidate\r\n")
        client.sendall(b"GET e1\r\n" + command(b"GET", b"nobody"))
        assert read_exactly(client, 26) == b"$16\r\n" + vector(1)[:-8] + b"\r\n_\r\n"


def test_pushes_and_other_requests_keep_the_count(store_proxy, server):
    """Of what comes back, only the reply to the read is changed."""
    others, push = [b"+OK\r\n", b":1\r\n", b"+OK\r\n"], b">2\r\n$1\r\nx\r\n$8\r\n12345678\r\n"

    def handler(connection: socket.socket) -> None:
        read_exactly(connection, len(asked))
        connection.sendall(b"".join([others[0], push, *others[1:], push, b"$8\r\n12345678\r\n", push]))
        connection.recv(1)

    asked = b"SET a b\r\n" + command(b"INCR", b"n") + command(b"SET", b"c", b"d") + command(b"GET", b"k")
    server.handler = handler
    toxic_id = add(store_proxy, "partial_answers", link="odd", share=1, seed=1)
    expected = b"".join([others[0], push, *others[1:], push, b"$-1\r\n", push])
    with store_proxy.connect("odd") as client:
        client.sendall(asked)
        assert read_exactly(client, len(expected)) == expected
    stats = store_proxy.links.stats(toxic_id)
    assert stats["seen"] == stats["affected"] == 1


def test_a_connection_that_subscribed_is_left_alone(store_proxy, store):
    """In RESP 3 a push confirms the subscription, so that its request has no reply; reads may follow it."""
    add(store_proxy, "schema_mismatch", link="features", share=1, seed=1)
    with store_proxy.connect("features") as client:
        client.sendall(b"HELLO 3\r\n")
        hello = b""
        while b"modules" not in hello:
            hello += client.recv(4096)
        client.sendall(b"SUBSCRIBE news\r\nGET e1\r\nGET e2\r\n")
        got = b""
        while got.count(b"$24\r\n") < 2 or len(got.rpartition(b"$24\r\n")[2]) < 26:
            got += client.recv(4096)
        assert got.endswith(b"$24\r\n" + vector(1) + b"\r\n$24\r\n" + vector(2) + b"\r\n")


@pytest.mark.parametrize("first", [b"SUBSCRIBE news\r\n", b"CLIENT REPLY SKIP\r\n", b"MONITOR\r\n"])
def test_all_passes_where_replies_have_no_boundaries_any_more(store_proxy, store, first):
    add(store_proxy, "schema_mismatch", link="features", share=1, seed=1)
    with store_proxy.connect("features") as client:
        client.sendall(first)
        if first.startswith(b"SUBSCRIBE"):
            assert b"subscribe" in client.recv(4096)
            store.direct.publish("news", vector(1))
            assert client.recv(4096).endswith(vector(1) + b"\r\n")
        elif first.startswith(b"MONITOR"):
            assert client.recv(4096) == b"+OK\r\n"
            store.direct.get("e1")
            assert b'"GET" "e1"' in client.recv(4096)
        else:
            client.sendall(b"PING\r\nGET e1\r\n")
            assert read_exactly(client, 7 + 5 + 26 - 7) == b"$24\r\n" + vector(1) + b"\r\n"


def test_a_client_that_reads_late_is_served(store_proxy, store):
    """It sends a thousand reads of 10 kB before it looks at the first answer."""
    store.direct.set("big", b"z" * 10_000)
    add(store_proxy, "partial_answers", link="features", share=1, seed=1, key_prefix="nobody:")
    with store_proxy.connect("features") as client:
        client.sendall(command(b"GET", b"big") * 1000)
        one = b"$10000\r\n" + b"z" * 10_000 + b"\r\n"
        assert read_exactly(client, 1000 * len(one)) == one * 1000


def test_huge_values_pass_both_ways_in_little_memory(store_proxy, connect, store):
    size = 48 << 20
    value = os.urandom(1 << 20) * (size >> 20)
    client = connect()
    client.ping()
    add(store_proxy, "partial_answers", link="features", share=1, seed=1)
    before_kb = resident_kb(store_proxy.pid)
    client.set("huge", value)
    # Too long to be held, so it is passed on as it is.
    assert hashlib.sha256(client.get("huge")).digest() == hashlib.sha256(value).digest()
    assert resident_kb(store_proxy.pid) - before_kb < 30_000
    assert client.get("e1") is None
    store.direct.delete("huge")


def resident_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


# Delays.


def test_a_request_is_held_once_however_many_chunks_it_comes_in(store_proxy, store):
    toxic_id = add(store_proxy, "latency", link="features", low_ms=30, high_ms=50, seed=7)
    latency = Latency(low_ms=30, high_ms=50, seed=7)
    request = command(b"MGET", *(name.encode() for name in ENTITIES[:8]))
    with store_proxy.connect("features") as client:
        for n in range(4):  # The second and later ones as the first.
            began_s = time.monotonic()
            for at in range(0, len(request), 20):
                client.sendall(request[at : at + 20])
                time.sleep(0.001)
            read_exactly(client, 4 + 8 * 31)
            took_ms = (time.monotonic() - began_s) * 1000
            assert latency.delay_ms(n) <= took_ms < latency.delay_ms(n) + 100
    stats = store_proxy.links.stats(toxic_id)
    assert stats["seen"] == stats["affected"] == 4


def test_pipelined_requests_wait_at_the_same_time_and_stay_in_order(store_proxy, store):
    toxic_id = add(store_proxy, "latency", link="features", low_ms=40, high_ms=80, seed=1)
    with store_proxy.connect("features") as client:
        began_s = time.monotonic()
        client.sendall(b"".join(command(b"GET", name.encode()) for name in ENTITIES))
        got = read_exactly(client, len(ENTITIES) * 31)
        assert time.monotonic() - began_s < 0.5  # Not 24 times 60 ms.
    assert got == b"".join(b"$24\r\n" + vector(number) + b"\r\n" for number in range(len(ENTITIES)))
    assert store_proxy.links.stats(toxic_id)["affected"] == len(ENTITIES)


def test_own_connections_are_counted_apart(store_proxy, connect, store):
    toxics = [
        add(store_proxy, "latency", link="features", low_ms=1, high_ms=1, seed=1),
        add(store_proxy, "partial_answers", link="features", share=1, seed=1),
    ]
    with store_proxy.connect("features") as own:
        own.sendall(command(b"CLIENT", b"SETNAME", OWN_NAME) + command(b"GET", b"e1"))
        assert read_exactly(own, 10) == b"+OK\r\n$-1\r\n"
    assert connect().get("e2") is None
    slow, partial = (store_proxy.links.stats(one) for one in toxics)
    assert slow["own_affected"] == 2
    assert (partial["own_seen"], partial["own_affected"]) == (1, 1)
    assert (partial["seen"], partial["affected"]) == (1, 1)
    assert [one["asked"] for one in partial["changed"]] == [["GET", "e2"]]


# Values.


def test_wrong_entities_stay_the_same_wrong_ones_and_follow_the_store(store_proxy, connect, store):
    client = connect()
    right = [vector(number) for number in range(len(ENTITIES))]
    toxic_id = add(store_proxy, "wrong_entity", link="features", share=0.5, seed=3)
    first = client.mget(ENTITIES)
    hit = [number for number, value in enumerate(first) if value != right[number]]
    assert 4 < len(hit) < 20
    assert all(value in right for value in first)
    assert client.mget(ENTITIES) == connect().mget(ENTITIES) == first  # Request 2, and another connection.
    assert [client.get(name) for name in ENTITIES] == first
    store.direct.mset({name: vector(100 + n) for n, name in enumerate(ENTITIES)})
    after = client.mget(ENTITIES)
    given = {number: right.index(first[number]) for number in hit}
    assert [after[number] for number in hit] == [vector(100 + given[number]) for number in hit]
    assert store_proxy.links.remove(toxic_id)
    assert client.mget(ENTITIES) == [vector(100 + number) for number in range(len(ENTITIES))]


def test_the_seed_and_the_key_alone_choose(store_proxy, connect):
    client = connect()

    def missing(seed: int, names: list[str]) -> set[str]:
        toxic_id = add(store_proxy, "partial_answers", link="features", share=0.4, seed=seed)
        found = {name for name, value in zip(names, client.mget(names), strict=True) if value is None}
        store_proxy.links.remove(toxic_id)
        return found

    assert missing(5, ENTITIES) == missing(5, ENTITIES[::-1])
    assert missing(5, ENTITIES) != missing(6, ENTITIES)


@pytest.mark.parametrize("protocol", [2, 3])
def test_partial_answers_of_every_read(store_proxy, connect, protocol):
    client = connect(protocol=protocol)
    toxic = PartialAnswers(share=1, seed=1)
    kept = {name: client.hget("row2", name) for name in "abc" if not toxic.takes(b"row2", name.encode())}
    assert 0 < len(kept) < 3
    for how, many, fields in (
        ("nil", [None] * 3, [kept.get(name) for name in "abc"]),
        ("fewer", [], list(kept.values())),
    ):
        toxic_id = add(store_proxy, "partial_answers", link="features", share=1, seed=1, how=how)
        assert client.mget(ENTITIES[:3]) == many
        assert client.get("e1") is None
        assert client.hmget("row2", *"abc") == fields
        assert [client.hget("row2", name) for name in "abc"] == [kept.get(name) for name in "abc"]
        assert client.hgetall("row2") == {name.encode(): value for name, value in kept.items()}
        assert client.get("nobody") is None
        store_proxy.links.remove(toxic_id)
    assert client.hget("row1", "a") == vector(1)


@pytest.mark.parametrize(
    ("change", "made"),
    [
        ("column_added", lambda floats: np.append(floats, 0.0).astype("<f8")),
        ("column_dropped", lambda floats: floats[:-1]),
        ("reordered", lambda floats: floats[::-1]),
        ("float32", lambda floats: floats.astype("<f4")),
        ("big_endian", lambda floats: floats.astype(">f8")),
    ],
)
def test_schemas(store_proxy, connect, change, made):
    client = connect()
    rows = {f"row{n}": client.hgetall(f"row{n}") for n in range(1, 3)}
    toxic_id = add(store_proxy, "schema_mismatch", link="features", share=1, seed=1, change=change)
    expected = [made(np.frombuffer(vector(number), dtype="<f8")).tobytes() for number in range(1, 4)]
    assert client.mget(["e1", "e2", "e3"]) == expected
    assert client.get("e1") == expected[0]
    assert client.hget("row1", "a") == expected[0]
    row = client.hgetall("row1")
    if change == "column_added":
        assert row == {**rows["row1"], b"column_added": bytes(8)}
    elif change == "column_dropped":
        assert row == {name: value for name, value in rows["row1"].items() if name != b"c"}
    elif change == "reordered":
        assert list(row) == list(rows["row1"])
        assert list(row.values()) == list(rows["row1"].values())[::-1]
    else:
        assert row == rows["row1"]  # One of its fields is no packed number.
        assert client.hgetall("nobody") == {}
    assert store_proxy.links.stats(toxic_id)["of_another_form"] == (change in ("float32", "big_endian"))


def test_stale_values_stay_as_they_were_first_read(store_proxy, connect, store):
    client = connect()
    toxic_id = add(store_proxy, "stale_values", link="features", share=1, seed=1)
    assert client.mget(["e1", "e2", "nobody"]) == [vector(1), vector(2), None]
    assert client.hgetall("row1")[b"c"] == b"1"
    store.direct.mset({"e1": b"new", "nobody": b"new", "e3": b"new"})
    store.direct.hset("row1", "c", b"new")
    assert client.mget(["e1", "e2", "nobody", "e3"]) == [vector(1), vector(2), None, b"new"]
    assert connect().get("e1") == vector(1)
    assert client.hgetall("row1")[b"c"] == b"1"
    stats = store_proxy.links.stats(toxic_id)
    # What did not change in the meantime was not hit.
    assert (stats["seen"], stats["affected"], stats["changed_values"]) == (5, 3, 4)
    new, old = "3 bytes (6e6577)", f"24 bytes ({vector(1)[:16].hex()}...)"
    assert stats["changed"][0] == {"asked": ["GET", "e1"], "held": new, "given": old}
    store_proxy.links.remove(toxic_id)
    assert client.get("e1") == b"new"


def test_two_toxics_act_one_after_the_other(store_proxy, connect, store):
    client = connect()
    add(store_proxy, "stale_values", link="features", share=1, seed=1)
    client.get("e1")
    store.direct.set("e1", vector(7))
    add(store_proxy, "schema_mismatch", link="features", share=1, seed=1, change="column_dropped")
    assert client.get("e1") == vector(1)[:-8]


def test_a_transaction_is_left_alone(store_proxy, connect):
    add(store_proxy, "partial_answers", link="features", share=1, seed=1)
    with connect().pipeline(transaction=True) as commands:
        commands.get("e1")
        commands.hgetall("row1")
        first, row = commands.execute()
    assert first == vector(1)
    assert len(row) == 3
    assert connect().get("e1") is None


def test_removing_a_toxic_lets_go_of_the_reply_that_it_held(store_proxy, server):
    """Half a reply has come when the toxic goes: the user gets both halves, unchanged."""
    go = threading.Event()

    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"*2\r\n$3\r\nabc\r\n$6\r\nde")
        go.wait(10)
        connection.sendall(b"f\r\nh\r\n+then\r\n")
        connection.recv(1000)

    server.handler = handler
    toxic_id = add(store_proxy, "partial_answers", link="odd", share=1, seed=1)
    with store_proxy.connect("odd") as client:
        client.sendall(command(b"MGET", b"a", b"b") + command(b"PING"))
        answer = in_background(lambda: read_exactly(client, 32))
        assert wait_for(lambda: pending(store_proxy, toxic_id), within_s=5)
        assert store_proxy.links.remove(toxic_id)
        go.set()
        assert answer() == b"*2\r\n$3\r\nabc\r\n$6\r\ndef\r\nh\r\n+then\r\n"


def test_a_reply_that_is_cut_short_is_passed_on(store_proxy, server):
    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"$24\r\nonly this")

    server.handler = handler
    add(store_proxy, "partial_answers", link="odd", share=1, seed=1)
    with store_proxy.connect("odd") as client:
        client.sendall(command(b"GET", b"a"))
        assert read_exactly(client, 100) == b"$24\r\nonly this"


WRONG = [
    ("wrong_entity", {"share": 2, "seed": 1}, r"share: 2.0 is not in \(0, 1\]"),
    ("partial_answers", {"share": 1, "seed": 1, "how": "some"}, "how: 'some' is not one of nil, fewer"),
    ("schema_mismatch", {"share": 1, "seed": 1, "change": "all"}, "change: 'all' is not one of column_added"),
    ("stale_values", {"seed": 1}, "parameter 'share' is missing"),
]


@pytest.mark.parametrize(("kind", "parameters", "words"), WRONG)
def test_wrong_parameters(store_proxy, kind, parameters, words):
    with pytest.raises(Exception, match=words):
        add(store_proxy, kind, link="features", **parameters)


def test_values_are_those_of_redis_links_only(proxy):
    with pytest.raises(Exception, match="needs a link whose protocol is redis, and this one is tcp"):
        add(proxy, "wrong_entity", link="raw", share=1, seed=1)
