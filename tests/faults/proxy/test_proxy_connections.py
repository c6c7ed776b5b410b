"""Toxics that act on the bytes of single connections: live ones, request 2 and later, and when they go."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up; stand-ins ignore arguments)

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
from fault_world import OK, Browser, add, in_background, read_exactly

from monkeyproof.clock import wait_for
from monkeyproof.faults.proxy.toxics.corrupt_bytes import CorruptBytes
from monkeyproof.faults.proxy.toxics.reset import ResetConnections
from monkeyproof.targets.links import ProxyLinks
from monkeyproof.targets.port import Toxic

PAYLOAD = bytes(range(256)) * 40


def stat(proxy, toxic_id: str, name: str) -> float:
    return proxy.links.stats(toxic_id).get(name, 0)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)


@pytest.fixture
def echoing(proxy, server):
    """A connection over which bytes have gone to and fro already."""
    server.handler = echo
    with proxy.connect("raw") as client:
        client.sendall(b"warm")
        assert read_exactly(client, 4) == b"warm"
        yield client


def numbered(proxy, link: str, count: int) -> list[socket.socket]:
    """Connections that the proxy has accepted one after another."""
    found = []
    for _ in range(count):
        found.append(proxy.connect(link))
        found[-1].sendall(b"warm")
        assert read_exactly(found[-1], 4) == b"warm"
    return found


# Bandwidth.


@pytest.mark.parametrize("direction", ["request", "response"])
def test_bandwidth_paces_a_live_connection_and_lets_go_of_the_rest(proxy, echoing, direction):
    toxic_id = add(proxy, "bandwidth", link="raw", seed=1, direction=direction, kib_per_s=20)
    sent = os.urandom(60 * 1024)
    sender = threading.Thread(target=echoing.sendall, args=(sent,))
    started_s = time.monotonic()
    sender.start()
    got = read_exactly(echoing, 8 * 1024)
    took_s = time.monotonic() - started_s
    # All but the first slice (20 ms worth) and what is read at a time has to wait its time; never faster.
    assert 0.33 < took_s < 2
    assert stat(proxy, toxic_id, "affected") == 1
    assert stat(proxy, toxic_id, "waited_ms_total") > 200
    freed_s = time.monotonic()
    assert proxy.links.remove(toxic_id)
    got += read_exactly(echoing, len(sent) - len(got))
    sender.join()
    assert time.monotonic() - freed_s < 1
    assert got == sent


@pytest.mark.parametrize(("per", "low_s", "high_s"), [("link", 0.55, 3), ("connection", 0.13, 0.55)])
def test_a_bandwidth_is_shared_by_the_link_or_not(proxy, server, per, low_s, high_s):
    server.handler = echo
    clients = numbered(proxy, "raw", 4)
    add(proxy, "bandwidth", link="raw", seed=1, direction="response", kib_per_s=20, per=per)
    started_s = time.monotonic()
    for client in clients:
        client.sendall(b"x" * 3 * 1024)
    first = read_exactly(clients[0], 3 * 1024)
    for client in clients[1:]:
        assert read_exactly(client, 3 * 1024) == first
    took_s = time.monotonic() - started_s
    assert low_s < took_s < high_s
    for client in clients:
        client.close()


def test_a_paced_answer_is_whole_though_the_server_has_closed(proxy, server):
    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + PAYLOAD)

    server.handler = handler
    add(proxy, "bandwidth", seed=1, direction="response", kib_per_s=40)
    with proxy.connect("web") as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_exactly(client, 1 << 20) == b"HTTP/1.0 200 OK\r\n\r\n" + PAYLOAD


# ResetConnections.


def test_a_reset_comes_after_so_many_bytes_and_they_arrive(proxy, echoing):
    toxic_id = add(proxy, "reset", link="raw", seed=1, direction="response", after_bytes=5000)
    echoing.sendall(PAYLOAD[:4000])
    assert read_exactly(echoing, 4000) == PAYLOAD[:4000]
    echoing.sendall(PAYLOAD[4000:8000])
    assert read_exactly(echoing, 1000) == PAYLOAD[4000:5000]
    with pytest.raises(ConnectionResetError):
        echoing.recv(1)
    assert stat(proxy, toxic_id, "affected") == 1


def test_bytes_before_a_reset_arrive_though_their_reader_is_slow(proxy, server):
    size = 6 << 20

    def handler(connection: socket.socket) -> None:
        connection.sendall(b"s" * (size + 1000))

    server.handler = handler
    add(proxy, "reset", link="raw", seed=1, direction="response", after_bytes=size)
    with proxy.connect("raw") as client:
        read_exactly(client, size // 2)
        time.sleep(0.2)  # By now all that passes waits in buffers, which are full.
        assert len(read_exactly(client, size // 2)) == size // 2
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_bytes_count_over_all_answers_of_a_kept_alive_connection(proxy, browser, web):
    toxic_id = add(proxy, "reset", seed=1, direction="response", after_bytes=2 * len(OK) + 10)
    other_id = add(proxy, "half_close", seed=1, direction="request", after_bytes=1 << 20)
    assert [browser.ask(f"/{n}") for n in range(2)] == [(200, b"ok")] * 2
    with pytest.raises(ConnectionResetError):
        browser.ask("/third")
    assert [path for path, _ in web.saw] == ["/first", "/0", "/1", "/third"]
    assert stat(proxy, toxic_id, "affected") == 1
    assert stat(proxy, other_id, "affected") == 0


def test_a_reset_after_a_time_breaks_live_connections_and_new_ones(proxy, server):
    server.handler = echo
    with proxy.connect("raw") as live:
        live.sendall(b"x")
        assert read_exactly(live, 1) == b"x"
        toxic_id = add(proxy, "reset", link="raw", seed=1, direction="response", after_ms=80.0)
        started_s = time.monotonic()
        with pytest.raises(ConnectionResetError):
            live.recv(1)
        assert 0.07 < time.monotonic() - started_s < 1
    with proxy.connect("raw") as fresh, pytest.raises(ConnectionResetError):
        fresh.recv(1)
    assert wait_for(lambda: stat(proxy, toxic_id, "affected") == 2, within_s=2)


def test_removing_a_toxic_cancels_its_pending_resets(proxy, echoing):
    toxic_id = add(proxy, "reset", link="raw", seed=1, direction="response", after_ms=100.0)
    other_id = add(proxy, "reset", link="raw", seed=1, direction="response", after_bytes=10)
    echoing.sendall(b"12345")
    assert read_exactly(echoing, 5) == b"12345"
    proxy.links.remove(toxic_id)
    proxy.links.remove(other_id)
    time.sleep(0.15)
    echoing.sendall(b"more than ten bytes")
    assert read_exactly(echoing, 19) == b"more than ten bytes"


def test_the_seed_chooses_connections_live_ones_first(proxy, server):
    server.handler = echo
    expected = [ResetConnections(seed=12, direction="request", share=0.5).hits(n) for n in range(16)]
    assert 0 < sum(expected[:8]) < 8
    for _ in range(2):
        clients = numbered(proxy, "raw", 8)
        toxic_id = add(proxy, "reset", link="raw", seed=12, direction="request", share=0.5)
        hit = []
        for n in range(16):
            client = clients[n] if n < 8 else proxy.connect("raw")
            with client:
                try:
                    client.sendall(b"x")
                    hit.append(client.recv(1) != b"x")
                except ConnectionResetError:
                    hit.append(True)
        assert hit == expected
        assert stat(proxy, toxic_id, "seen") == 16
        assert stat(proxy, toxic_id, "affected") == sum(expected)
        proxy.links.remove(toxic_id)


# Black holes.


@pytest.mark.parametrize("direction", ["request", "response", "both"])
def test_a_black_hole_swallows_and_is_not_survived(proxy, browser, web, direction):
    toxic_id = add(proxy, "blackhole", seed=1, direction=direction)
    broken = in_background(lambda: _fails(browser))
    assert wait_for(lambda: stat(proxy, toxic_id, "swallowed_bytes") > 0, within_s=5)
    # What the server did is what direction says.
    assert wait_for(lambda: len(web.saw) == (2 if direction == "response" else 1), within_s=2)
    proxy.links.remove(toxic_id)
    assert broken() == "reset"
    assert Browser(proxy).ask("/after") == (200, b"ok")


def _fails(browser: Browser) -> str:
    try:
        browser.ask("/lost", body=b"b" * 5000)
    except ConnectionResetError:
        return "reset"
    return "answered"


def test_a_black_hole_swallows_the_end_as_well(proxy, server):
    ended = threading.Event()

    def handler(connection: socket.socket) -> None:
        connection.sendall(connection.recv(10))
        while connection.recv(10):
            pass
        ended.set()

    server.handler = handler
    with proxy.connect("raw") as client:
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        toxic_id = add(proxy, "blackhole", link="raw", seed=1, direction="request")
        client.shutdown(socket.SHUT_WR)
        assert not ended.wait(0.15)
        proxy.links.remove(toxic_id)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_connections_that_lost_nothing_in_a_black_hole_live_on(proxy, browser, web):
    toxic_id = add(proxy, "blackhole", seed=1, direction="both")
    proxy.links.remove(toxic_id)
    assert browser.ask("/after") == (200, b"ok")


# Partitions.


@pytest.mark.parametrize("link", ["web", "raw"])
def test_a_one_way_partition_lets_requests_be_done_and_answers_wait(proxy, web, link):
    browser = Browser(proxy, link)
    assert browser.ask() == (200, b"ok")
    toxic_id = add(proxy, "partition", link=link, seed=1, direction="response")
    answer = in_background(lambda: browser.ask("/done", body=b"order"))
    assert wait_for(lambda: ("/done", b"order") in web.saw, within_s=5)
    assert wait_for(lambda: stat(proxy, toxic_id, "waiting_bytes") == len(OK), within_s=5)
    proxy.links.remove(toxic_id)
    assert answer() == (200, b"ok")
    assert browser.ask("/after") == (200, b"ok")


@pytest.mark.parametrize("link", ["web", "raw"])
def test_the_other_way_round_answers_pass_and_requests_wait(proxy, web, link):
    asked, go = threading.Event(), threading.Event()

    def slow(path: str) -> bytes:
        if path == "/under-way":
            asked.set()
            go.wait(10)
        return OK

    web.answer = slow
    browser, other = Browser(proxy, link), Browser(proxy, link)
    assert other.ask() == (200, b"ok")
    under_way = in_background(lambda: browser.ask("/under-way"))
    assert asked.wait(5)
    toxic_id = add(proxy, "partition", link=link, seed=1, direction="request")
    go.set()
    assert under_way() == (200, b"ok")
    waiting = [in_background(lambda: other.ask("/live", body=PAYLOAD))]
    fresh = Browser(proxy, link)
    waiting.append(in_background(lambda: fresh.ask("/fresh")))
    assert wait_for(lambda: stat(proxy, toxic_id, "affected") == 2, within_s=5)
    assert [path for path, _ in web.saw] == ["/", "/under-way"]
    proxy.links.remove(toxic_id)
    assert [answer() for answer in waiting] == [(200, b"ok")] * 2


def test_a_partition_under_a_hang_ends_only_after_both_toxics(proxy, browser, web):
    hang_id = add(proxy, "hang")
    answer = in_background(lambda: browser.ask("/held"))
    assert wait_for(lambda: stat(proxy, hang_id, "waiting_bytes") > 0, within_s=5)
    partition_id = add(proxy, "partition", seed=1, direction="request")
    # While both hold it back, it waits for neither alone.
    assert stat(proxy, hang_id, "waiting_bytes") == stat(proxy, partition_id, "waiting_bytes") == 0
    proxy.links.remove(hang_id)
    time.sleep(0.05)
    assert len(web.saw) == 1
    proxy.links.remove(partition_id)
    assert answer() == (200, b"ok")


# Ends.


def test_a_half_close_ends_one_direction_and_leaves_the_other_open(proxy, server):
    saw: list[bytes] = []
    go = threading.Event()

    def handler(connection: socket.socket) -> None:
        connection.sendall(b"x" * 30)
        go.wait(10)
        while data := connection.recv(1000):
            saw.append(data)

    server.handler = handler
    toxic_id = add(proxy, "half_close", link="raw", seed=1, direction="response", after_bytes=20)
    with proxy.connect("raw") as client:
        assert read_exactly(client, 1000) == b"x" * 20  # And an orderly end.
        client.sendall(b"still heard")
        go.set()
        assert wait_for(lambda: saw == [b"still heard"], within_s=5)
        stats = proxy.links.stats(toxic_id)
        assert (stats["affected"], stats["swallowed_bytes"]) == (1, 10)
        proxy.links.remove(toxic_id)
        assert wait_for(lambda: _is_broken(client), within_s=5)  # Ten bytes of it are gone.


def _is_broken(client: socket.socket) -> bool:
    try:
        client.sendall(b"?")
    except ConnectionError:
        return True
    return False


def test_bytes_after_an_early_end_reset_even_without_the_toxic(proxy, echoing):
    toxic_id = add(proxy, "half_close", link="raw", seed=1, direction="response", after_bytes=3)
    echoing.sendall(b"abc")
    assert read_exactly(echoing, 100) == b"abc"
    proxy.links.remove(toxic_id)  # Nothing was lost so far.
    echoing.sendall(b"d")
    assert wait_for(lambda: _is_broken(echoing), within_s=5)


def test_a_server_that_receives_the_end_early_can_still_answer(proxy, server):
    def handler(connection: socket.socket) -> None:
        got = read_exactly(connection, 1 << 20)
        connection.sendall(b"%d bytes" % len(got))

    server.handler = handler
    add(proxy, "half_close", link="raw", seed=1, direction="request", after_bytes=7)
    with proxy.connect("raw") as client:
        client.sendall(b"1234567890")
        assert read_exactly(client, 100) == b"7 bytes"


@pytest.mark.parametrize("link", ["web", "raw"])
def test_a_slow_close_delays_the_end_alone(proxy, server, link):
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

    def handler(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(answer)

    server.handler = handler
    toxic_id = add(proxy, "slow_close", link=link, seed=1, direction="response", delay_ms=300)
    with proxy.connect(link) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        started_s = time.monotonic()
        assert read_exactly(client, len(answer)) == answer
        assert time.monotonic() - started_s < 0.25
        assert client.recv(1) == b""
        assert 0.29 < time.monotonic() - started_s < 2
    assert stat(proxy, toxic_id, "affected") == 1
    assert stat(proxy, toxic_id, "delay_min_ms") >= 300


def test_an_end_that_is_held_is_passed_on_when_the_toxic_goes(proxy, echoing):
    toxic_id = add(proxy, "slow_close", link="raw", seed=1, direction="request", delay_ms=60_000)
    echoing.sendall(b"last words")
    echoing.shutdown(socket.SHUT_WR)
    assert read_exactly(echoing, 10) == b"last words"
    assert wait_for(lambda: stat(proxy, toxic_id, "pending") == 1, within_s=5)
    proxy.links.remove(toxic_id)
    assert echoing.recv(1) == b""
    assert not proxy.links.active()


# Flipped bits.


@pytest.mark.parametrize("direction", ["request", "response"])
def test_bits_are_flipped_where_the_seed_says(proxy, echoing, direction):
    toxic = CorruptBytes(seed=6, direction=direction, block_share=0.5)
    toxic_id = add(proxy, "corrupt_bytes", link="raw", seed=6, direction=direction, block_share=0.5)
    echoing.sendall(PAYLOAD)
    got = read_exactly(echoing, len(PAYLOAD))
    expected = bytearray(PAYLOAD)
    for at, mask in toxic.flips(0, 0, len(PAYLOAD)):
        expected[at] ^= mask
    assert got == bytes(expected) != PAYLOAD
    stats = proxy.links.stats(toxic_id)
    assert stats["flipped_bits"] == len(toxic.flips(0, 0, len(PAYLOAD))) == len(stats["journal"])
    first = stats["journal"][0]
    assert (first["old"], first["new"]) == (PAYLOAD[first["at"]], got[first["at"]])
    proxy.links.remove(toxic_id)
    echoing.sendall(PAYLOAD)
    assert read_exactly(echoing, len(PAYLOAD)) == PAYLOAD


# Together.


def test_an_upgraded_connection_is_hit_as_well(proxy, server):
    request = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def handler(connection: socket.socket) -> None:
        read_exactly(connection, len(request))
        connection.sendall(answer)
        echo(connection)

    server.handler = handler
    with proxy.connect("web") as client:
        client.sendall(request)
        assert read_exactly(client, len(answer)) == answer
        toxic_id = add(proxy, "half_close", seed=1, direction="response", after_bytes=4)
        client.sendall(b"frames")
        assert read_exactly(client, 100) == b"fram"
        assert stat(proxy, toxic_id, "affected") == 1


def test_an_owner_that_goes_takes_all_of_them_along(proxy, browser, web):
    owner = ProxyLinks(proxy.control)
    seeded = {"seed": 1, "direction": "response"}
    owner.add(Toxic("web", "latency", {**seeded, "low_ms": 60_000, "high_ms": 60_000}))
    owner.add(Toxic("web", "bandwidth", {**seeded, "kib_per_s": 0.1}))
    held_id = owner.add(Toxic("web", "slow_close", {**seeded, "delay_ms": 60_000}))
    owner.add(Toxic("web", "rate_limit", {"limit_per_s": 0.001}))
    parted_id = owner.add(Toxic("web", "partition", seeded))
    answer = in_background(lambda: browser.ask("/held", body=PAYLOAD))
    assert wait_for(lambda: stat(proxy, parted_id, "waiting_bytes") > 0, within_s=5)
    assert held_id in proxy.links.active()
    owner.close()
    assert answer() == (200, b"ok")
    assert list(proxy.links.active()) == []
    assert web.saw[-1] == ("/held", PAYLOAD)


def test_several_toxics_on_one_connection_all_act(proxy, echoing):
    paced = add(proxy, "bandwidth", link="raw", seed=1, direction="response", kib_per_s=40)
    add(proxy, "latency", link="raw", seed=1, direction="response", low_ms=100, high_ms=100)
    add(proxy, "reset", link="raw", seed=1, direction="response", after_bytes=6000)
    started_s = time.monotonic()
    echoing.sendall(PAYLOAD[:7000])
    assert read_exactly(echoing, 6000) == PAYLOAD[:6000]
    assert 0.2 < time.monotonic() - started_s < 1.5
    with pytest.raises(ConnectionResetError):
        echoing.recv(1)
    assert stat(proxy, paced, "affected") == 1
