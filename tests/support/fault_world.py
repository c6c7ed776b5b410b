"""What the tests of faults share: servers and clients of which every byte is known, and a small target."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from monkeyproof.clock import Anchor, SystemClock, wait_for
from monkeyproof.config.target_file import TargetFile
from monkeyproof.injection.inject import Context, revert, set_current
from monkeyproof.record.history import History, HistoryWriter, Kind, write_json
from monkeyproof.targets import port
from monkeyproof.targets.links import ProxyLinks
from monkeyproof.targets.port import Toxic
from monkeyproof.undo.log import UndoLog

TIMEOUT_S = 10.0


class RawServer:
    """Hands every accepted connection to ``handler``, in a thread of its own."""

    def __init__(self) -> None:
        self.handler: Callable[[socket.socket], None] = lambda _: None
        self.accepted = 0
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            connection.settimeout(TIMEOUT_S)
            threading.Thread(target=self._serve, args=(connection, self.handler), daemon=True).start()

    def _serve(self, connection: socket.socket, handler: Callable[[socket.socket], None]) -> None:
        with connection, contextlib.suppress(OSError):
            handler(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@dataclass
class RunningProxy:
    pid: int
    control: Path
    links: ProxyLinks
    addresses: dict[str, tuple[str, int]]
    log: Path

    def connect(self, link: str) -> socket.socket:
        return socket.create_connection(self.addresses[link], timeout=TIMEOUT_S)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Web:
    """A keep-alive HTTP server that notes what it saw; ``answer`` makes the response to a path."""

    def __init__(self, server) -> None:
        self.saw: list[tuple[str, bytes]] = []
        self.answer: Callable[[str], bytes] = lambda _: OK
        server.handler = self.serve

    def serve(self, connection: socket.socket) -> None:
        file = connection.makefile("rb")
        while line := file.readline():
            length, headers = 0, b""
            while (header := file.readline()) not in (b"\r\n", b""):
                headers += header
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            body = file.read(length)
            path = line.split()[1].decode()
            self.saw.append((path, body))
            connection.sendall(self.answer(path))


class Browser:
    """A client that keeps its connection: had it to reconnect, it would say so."""

    def __init__(self, proxy, link: str = "web") -> None:
        self._http = http.client.HTTPConnection(*proxy.addresses[link], timeout=10)
        self._http.connect()
        self._http.auto_open = 0

    def ask(self, path: str = "/", body: bytes | None = None, headers=None, method: str = "") -> tuple[int, bytes]:
        self._http.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        answer = self._http.getresponse()
        self.headers = dict(answer.getheaders())
        return answer.status, answer.read()

    def timed_ms(self, *args, **kwargs) -> float:
        started_s = time.monotonic()
        assert self.ask(*args, **kwargs)[0] == 200
        return (time.monotonic() - started_s) * 1000

    def close(self) -> None:
        self._http.close()


def add(proxy, kind: str, link: str = "web", **parameters) -> str:
    return proxy.links.add(Toxic(link, kind, parameters))


def in_background(ask):
    """Run ``ask`` in a thread; returns a function that waits for its result."""
    found: list = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()

    def result():
        thread.join(10)
        assert found, "no answer"
        return found[0]

    return result


def pending(proxy, toxic_id: str) -> bool:
    return proxy.links.stats(toxic_id)["pending"] == 1


class World:
    """A target made of what a test puts into it."""

    def __init__(self, file: TargetFile) -> None:
        self.file = file
        self.parts: dict[type, object] = {}

    def find(self, capability):
        return self.parts.get(capability)

    def close(self) -> None: ...


def events(world: World, kind: Kind):
    folder = world.file.path.parent / "trial"
    write_json(folder / "trial.json", {"version": 1})
    return History.read(folder).of_kind(kind)


class Traffic:
    """A user who asks again and again over one connection, and opens another when that breaks."""

    def __init__(self, proxy, link: str) -> None:
        self.statuses: list[bytes] = []
        self._stop = threading.Event()
        self._proxy, self._link = proxy, link
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._proxy.connect(self._link) as connection:
                    while not self._stop.wait(0.005):
                        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                        answer = connection.recv(1000)
                        if not answer:
                            break
                        self.statuses.append(answer[9:12])
            except OSError:
                self._stop.wait(0.01)

    def __enter__(self) -> Traffic:
        assert wait_for(lambda: bool(self.statuses), within_s=5)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def assert_undone(world: World) -> None:
    assert list(world.find(port.Links).active()) == []
    assert revert() == []
    assert not events(world, Kind.FAULT_NOT_REVERTED)


def impatient(inject):
    return lambda injection: inject(replace(injection, evidence_within_s=0.3))


def read_exactly(connection: socket.socket, count: int) -> bytes:
    parts = []
    while count > 0 and (part := connection.recv(min(count, 1 << 20))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


@contextlib.contextmanager
def opened(file: TargetFile, proxy: RunningProxy, folder: Path) -> Iterator[World]:
    """A trial on a small target whose links are the proxy's, with a history and an undo log in ``folder``."""
    one = World(file)
    one.parts[port.Links] = ProxyLinks(proxy.control)
    trial = folder / "trial"
    trial.mkdir()
    history = HistoryWriter(trial, Anchor.now(SystemClock()), "test")
    undo = UndoLog(folder / "undo.jsonl")
    set_current(Context(trial, one, history, undo, seed=1, arm="none"))
    yield one
    set_current(None)
    undo.close(folder / "archive.jsonl")
    history.close()
    one.parts[port.Links].close()
