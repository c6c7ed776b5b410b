"""What the fault proxy promises of its toxics, measured: replay, the owner's end, and the reach of a change."""

from __future__ import annotations

import signal
import socket
import statistics
import subprocess
import sys
import time

from proxy_peers import Peer
from proxy_traffic import REQUEST, Traffic

from monkeyproof.runtime.rpc import Client

_OWNER = """
import sys, time
from monkeyproof.runtime.rpc import Client
client = Client(sys.argv[1])
client.call("add", link="small-http", kind="latency", parameters={"low_ms": 60000, "high_ms": 60000, "seed": 1})
print("on", flush=True)
time.sleep(60)
"""


def replay(peer: Peer, traffic: Traffic, requests: int) -> float:
    """The correlation of the delays that users measured in two runs with the same seed."""
    runs = []
    with Client(peer.control) as client:
        for _ in range(2):
            latency = {"low_ms": 5, "high_ms": 100, "seed": 7}
            toxic = client.call("add", link="small-http", kind="latency", parameters=latency)
            runs.append(traffic.one_by_one(peer.small["http"], requests))
            client.call("remove", **toxic)
    return statistics.correlation(*runs)


def after_a_kill(peer: Peer, times: int) -> list[float]:
    """Milliseconds from an owner's SIGKILL until a request that its toxic held was answered."""
    gone_ms = []
    for _ in range(times):
        argv = [sys.executable, "-c", _OWNER, str(peer.control)]
        with (
            subprocess.Popen(argv, stdout=subprocess.PIPE) as owner,
            socket.create_connection(("127.0.0.1", peer.small["http"])) as user,
        ):
            if owner.stdout is None or owner.stdout.readline() != b"on\n":
                sys.exit("the owner of a toxic did not start")
            user.sendall(REQUEST % b"")
            user.settimeout(0.05)
            try:
                user.recv(1)
                sys.exit("a request was not held")
            except TimeoutError:
                user.settimeout(10)
            killed_s = time.monotonic()
            owner.send_signal(signal.SIGKILL)
            user.recv(1)
            gone_ms.append((time.monotonic() - killed_s) * 1000)
    return gone_ms


def reach(peer: Peer, connections: int, times: int) -> tuple[int, list[float]]:
    """Live connections that a change had not reached when its call returned, and the ms that each call took."""
    missed, took_ms = 0, []
    error = {"probability": 1, "status": 503, "seed": 1}
    users = [socket.create_connection(("127.0.0.1", peer.small["http"])) for _ in range(connections)]
    try:
        with Client(peer.control) as client:
            for _ in range(times):
                started_s = time.monotonic()
                toxic = client.call("add", link="small-http", kind="http_error", parameters=error)
                took_ms.append((time.monotonic() - started_s) * 1000)
                missed += _not_answered(users, b"HTTP/1.1 503")
                started_s = time.monotonic()
                client.call("remove", **toxic)
                took_ms.append((time.monotonic() - started_s) * 1000)
                missed += _not_answered(users, b"HTTP/1.1 200")
    finally:
        for user in users:
            user.close()
    return missed, took_ms


def _not_answered(users: list[socket.socket], status: bytes) -> int:
    for user in users:
        user.sendall(REQUEST % b"")
    return sum(not user.recv(4096).startswith(status) for user in users)
