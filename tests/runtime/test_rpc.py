from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError
from monkeyproof.runtime import rpc
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
    assert token_of(server).stat().st_mode & 0o777 == 0o600


def token_of(server: Path) -> Path:
    return server.with_name(server.name + rpc.TOKEN_SUFFIX)


def opening(server: Path) -> bytes:
    return json.dumps({"token": token_of(server).read_text()}).encode() + b"\n"


ASKED = b'{"id":1,"method":"echo","params":{"a":1}}\n'


def said(server: Path, sent: bytes) -> list[bytes]:
    """Every line that comes back, up to the connection's end."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(5)
        raw.connect(str(server))
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        return raw.makefile("rb").readlines()


def test_a_connection_begins_with_the_servers_token(server: Path, tmp_path: Path) -> None:
    assert [json.loads(line) for line in said(server, opening(server) + ASKED)] == [{"id": 1, "result": {"a": 1}}]
    right = token_of(server).read_text()
    another = rpc.Token(tmp_path / "another")
    for wrong in (
        ASKED,
        opening(tmp_path / "another") + ASKED,
        opening(server)[:-1] + b" \n" + ASKED,
        opening(server)[:-1],
        b"\n" + opening(server) + ASKED,
    ):
        (line,) = said(server, wrong)
        assert json.loads(line) == rpc.WRONG_TOKEN
        assert right.encode() not in line
    token_of(server).write_text("x" * len(right))
    with rpc.Client(server) as client, pytest.raises(TargetError, match="begins with the token") as refusal:
        client.call("echo")
    assert "xxx" not in str(refusal.value)
    another.remove()
    assert not token_of(tmp_path / "another").exists()


def test_socket_without_a_token_file_is_refused(server: Path) -> None:
    token_of(server).unlink()
    with pytest.raises(TargetError, match="has no token beside it"):
        rpc.Client(server)


def test_each_server_makes_its_own_token_and_deletes_it(tmp_path: Path) -> None:
    async def begin_and_end() -> str:
        listening = await rpc.serve(tmp_path / "s", Echo)
        token = token_of(tmp_path / "s").read_text()
        listening.close()
        return token

    (tmp_path / "s.token").write_text("left by one that was killed")
    tokens = set()
    for _ in range(2):
        tokens.add(asyncio.run(begin_and_end()))
        assert not token_of(tmp_path / "s").exists()
        (tmp_path / "s").unlink(missing_ok=True)
    assert len(tokens) == 2
    assert min(len(token) for token in tokens) >= 43


def test_hanging_server_costs_the_timeout_and_the_connection(server: Path) -> None:
    client = rpc.Client(server)
    with pytest.raises(TargetError, match="no answer"):
        client.call("hang", timeout_s=0.1)
    # A late answer must never be taken for the answer to a later question.
    with pytest.raises(TargetError):
        client.call("echo")
    client.close()


def test_no_server_listens(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no server answers"):
        rpc.Client(tmp_path / "none")


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"[]\n", b"3\n", b'{"id":1}\n', b"\n", b"[" * 99_999 + b"\n"])
def test_garbage_is_answered_and_survived(server: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(5)
        raw.connect(str(server))
        raw.sendall(opening(server) + line)
        assert b'"error": "not a request' in raw.recv(4096)
    with rpc.Client(server) as client:
        assert client.call("echo", a=1) == {"a": 1}


def test_server_learns_that_a_client_disconnected(server: Path) -> None:
    before = Echo.closed_count
    client = rpc.Client(server)
    client.call("echo")
    client.close()
    assert wait_for(lambda: Echo.closed_count == before + 1, within_s=5)
