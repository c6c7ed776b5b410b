"""A real fault proxy process with a server behind it, and a small target around it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_world import Browser, RawServer, RunningProxy, Web, World, opened

from monkeyproof.clock import wait_for
from monkeyproof.config.limits import Limits
from monkeyproof.config.target_file import Link, Predict, TargetFile
from monkeyproof.errors import TargetError
from monkeyproof.paths import socket_dir
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.runtime.rpc import Client
from monkeyproof.targets.links import ProxyLinks


@pytest.fixture(scope="session")
def start_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningProxy]]:
    """Start a proxy for ``{link: (port to forward to, protocol)}``."""
    folders: list[Path] = []
    opened: list[ProxyLinks] = []
    with ProcessGroup() as group:

        def start(links: dict[str, tuple[int, str]]) -> RunningProxy:
            folder = tmp_path_factory.mktemp("proxy")
            file = folder / "links.json"
            file.write_text(
                json.dumps(
                    {
                        name: {"listen": "127.0.0.1:0", "forward": f"127.0.0.1:{port}", "protocol": protocol}
                        for name, (port, protocol) in links.items()
                    }
                )
            )
            folders.append(socket_dir())
            control = folders[-1] / "p"
            child = group.start(
                [
                    sys.executable,
                    "-m",
                    "monkeyproof.faults.proxy.server",
                    "--links",
                    str(file),
                    "--control",
                    str(control),
                ],
                log=folder / "log",
            )

            def answers() -> bool:
                with contextlib.suppress(TargetError), Client(control) as client:
                    return bool(client.call("ping")["pid"] == child.pid)
                return False

            assert wait_for(answers, within_s=20), (folder / "log").read_text()
            with Client(control) as client:
                found = {
                    name: (text.split(":")[0], int(text.split(":")[1]))
                    for name, text in client.call("addresses").items()
                }
            opened.append(ProxyLinks(control))
            return RunningProxy(child.pid, control, opened[-1], found, folder / "log")

        yield start
        for one in opened:
            one.close()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[RawServer]:
    one = RawServer()
    yield one
    one.close()


@pytest.fixture(scope="session")
def _shared_proxy(start_proxy: Callable[..., RunningProxy], server: RawServer) -> RunningProxy:
    return start_proxy({"web": (server.port, "http"), "raw": (server.port, "tcp")})


@pytest.fixture
def proxy(_shared_proxy: RunningProxy) -> Iterator[RunningProxy]:
    """The links ``web`` (http) and ``raw`` (tcp), both to ``server``; free of toxics before and after."""
    yield _shared_proxy
    for toxic_id in _shared_proxy.links.active():
        _shared_proxy.links.remove(toxic_id)


@pytest.fixture
def web(server) -> Web:
    return Web(server)


@pytest.fixture
def browser(proxy, web):
    one = Browser(proxy)
    assert web.saw == []
    assert one.ask("/first") == (200, b"ok")  # All that follows is request 2 and later.
    yield one
    one.close()


@pytest.fixture
def world(proxy, tmp_path) -> Iterator[World]:
    links = {
        name: Link("{}:{}".format(*address), "127.0.0.1:1", "http" if name == "web" else "tcp")
        for name, address in proxy.addresses.items()
    }
    file = TargetFile(
        "small",
        Predict("http://127.0.0.1:1/", Path("golden")),
        links=links,
        allow_faults=("network", "data", "features", "replicas", "registry", "models"),
        limits=Limits(replicas_down=3, rows_share=1.0),
        path=tmp_path / "target.yaml",
    )
    with opened(file, proxy, tmp_path) as one:
        yield one


@pytest.fixture
def asked(server) -> list[bytes]:
    """A server that answers every request at once; returns the heads that it saw."""
    heads: list[bytes] = []

    def handler(connection: socket.socket) -> None:
        file = connection.makefile("rb")
        while line := file.readline():
            head = line
            while (header := file.readline()) not in (b"\r\n", b""):
                head += header
            heads.append(head)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    server.handler = handler
    return heads
