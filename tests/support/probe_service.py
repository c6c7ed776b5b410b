"""A service to be probed, in a process of its own, that can be told to misbehave.

Asked ``{"x": k}`` it answers ``{"predictions": [k]}``. It reads one command a line from its standard input,
and says on its output when it had obeyed; it ends with its input, so it never outlives the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools


class Session(asyncio.Protocol):
    def __init__(self, service: Service) -> None:
        self.service = service
        self.parser: Any = httptools.HttpRequestParser(self)
        self.requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.service.sessions.add(self)
        self.service.accepted += 1

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self.service.sessions.discard(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.requests += 1
        self.service.seen += 1
        x = json.loads(self.body)["x"]
        mode, _, argument = self.service.mode.partition(" ")
        if mode == "slow":
            asyncio.get_running_loop().call_later(float(argument) / 1000, self.answer, x, "good")
        elif mode == "hang":
            self.service.hung.append((self, x))
        elif mode == "race" and self.requests > 1:
            self.transport.close()
        else:
            self.answer(x, mode)

    def answer(self, x: int, mode: str) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"predictions": [x + 1 if mode == "wrong" else x]}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Model-Version: 7\r\n"
        length = b"Content-Length: %d\r\n\r\n"
        match mode:
            case "error":
                self.transport.write(b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n")
            case "reset":
                self.transport.abort()
            case "nonsense":
                self.transport.write(b"I am not HTTP\r\n\r\n")
            case "huge":
                self.transport.write(head + length % 3_000_000 + b" " * 3_000_000)
            case "text":
                self.transport.write(head + length % 5 + b"hello")
            case "eof":
                self.transport.write(head.replace(b"1.1", b"1.0") + b"\r\n" + body)
                self.transport.close()
            case "chunked":
                self.transport.write(
                    b"HTTP/1.1 100 Continue\r\n\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n"
                )
                self.transport.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            case "twice":
                self.transport.write((head + length % len(body) + body) * 2)
            case "degraded":
                self.transport.write(head + b"X-Degraded: fallback\r\n" + length % len(body) + body)
            case _:
                self.transport.write(head + length % len(body) + body)


class Service:
    def __init__(self) -> None:
        self.mode = "good"
        self.seen = self.accepted = 0
        self.sessions: set[Session] = set()
        self.hung: list[tuple[Session, int]] = []

    async def run(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Session(self), "127.0.0.1", port, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"port": port}), flush=True)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).decode().strip():
            before_s = time.monotonic()
            if line == "dark":
                server.close()
                for session in list(self.sessions):
                    session.transport.abort()
            elif line == "close_idle":
                for session in list(self.sessions):
                    session.transport.close()
            elif self.mode == "dark":
                server = await loop.create_server(lambda: Session(self), "127.0.0.1", port, backlog=1024)
            if line != "close_idle":
                self.mode = line
            if line == "release":
                for session, x in self.hung:
                    session.answer(x, "good")
                self.hung.clear()
            done_s = time.monotonic()
            counts = {"seen": self.seen, "sessions": self.accepted}
            print(json.dumps({"before_s": before_s, "done_s": done_s, **counts}), flush=True)


class Handle:
    """The service, as a test sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.port: int = self._line()["port"]

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def tell(self, command: str) -> dict[str, Any]:
        """Returns between which instants the command was obeyed, and how many requests came so far."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._line()

    def pause(self) -> float:
        os.kill(self.process.pid, signal.SIGSTOP)
        return time.monotonic()

    def kill(self) -> float:
        """As the kernel does it when memory runs out. Returns the instant before."""
        at_s = time.monotonic()
        self.process.kill()
        return at_s

    def resume(self) -> float:
        at_s = time.monotonic()
        os.kill(self.process.pid, signal.SIGCONT)
        return at_s


@contextlib.contextmanager
def running(port: int = 0) -> Iterator[Handle]:
    process = subprocess.Popen(
        [sys.executable, __file__, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Handle(process)
    finally:
        process.kill()
        process.communicate(timeout=5)


def write_target(
    folder: Path,
    port: int,
    *,
    rate_per_s: float = 100,
    timeout_ms: float = 500,
    latency_ms: float = 200,
    more: str = "",
) -> Path:
    """A target file for the service, and its golden set."""
    golden = folder / "golden.jsonl"
    golden.write_text("".join(json.dumps({"body": {"x": k}, "expect": k}) + "\n" for k in range(16)))
    path = folder / "target.yaml"
    path.write_text(
        f"""
name: service
predict:
  url: http://127.0.0.1:{port}/invocations
  golden: golden.jsonl
  degraded: X-Degraded
  model_version: X-Model-Version
slo: {{latency_ms: {latency_ms}, objective: 0.99, stable_for_s: 0.5}}
windows: {{baseline_s: 0.5, horizon_s: 4, after_revert_s: 2}}
prober: {{rate_per_s: {rate_per_s}, timeout_ms: {timeout_ms}}}
allow_faults: [noop]
{more}
"""
    )
    return path


if __name__ == "__main__":
    asyncio.run(Service().run(int(sys.argv[1])))
