from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monkeyproof import rpc
from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError
from monkeyproof.types import Json


class Echo:
    """Answers, fails, hangs, and counts the connections that ended."""

    closed_count = 0

    async def call(self, method: str, params: dict[str, Json]) -> Json:
        if method == "fail":
            raise ValueError("no such thing")
        if method == "hang":
            await asyncio.sleep(60)
        return params

    async def closed(self) -> None:
        Echo.closed_count += 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "s"
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(rpc.serve(path, Echo), loop).result(5)
    yield path
    loop.call_soon_threadsafe(listening.close)

    def stop() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_soon(loop.stop)

    loop.call_soon_threadsafe(stop)
    thread.join(5)
    loop.close()


def test_answers_and_failures(server: Path) -> None:
    with rpc.Client(server) as client:
        assert client.call("echo", value=[1, "ü"]) == {"value": [1, "ü"]}
        with pytest.raises(TargetError, match="no such thing"):
            client.call("fail")
        assert client.call("echo") == {}


def test_only_the_owner_may_connect(server: Path) -> None:
    assert server.stat().st_mode & 0o777 == 0o600


def test_hanging_server_costs_the_timeout_and_the_connection(server: Path) -> None:
    client = rpc.Client(server)
    with pytest.raises(TargetError, match="no answer"):
        client.call("hang", timeout_s=0.1)
    # A late answer must never be taken for the answer to a later question.
    with pytest.raises(TargetError):
        client.call("echo")
    client.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="nobody answers"):
        rpc.Client(tmp_path / "none")


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"[]\n", b"3\n", b'{"id":1}\n', b"\n"])
def test_garbage_is_answered_and_survived(server: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(5)
        raw.connect(str(server))
        raw.sendall(line)
        assert b'"error"' in raw.recv(4096)
    with rpc.Client(server) as client:
        assert client.call("echo", a=1) == {"a": 1}


def test_server_learns_that_a_client_is_gone(server: Path) -> None:
    before = Echo.closed_count
    client = rpc.Client(server)
    client.call("echo")
    client.close()
    assert wait_for(lambda: Echo.closed_count == before + 1, within_s=5)
