"""Traffic for benchmarks/proxy.py: servers that cost as little as they can, and users that time what they do.

Small requests are asked and answered by one thread that waits on one epoll file: two processes that wake each
other, or an event loop's layers, would cost more than the proxies that are to be compared.

    python benchmarks/proxy_traffic.py      serves bulk until it is killed; prints its port
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

from monkeyproof.probes.prober.ticker import Ticker

# Both bodies end with a byte that occurs nowhere else, so that no side has to parse what a proxy may have added.
REQUEST = (
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nContent-Length: 60\r\n%b\r\n" + b"q" * 59 + b"\0"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Model-Version: 3\r\nContent-Length: 200\r\n\r\n"
    + b"a" * 199
    + b"\0"
)
_BLOCK = bytes(1 << 20)
_PATIENCE_S = 10.0


class User:
    """A kept-alive connection with at most one request under way."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._send, self._request = self.socket.send, request
        self.sent_s = 0.0

    def ask(self) -> None:
        self.sent_s = time.monotonic()
        self._send(self._request)


class Traffic:
    """A server of small requests at ``port``, and users who ask through any port."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listening, select.EPOLLIN)
        self._connections: dict[int, tuple[socket.socket, User | None]] = {}
        self._took_ms: list[float] = []
        self._answered: deque[User] = deque()

    def as_many_as_possible(self, port: int, connections: int, duration_s: float) -> list[float]:
        """Every user asks again once answered; returns what each answer took, in ms."""
        with self._users(port, connections) as users:
            end_s = time.monotonic() + duration_s
            for user in users:
                user.ask()
            while time.monotonic() < end_s:
                self._turn()
                while self._answered:
                    self._answered.popleft().ask()
            return list(self._took_ms)

    def at_a_rate(
        self, port: int, rate_per_s: float, duration_s: float, expected_ms: float, header: bytes = b""
    ) -> list[float]:
        """Ask at fixed times over enough connections; returns what each answer took, in ms, as they came."""
        count, wanted = 8 + round(rate_per_s * expected_ms / 1000 * 1.3), round(rate_per_s * duration_s)
        period_ns = round(1e9 / rate_per_s)
        with self._users(port, count, header) as users:
            for user in users:
                user.ask()  # So that no connection to the server is still to be made.
            self._until_answered(count)
            idle = deque(users)
            self._answered.clear()
            self._took_ms.clear()
            ticker = Ticker(time.monotonic_ns() + period_ns, period_ns)
            self._epoll.register(ticker, select.EPOLLIN)
            while wanted > 0:
                if ticker.fileno() in self._turn():
                    ticker.acknowledge()
                    if idle:
                        wanted -= 1
                        idle.popleft().ask()
                idle.extend(self._answered)
                self._answered.clear()
            self._epoll.unregister(ticker)
            ticker.close()
            self._until_answered(count - len(idle))
            return list(self._took_ms)

    def one_by_one(self, port: int, count: int) -> list[float]:
        """One user, so that the n-th time measured is that of the n-th request that the proxy sees, in ms."""
        with self._users(port, 1) as (user,):
            for _ in range(count):
                user.ask()
                self._until_answered(1)
                self._answered.clear()
            return list(self._took_ms)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Answer all clients, in a thread."""
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                self._turn(0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextlib.contextmanager
    def _users(self, port: int, count: int, header: bytes = b"") -> Iterator[list[User]]:
        self._took_ms.clear()
        self._answered.clear()
        users = [User(port, REQUEST % header) for _ in range(count)]
        for user in users:
            self._add(user.socket, user)
        try:
            yield users
        finally:
            for file in list(self._connections):
                self._drop(file)

    def _add(self, connection: socket.socket, user: User | None) -> None:
        self._connections[connection.fileno()] = connection, user
        self._epoll.register(connection, select.EPOLLIN)

    def _drop(self, file: int) -> None:
        self._epoll.unregister(file)
        self._connections.pop(file)[0].close()

    def _until_answered(self, count: int) -> None:
        give_up_s = time.monotonic() + _PATIENCE_S
        while len(self._answered) < count:
            self._turn()
            if time.monotonic() > give_up_s:
                sys.exit(f"{count - len(self._answered)} requests were not answered within {_PATIENCE_S:g} s")

    def _turn(self, timeout_s: float = 0.5) -> list[int]:
        """Do what can be done now; returns the files that are not connections and have something to say."""
        others = []
        for file, _ in self._epoll.poll(timeout_s, 64):
            found = self._connections.get(file)
            if found is None:
                if file == self._listening.fileno():
                    connection = self._listening.accept()[0]
                    connection.setblocking(False)
                    self._add(connection, None)
                else:
                    others.append(file)
                continue
            connection, user = found
            try:
                data = connection.recv(4096)
            except ConnectionResetError:
                data = b""
            if data.endswith(b"\0"):
                if user is None:
                    connection.send(RESPONSE)
                else:
                    self._took_ms.append((time.monotonic() - user.sent_s) * 1000)
                    self._answered.append(user)
            elif not data:
                if user is not None:
                    sys.exit("a proxy closed the connection of a user")
                self._drop(file)
        return others


def download(port: int, size: int) -> float:
    """Ask for ``size`` bytes; returns the seconds until the last one came."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        started_s = time.monotonic()
        connection.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % size)
        buffer = bytearray(1 << 20)
        got = connection.recv_into(buffer)
        wanted = buffer.find(b"\r\n\r\n", 0, got) + 4 + size
        while got < wanted:
            if not (count := connection.recv_into(buffer)):
                sys.exit(f"only {got} of {wanted} bytes came")
            got += count
        return time.monotonic() - started_s


def upload(port: int, size: int) -> float:
    """Send ``size`` bytes; returns the seconds until they were acknowledged."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        started_s = time.monotonic()
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(_BLOCK)):
            connection.sendall(_BLOCK)
        if not connection.recv(1000).startswith(b"HTTP/1.1 200"):
            sys.exit("the bulk server did not say that it got all")
        return time.monotonic() - started_s


def _bulk(connection: socket.socket) -> None:
    """Answer the requests of one connection, one after the other."""
    buffer = bytearray(1 << 20)
    with connection, contextlib.suppress(ConnectionError):
        head = b""
        while more := connection.recv(1 << 16):
            head += more
            if (end := head.find(b"\r\n\r\n") + 4) < 4:
                continue
            if head.startswith(b"GET /"):
                size = int(head[5:].split()[0])
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                for _ in range(size // len(_BLOCK)):
                    connection.sendall(_BLOCK)
            else:
                left = int(head.lower().split(b"content-length:")[1].split()[0]) - (len(head) - end)
                while left > 0 and (count := connection.recv_into(buffer)):
                    left -= count
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            head = b""


def _serve_bulk(listening: socket.socket) -> None:
    while True:
        threading.Thread(target=_bulk, args=(listening.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    _serve_bulk(listener)
