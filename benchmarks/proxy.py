"""The fault proxy beside haproxy, Envoy and Toxiproxy: the same traffic in turns, on the same machine.

    python benchmarks/proxy.py [--rounds 5] [--seconds 1.0] [--connections 16] [--only rate,bulk,delay,promises]

Every proxy is one process on one core; the servers and clients share the others. Absolute rates depend on the
machine and its neighbours; the ratio of two medians of the same run, and CPU time, hardly do. docs/benchmarks.md
says how to get the peers, and has the last table.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import proxy_guarantees
from proxy_peers import Peer, Servers, envoy, haproxy, ours, toxiproxy, toxiproxy_call, undisturbed
from proxy_traffic import Traffic, download, upload

from monkeyproof.clock import wait_for
from monkeyproof.paths import socket_dir
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.runtime.rpc import Client

DELAYS_MS, RATES_PER_S = (5, 20, 100), (200, 1000)
BULK_BYTES = 1 << 28
SECTIONS = ("rate", "bulk", "delay", "promises")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", default=",".join(SECTIONS), help="some of: %(default)s")
    arguments = parser.parse_args()
    folder, sockets = Path(tempfile.mkdtemp(prefix="mp-bench-")), socket_dir()
    cores = sorted(os.sched_getaffinity(0))
    try:
        with ProcessGroup() as group:
            log = folder / "servers.log"
            os.sched_setaffinity(0, cores[:-1] or cores)
            group.start([sys.executable, str(Path(__file__).with_name("proxy_traffic.py"))], log=log)
            if not wait_for(lambda: log.read_text().endswith("\n"), within_s=20):
                sys.exit(f"the servers did not start: {log.read_text()}")
            traffic = Traffic()
            servers = Servers(traffic.port, int(log.read_text()))
            run(arguments, traffic, list(start(group, folder, sockets, servers, cores[-1])))
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(sockets)


def start(group: ProcessGroup, folder: Path, sockets: Path, servers: Servers, core: int) -> Iterator[Peer]:
    """Ours, and those peers that are there."""
    yield ours(group, folder, sockets, servers, core)
    for begin in (haproxy, envoy, toxiproxy):
        if (peer := begin(group, folder, servers, core)) is None:
            print(f"{begin.__name__}: MISSING (not on PATH), so nothing is said about it")
        else:
            yield peer


def run(arguments: argparse.Namespace, traffic: Traffic, peers: list[Peer]) -> None:
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        sys.exit(f"--only {unknown.pop()}: there are {', '.join(SECTIONS)}")
    if "rate" in wanted:
        rates(arguments, traffic, peers)
    if "bulk" in wanted:
        bulk(arguments, peers)
    if "delay" in wanted:
        with undisturbed(peers):
            delays(arguments, traffic, peers)
    if "promises" in wanted:
        with undisturbed(peers[:1]):
            promises(traffic, peers[0])


def rates(arguments: argparse.Namespace, traffic: Traffic, peers: list[Peer]) -> None:
    """Requests a second, and CPU time a request. ``ours http+fault`` decides on each request, and hits none."""
    lanes: list[tuple[str, Peer | None, int]] = [("direct", None, traffic.port)]
    lanes += [(f"{one.name} {kind}", one, port) for one in peers for kind, port in one.small.items()]
    lanes.append(("ours http+fault", peers[0], peers[0].small["http"]))
    rate: dict[str, list[float]] = defaultdict(list)
    p50_ms: dict[str, list[float]] = defaultdict(list)
    cpu_us: dict[str, list[float]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, peer, port in lanes:
            with _deciding(peers[0]) if name.endswith("+fault") else contextlib.nullcontext():
                before_s = peer.cpu_s() if peer else 0.0
                took_ms = traffic.as_many_as_possible(port, arguments.connections, arguments.seconds)
                cpu_us[name].append(((peer.cpu_s() if peer else 0.0) - before_s) / len(took_ms) * 1e6)
                rate[name].append(len(took_ms) / arguments.seconds)
                p50_ms[name].append(statistics.median(took_ms))
    print(f"\nRequests a second, {arguments.connections} connections, medians of {arguments.rounds} turns")
    for name, _, _ in lanes:
        ratio = statistics.median(rate[name]) / statistics.median(rate["direct"])
        many, middle_ms, cost_us = (statistics.median(one[name]) for one in (rate, p50_ms, cpu_us))
        print(
            f"  {name:16} {many:8.0f}/s  {ratio:.2f} of direct  p50 {middle_ms:.3f} ms  "
            f"CPU {cost_us:5.1f} us a request"
        )
    for mine, theirs, least in (
        ("ours tcp", "haproxy tcp", 0.9),
        ("ours http", "haproxy tcp", 0.9),
        ("ours http", "haproxy http", 0.9),
        ("ours http", "envoy http", 2.2),
        ("ours http+fault", "envoy http", 2.2),
    ):
        if theirs in rate:
            ratio = statistics.median(rate[mine]) / statistics.median(rate[theirs])
            _target(f"{mine} / {theirs} {ratio:.2f}, at least {least}", ratio >= least)


@contextlib.contextmanager
def _deciding(peer: Peer) -> Iterator[None]:
    with Client(peer.control) as client:
        never = {"probability": 1e-12, "status": 503, "seed": 1}
        client.call("add", link="small-http", kind="http_error", parameters=never)
        yield


def _target(what: str, met: bool) -> None:
    print(f"  {'met' if met else 'NOT MET':8} {what}")


@contextlib.contextmanager
def _ours_delays(peer: Peer, kind: str, delay_ms: int) -> Iterator[bytes]:
    with Client(peer.control) as client:
        latency = {"low_ms": delay_ms, "high_ms": delay_ms, "seed": 1}
        client.call("add", link=f"small-{kind}", kind="latency", parameters=latency)
        yield b""


@contextlib.contextmanager
def _toxiproxy_delays(peer: Peer, _kind: str, delay_ms: int) -> Iterator[bytes]:
    toxic = {"name": "slow", "type": "latency", "stream": "upstream", "attributes": {"latency": delay_ms}}
    toxiproxy_call(peer, "POST", "/proxies/small/toxics", toxic)
    try:
        yield b""
    finally:
        toxiproxy_call(peer, "DELETE", "/proxies/small/toxics/slow")


@contextlib.contextmanager
def _envoy_delays(_peer: Peer, _kind: str, delay_ms: int) -> Iterator[bytes]:
    yield b"x-envoy-fault-delay-request: %d\r\n" % delay_ms


Delaying = Callable[[Peer, str, int], contextlib.AbstractContextManager[bytes]]
DELAYING: dict[str, Delaying] = {"ours": _ours_delays, "toxiproxy": _toxiproxy_delays, "envoy": _envoy_delays}


def delays(arguments: argparse.Namespace, traffic: Traffic, peers: list[Peer]) -> None:
    """The error of an injected delay: what the answers took with it, less the mean without it and the delay."""
    # Twice as many turns of half the length: the median of their means bears more that a neighbour spoils.
    turns, duration_s = 2 * arguments.rounds, arguments.seconds / 2
    print(
        f"\nError of an injected delay in ms, {turns} turns each: the mean of the median turn; of all answers the"
    )
    print("median, the 99th percentile, and the soonest that one came after its delay (the way takes about 0.2)")
    lanes = [(peer, kind) for peer in peers if peer.name in DELAYING for kind in peer.small]
    worst_ms, soonest_ms = 0.0, float("inf")
    for rate_per_s, delay_ms in itertools.product(RATES_PER_S, DELAYS_MS):
        errors_ms: dict[str, list[list[float]]] = defaultdict(list)
        margins_ms: dict[str, list[float]] = defaultdict(list)
        for _ in range(turns):
            for peer, kind in lanes:
                port, name = peer.small[kind], f"{peer.name} {kind}"
                plain_ms = traffic.at_a_rate(port, rate_per_s, duration_s, delay_ms)
                with DELAYING[peer.name](peer, kind, delay_ms) as header:
                    took_ms = traffic.at_a_rate(port, rate_per_s, duration_s, delay_ms, header)
                base_ms = statistics.fmean(plain_ms)
                errors_ms[name].append([one - delay_ms - base_ms for one in took_ms])
                margins_ms[name].append(min(took_ms) - delay_ms)
        for name, found in errors_ms.items():
            mean_ms, soon_ms = statistics.median(map(statistics.fmean, found)), min(margins_ms[name])
            together_ms = sorted(itertools.chain(*found))
            median_ms, p99_ms = together_ms[len(together_ms) // 2], together_ms[len(together_ms) * 99 // 100]
            if name.startswith("ours"):
                worst_ms, soonest_ms = max(worst_ms, abs(mean_ms)), min(soonest_ms, soon_ms)
            print(
                f"  {rate_per_s:4}/s {delay_ms:3} ms  {name:13}  mean {mean_ms:+.3f}  median {median_ms:+.3f}  "
                f"p99 {p99_ms:+.3f}  soonest {soon_ms:+.3f}"
            )
    _target(f"ours: worst mean error {worst_ms:.3f} ms, at most 0.15", worst_ms <= 0.15)
    _target(f"ours: soonest {soonest_ms:+.3f} ms, at least -0.05", soonest_ms >= -0.05)


def bulk(arguments: argparse.Namespace, peers: list[Peer]) -> None:
    """CPU time of the proxy for each GiB, to the client and to the server."""
    print(f"\nBulk copy: CPU seconds of the proxy a GiB, medians of {arguments.rounds} turns")
    lanes = [(peer, kind, way) for peer in peers for kind in peer.bulk for way in (download, upload)]
    cost_s: dict[tuple[str, str], list[float]] = defaultdict(list)
    took_s: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for peer, kind, way in lanes:
            before_s = peer.cpu_s()
            lane = f"{peer.name} {kind}", way.__name__
            took_s[lane].append(way(peer.bulk[kind], BULK_BYTES) * (1 << 30) / BULK_BYTES)
            cost_s[lane].append((peer.cpu_s() - before_s) * (1 << 30) / BULK_BYTES)
    for lane, costs in cost_s.items():
        took = statistics.median(took_s[lane])
        print(f"  {lane[0]:15} {lane[1]:8} CPU {statistics.median(costs):.2f} s/GiB  took {took:.2f} s/GiB")
    worst_s = max(statistics.median(costs) for lane, costs in cost_s.items() if lane[0] == "ours tcp")
    _target(f"ours tcp {worst_s:.2f} s of CPU a GiB, at most 0.5", worst_s <= 0.5)


def promises(traffic: Traffic, peer: Peer) -> None:
    print("\nWhat the proxy promises of its faults")
    correlation = proxy_guarantees.replay(peer, traffic, 150)
    _target(f"same seed, same delays: correlation {correlation:.5f}, at least 0.999", correlation >= 0.999)
    with traffic.serving():
        gone_ms = proxy_guarantees.after_a_kill(peer, 20)
        missed, took_ms = proxy_guarantees.reach(peer, 200, 20)
    _target(
        f"fault of a killed owner gone after {statistics.median(gone_ms):.2f} ms, at most {max(gone_ms):.2f} of "
        f"{len(gone_ms)} times; at most 10",
        max(gone_ms) <= 10,
    )
    _target(
        f"live connections (of 200) that a change had not reached when its call returned, after {len(took_ms)} "
        f"changes: {missed}; a call takes {statistics.median(took_ms):.2f} ms",
        missed == 0,
    )


if __name__ == "__main__":
    main()
