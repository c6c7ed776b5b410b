"""A real Valkey behind the fault proxy. A test module gets it with ``pytest_plugins = ("store_fixtures",)``."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up)

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from fault_world import RawServer, RunningProxy, World, opened
from store_world import PASSWORD, Store

from monkeyproof.clock import wait_for
from monkeyproof.config.limits import Limits
from monkeyproof.config.target_file import Link, Predict, TargetFile
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.targets.local.control_plane.services import find_valkey


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    """One that answers everybody, and one that asks for a password."""
    with ProcessGroup() as group:

        def start(password: str) -> Store:
            folder = tmp_path_factory.mktemp("valkey")
            with socket.create_server(("127.0.0.1", 0)) as probe:
                number = probe.getsockname()[1]
            command = [str(find_valkey()), "--port", str(number), "--bind", "127.0.0.1", "--save", ""]
            command += ["--dir", str(folder), *(["--requirepass", password] if password else [])]
            group.start(command, log=folder / "log")
            client = redis.Redis(port=number, password=password or None, socket_timeout=5)

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.RedisError:
                    return False

            assert wait_for(answers, within_s=10), (folder / "log").read_text()
            return Store(number, client)

        yield start(""), start(PASSWORD)


@pytest.fixture(scope="session")
def _store_proxy(
    start_proxy: Callable[..., RunningProxy], stores: tuple[Store, Store], server: RawServer
) -> RunningProxy:
    forward = {"features": stores[0].port, "locked": stores[1].port, "odd": server.port}
    return start_proxy({name: (number, "redis") for name, number in forward.items()})


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    stores[0].fill()
    return stores[0]


@pytest.fixture
def store_proxy(_store_proxy: RunningProxy) -> Iterator[RunningProxy]:
    """The links ``features`` and ``locked`` to the stores, ``odd`` to ``server``; free of toxics."""
    yield _store_proxy
    for toxic_id in _store_proxy.links.active():
        _store_proxy.links.remove(toxic_id)


@pytest.fixture
def connect(store_proxy: RunningProxy, store: Store) -> Iterator[Callable[..., redis.Redis]]:
    """A client of the store through the proxy, on one connection that is kept."""
    opened: list[redis.Redis] = []

    def client(link: str = "features", **options: object) -> redis.Redis:
        host, number = store_proxy.addresses[link]
        found = redis.Redis(host, number, socket_timeout=10, single_connection_client=True, **options)
        opened.append(found)
        return found

    yield client
    for one in opened:
        one.close()


@pytest.fixture
def store_world(store_proxy: RunningProxy, stores: tuple[Store, Store], tmp_path: Path) -> Iterator[World]:
    """A target whose links are those of the proxy, and one that speaks another protocol."""
    forward = {"features": stores[0].port, "locked": stores[1].port, "odd": 1}
    links = {
        name: Link("{}:{}".format(*store_proxy.addresses[name]), f"127.0.0.1:{number}", "redis")
        for name, number in forward.items()
    }
    links["odd"] = Link(links["odd"].listen, links["odd"].forward, "tcp")
    file = TargetFile(
        "store",
        Predict("http://127.0.0.1:1/", Path("golden")),
        links=links,
        allow_faults=("features", "network"),
        limits=Limits(rows_share=1.0),
        path=tmp_path / "target.yaml",
    )
    with opened(file, store_proxy, tmp_path) as one:
        yield one
