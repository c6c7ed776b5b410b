"""A service that fails at known instants: the truth against which ``monkeyproof calibrate`` measures the clock.

    python -m monkeyproof.probes.calibration.service --script FILE --log FILE --seed N --parent PID

Asked ``{"x": k}`` it answers ``{"predictions": [k]}``. The script is a list of ``[mode, duration_s]``; it begins
with the first question. The log has one object a line: ``{"port": n}``, then for every step its number and
between which two instants of CLOCK_MONOTONIC it switched, ``{"stalled": [from_s, to_s]}`` where this process was
not run, and ``{"ended": true}``. After the script it is good until it is ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import httptools

SLOW_S = 0.4
PARTLY_SHARE = 0.3
HEARTBEAT_S = 0.01
STALL_S = 0.1
"""A pause as long as this is a stall of the machine, and no outage of the script."""


class _HttpSession(asyncio.Protocol):
    def __init__(self, service: ScriptedService) -> None:
        self._service = service
        self._parser: Any = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._service.opened(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._service.closed(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._service.asked(self, int(json.loads(self._body)["x"]))

    def answer(self, x: int) -> None:
        if not self.transport.is_closing():
            body = b'{"predictions": [%d]}' % x
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self.transport.write(head % len(body) + body)


class ScriptedService:
    """Good until ``switch`` is called, which returns between which two instants it took effect."""

    def __init__(self, seed: int) -> None:
        self._sessions: set[_HttpSession] = set()
        self.first_question = asyncio.Event()
        self._random = random.Random(seed)
        self._mode = "good"
        self._hung: list[tuple[_HttpSession, int]] = []
        self._server: asyncio.Server | None = None
        # Keeps the port while the service is dark: no other process can get it, and a bound port refuses as a
        # free one does.
        self._place = _socket(0)
        self.port: int = self._place.getsockname()[1]

    async def listen(self) -> tuple[float, float]:
        listener = _socket(self.port)
        before_s = time.monotonic()
        listener.listen(1024)
        after_s = time.monotonic()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _HttpSession(self), sock=listener, backlog=1024)
        return before_s, after_s

    async def switch(self, mode: str) -> tuple[float, float]:
        old, self._mode = self._mode, mode
        before_s = time.monotonic()
        if mode == "dark" and self._server is not None:
            self._server.close()
            for session in list(self._sessions):
                session.transport.abort()
        elif old == "dark":
            return await self.listen()
        for session, x in self._hung:
            session.answer(x)
        self._hung.clear()
        return before_s, time.monotonic()

    def opened(self, session: _HttpSession) -> None:
        if self._mode == "dark":
            session.transport.abort()  # The kernel had accepted it a moment before the switch.
        else:
            self._sessions.add(session)

    def closed(self, session: _HttpSession) -> None:
        self._sessions.discard(session)

    def asked(self, session: _HttpSession, x: int) -> None:
        self.first_question.set()
        if self._mode == "hung":
            self._hung.append((session, x))
        elif self._mode == "slow":
            asyncio.get_running_loop().call_later(SLOW_S, session.answer, x)
        else:
            wrong = self._mode == "wrong" or (
                self._mode == "partly wrong" and self._random.random() < PARTLY_SHARE
            )
            session.answer(x + wrong)


def _socket(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(("127.0.0.1", port))
    return found


async def _record_stalls(log: TextIO, parent: int) -> None:
    """Note when this process was not run; ends with its parent, which may be stopped while it starts this."""
    seen_s = time.monotonic()
    while os.getppid() == parent:
        await asyncio.sleep(HEARTBEAT_S)
        now_s = time.monotonic()
        if now_s - seen_s > STALL_S:
            _write_line(log, {"stalled": [seen_s, now_s]})
        seen_s = now_s


def _write_line(log: TextIO, value: dict[str, Any]) -> None:
    log.write(json.dumps(value) + "\n")
    log.flush()


async def _run(script: Sequence[tuple[str, float]], log: TextIO, seed: int, parent: int) -> None:
    service = ScriptedService(seed)
    await service.listen()
    _write_line(log, {"port": service.port})
    watching = asyncio.create_task(_record_stalls(log, parent))
    playing = asyncio.create_task(_play(service, script, log))
    await asyncio.wait({watching, playing}, return_when=asyncio.FIRST_COMPLETED)
    if playing.done():
        playing.result()  # Raises what went wrong there.
        await watching
    playing.cancel()


async def _play(service: ScriptedService, script: Sequence[tuple[str, float]], log: TextIO) -> None:
    await service.first_question.wait()
    due_s = time.monotonic()
    for number, (mode, duration_s) in enumerate(script):
        before_s, after_s = await service.switch(mode)
        _write_line(log, {"step": number, "mode": mode, "before_s": before_s, "after_s": after_s})
        due_s += duration_s
        await asyncio.sleep(due_s - time.monotonic())
    _write_line(log, {"ended": True})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m monkeyproof.probes.calibration.service")
    parser.add_argument("--script", type=Path, required=True, metavar="FILE")
    parser.add_argument("--log", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, required=True, metavar="N")
    parser.add_argument("--parent", type=int, required=True, metavar="PID")
    arguments = parser.parse_args(argv)
    script = [(str(mode), float(duration_s)) for mode, duration_s in json.loads(arguments.script.read_text())]
    try:
        with arguments.log.open("w") as log:
            asyncio.run(_run(script, log, arguments.seed, arguments.parent))
    except OSError as error:
        print(f"no port of 127.0.0.1 can be listened on: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
