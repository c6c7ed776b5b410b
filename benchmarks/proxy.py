"""What the fault proxy costs: the same requests with and without it, in turns, on the same machine.

    python benchmarks/proxy.py [--rounds 5] [--seconds 1.0] [--connections 16]

Absolute rates depend on the machine and its neighbours; the ratio of the medians and the CPU time a request
hardly do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError
from monkeyproof.paths import socket_dir
from monkeyproof.process import ProcessGroup
from monkeyproof.rpc import Client

REQUEST = b"POST /invocations HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nContent-Length: 60\r\n\r\n" + b"q" * 60
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Model-Version: 3\r\nContent-Length: 200\r\n\r\n"
    + b"a" * 200
)


class Answering(asyncio.Protocol):
    """Answers each request, counting bytes instead of parsing, so that the server costs as little as it can."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._got = transport, 0

    def data_received(self, data: bytes) -> None:
        self._got += len(data)
        while self._got >= len(REQUEST):
            self._got -= len(REQUEST)
            self._transport.write(RESPONSE)  # type: ignore[attr-defined]


class Asking(asyncio.Protocol):
    """Sends the next request when the answer is complete, and notes how long it took."""

    def __init__(self, took_ms: list[float]) -> None:
        self._took_ms, self._got, self._sent_s = took_ms, 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._sent_s = time.monotonic()
        self._transport.write(REQUEST)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._got += len(data)
        if self._got >= len(RESPONSE):
            self._got = 0
            self._took_ms.append((time.monotonic() - self._sent_s) * 1000)
            self._ask()

    def close(self) -> None:
        self._transport.abort()  # type: ignore[attr-defined]


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def ask(port: int, connections: int, duration_s: float) -> list[float]:
    took_ms: list[float] = []
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Asking(took_ms), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(duration_s)
    for client in clients:
        client.close()
    return took_ms


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(control: Path) -> bool:
    with contextlib.suppress(TargetError), Client(control) as client:
        client.call("ping")
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve())
        return
    folder, sockets = Path(tempfile.mkdtemp(prefix="mp-bench-")), socket_dir()
    try:
        with ProcessGroup() as group:
            log = folder / "server"
            group.start([sys.executable, __file__, "--serve"], log=log)
            if not wait_for(lambda: log.read_text().endswith("\n"), within_s=20):
                sys.exit("the server did not start")
            server = int(log.read_text())
            forward = {"forward": f"127.0.0.1:{server}", "listen": "127.0.0.1:0"}
            links = {name: {**forward, "protocol": name} for name in ("http", "tcp")}
            (folder / "links.json").write_text(json.dumps(links))
            control = sockets / "p"
            proxy = group.start(
                [
                    *(sys.executable, "-m", "monkeyproof.faults.proxy"),
                    *("--links", str(folder / "links.json"), "--control", str(control)),
                ],
                log=folder / "proxy",
            )
            if not wait_for(lambda: answers(control), within_s=20):
                sys.exit((folder / "proxy").read_text())
            with Client(control) as client:
                addresses = client.call("addresses")
            report(
                arguments, proxy.pid, {"direct": server} | {k: int(v.split(":")[1]) for k, v in addresses.items()}
            )
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(sockets)


def report(arguments: argparse.Namespace, proxy_pid: int, ports: dict[str, int]) -> None:
    rates: dict[str, list[float]] = {name: [] for name in ports}
    medians: dict[str, list[float]] = {name: [] for name in ports}
    cpu_us: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(arguments.rounds):
        for name, port in ports.items():
            before_s = cpu_s(proxy_pid)
            took_ms = uvloop.run(ask(port, arguments.connections, arguments.seconds))
            rates[name].append(len(took_ms) / arguments.seconds)
            medians[name].append(statistics.median(took_ms))
            cpu_us[name].append((cpu_s(proxy_pid) - before_s) / len(took_ms) * 1e6)
    direct = statistics.median(rates["direct"])
    for name in ports:
        rate, p50_ms, cost_us = (statistics.median(one[name]) for one in (rates, medians, cpu_us))
        print(
            f"{name:7} {rate:9.0f} requests/s  ratio {rate / direct:.2f}  p50 {p50_ms:.3f} ms  "
            f"proxy CPU {cost_us:.1f} us a request"
        )


if __name__ == "__main__":
    main()
