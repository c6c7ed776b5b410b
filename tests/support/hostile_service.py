"""A service that answers as no service should, in a process of its own.

Asked ``{"x": k, "mode": m}``, the right answer is k, and m is how it answers. It prints its port, and ends with
its input, so it never outlives a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import json
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

MARKUP = "<script>alert(1)</script>]]>|`*_\x1b[31m\x1b]0;owned\x07\r\n## Heading\u202e\u009b31m"
HEADER_MARKUP = b"<script>alert(1)</script>]]>|\x9b31m"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = 100 * 1024 * 1024
BLOCK = b" " * 65536


def whole(body: bytes, head: bytes = HEAD) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def predictions(value: object) -> bytes:
    return json.dumps({"predictions": [value]}).encode()


BOMB = gzip.compress(b'{"predictions": [' + b" " * LARGE + b"1]}", 9)
TINY_CHUNKS = b"2\r\n  \r\n" * 9000
STATIC = {
    "nonsense": b"\x00\xff\x16\x03\x01 not HTTP at all\r\n\r\n",
    "not text": whole(b'{"predictions": ["\xff\xfe\x80"]}'),
    "half characters": whole(b'{"predictions": [1], "version": "\\ud800\\udfff\\ud800"}'),
    "markup": whole(
        json.dumps({"predictions": [MARKUP], "version": MARKUP}).encode(),
        HEAD + b"X-Model-Version: " + HEADER_MARKUP + b"\r\nX-Degraded: " + HEADER_MARKUP + b"\r\n",
    ),
    "page": whole(b"<html><script>alert(1)</script></html>", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"),
    "error page": whole(MARKUP.encode(), b"HTTP/1.1 500 " + HEADER_MARKUP + b"\r\n"),
    "too short a length": whole(b"12345").replace(b"Length: 5", b"Length: 2"),
    "both lengths": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + b"0\r\n\r\n",
    "bad length": HEAD + b"Content-Length: -7\r\n\r\n",
    "bad chunk": CHUNKED + b"zz\r\n",
    "gzip": whole(BOMB, HEAD + b"Content-Encoding: gzip\r\n"),
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: /invocations\r\nContent-Length: 0\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "status 99999": b"HTTP/1.1 99999 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": whole(b"{}", b"HTTP/1.1 000 OK\r\n"),
    "old": b'\r\n{"predictions": [1]}',
    "deep": whole(b'{"predictions": ' + b"[" * 400_000 + b"]" * 400_000 + b"}"),
    "wide": whole(b'{"predictions": [' + b"[]," * 300_000 + b"[]]}"),
    "wide, but less": whole(b'{"predictions": [' + b"{}," * 24_000 + b"{}]}"),
    "huge number": whole(b'{"predictions": [' + b"9" * 4000 + b"]}"),
    "more than a number": whole(b'{"predictions": [1e999]}'),
    "no number": whole(b'{"predictions": [NaN]}'),
    "many headers": HEAD + b"".join(b"a%d:\r\n" % number for number in range(6000)) + b"\r\n",
    "said twice": whole(b"{}", HEAD + b"X-Degraded: yes\r\nX-Degraded: false\r\n"),
}
"""Answers that are always the same bytes."""
CLOSES = {"half", "half, then reset", "no length, then reset"}


async def answer(mode: str, x: int) -> AsyncIterator[bytes]:
    """The bytes of one answer; some have no end, or take for ever."""
    match mode:
        case "100 MB":
            yield HEAD + b"Content-Length: %d\r\n\r\n" % LARGE
            for _ in range(LARGE // len(BLOCK)):
                yield BLOCK
        case "endless chunks":
            yield CHUNKED
            while True:
                yield b"10000\r\n" + BLOCK + b"\r\n"
        case "endless crumbs":
            yield CHUNKED
            while True:
                yield TINY_CHUNKS
        case "10 MB header":
            yield HEAD + b"X-Long: "
            for _ in range(160):
                yield BLOCK.replace(b" ", b"x")
            yield whole(predictions(x), b"\r\n")
        case "interim storm":
            while True:
                yield b"HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n" * 2000
        case "trailers":
            yield CHUNKED + b"2\r\n{}\r\n0\r\n"
            while True:
                yield b"".join(b"t%d: x\r\n" % number for number in range(1000))
        case "byte a second":
            for byte in whole(predictions(x)):
                yield bytes([byte])
                await asyncio.sleep(1.0)
        case "held back":
            # As much as is taken from one connection, by each of them.
            yield HEAD + b"Content-Length: 1000000\r\n\r\n"
            yield b" " * 900_000
            await asyncio.sleep(60)
        case "too long a length":
            yield whole(predictions(x)).replace(b"Length: ", b"Length: 1")
            await asyncio.sleep(60)
        case "half" | "half, then reset":
            yield whole(predictions(x))[:-5]
        case "no length, then reset":
            yield HEAD + b"Connection: close\r\n\r\n" + predictions(x)
            await asyncio.sleep(0.02)
        case "once more, late":
            yield whole(predictions(x))
            await asyncio.sleep(0.005)
            yield whole(predictions(x))
        case _:
            yield STATIC.get(mode) or whole(predictions(x))


MODES = (
    *STATIC,
    *("100 MB", "endless chunks", "endless crumbs", "10 MB header", "interim storm", "trailers", "byte a second"),
    *("held back", "too long a length", "half", "half, then reset", "no length, then reset"),
)
"""Every way in which the answer is not right."""


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, early: bool) -> None:
    mode = ""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        if early:
            writer.write(whole(predictions(-1)))
        while mode not in CLOSES:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            asked = json.loads(await reader.readexactly(int(length.split(b":")[1])))
            mode = asked["mode"]
            async for part in answer(mode, asked["x"]):
                writer.write(part)
                await writer.drain()
    if "reset" in mode:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort() if "reset" in mode else writer.close()


async def serve(*, early: bool) -> None:
    server = await asyncio.start_server(functools.partial(talk, early=early), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    sys.exit()


@contextlib.contextmanager
def running(*, early: bool = False) -> Iterator[int]:
    """Its port. ``early``: it begins each connection with an answer to no question."""
    command = [sys.executable, __file__, *(["early"] if early else [])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=5)


def write_target(
    folder: Path,
    port: int,
    modes: Sequence[str],
    *,
    rate_per_s: float = 50,
    timeout_ms: float = 300,
    load_per_s: float = 20,
) -> Path:
    """A target file for it, and a golden set that asks for these modes, in this order."""
    golden = ({"body": {"x": k, "mode": mode}, "expect": k} for k, mode in enumerate(modes))
    folder.mkdir(exist_ok=True)
    (folder / "golden.jsonl").write_text("".join(json.dumps(line) + "\n" for line in golden))
    path = folder / "target.yaml"
    path.write_text(
        f"""
name: hostile
predict:
  url: http://127.0.0.1:{port}/invocations
  golden: golden.jsonl
  degraded: X-Degraded
  model_version: $.version
slo: {{latency_ms: 200, objective: 0.95, stable_for_s: 0.5}}
prober: {{rate_per_s: {rate_per_s}, timeout_ms: {timeout_ms}}}
load: {{rate_per_s: {load_per_s}}}
"""
    )
    return path


if __name__ == "__main__":
    asyncio.run(serve(early="early" in sys.argv))
