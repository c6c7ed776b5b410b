"""The connection monitor: detects the instant at which a service ends, between two questions.

A service that is killed takes its connections with it, and a client's event loop is notified at once, not at the
next question. So whenever the service ends one of the prober's connections (idle between two questions, or with
one in flight), the monitor keeps the instant and tries one new connection right then:

- it is refused, or closed again within ``HOLDS_AFTER_S``: the service has been gone since the old connection
  ended;
- it holds: the service only closes idle connections, as most do after some seconds. No event is written;
- neither within ``ANSWERS_WITHIN_S``: the state is unknown, and no event is written.

While it is gone a connection is tried every ``RETRY_S``, one at a time, until one holds. A hung service is never
gone: its kernel keeps the connections.

The idle connections are the ones that the prober has anyway, because the service offered to keep them. One opened
only to stand idle would stop a service that serves one connection at a time (a synchronous worker of gunicorn,
Python's own http.server): it would wait for the question on it, and answer no other client. The monitor sees
nothing of a service that keeps no connection open: there the readings alone tell the onset.

The monitor takes no readings, delays none, and cannot end the prober: callbacks only record an instant, events are
written with the readings, after the questions that are due, and an error goes to the prober's log once.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass
from typing import cast

from monkeyproof.record.history import HistoryWriter, Kind
from monkeyproof.types import Json

HOLDS_AFTER_S = 0.02
"""A dying process may close its listener after its connections, and a proxy whose backend is dead accepts, then
closes: a new connection has to outlive that."""
ANSWERS_WITHIN_S = 0.5
"""A full backlog answers nothing, and the kernel would repeat its SYN for minutes."""
RETRY_S = 0.05
REST_S = 0.5
"""The shortest time between two checks: a service that flaps, or closes every connection after one answer, costs
two connections a second and four lines of history at most."""

_OPEN, _REFUSED, _CLOSED, _CANNOT_TELL = "open", "refused", "closed at once", "cannot tell"


@dataclass(frozen=True, slots=True)
class _ConnectionAttempt:
    """What became of a new connection, and when that was known; of one that holds, when it was opened."""

    how: str
    at_s: float

    @property
    def proves_gone(self) -> bool:
        return self.how in (_REFUSED, _CLOSED)


class ConnectionMonitor:
    """Receives every end of a connection by the service; records when the service was gone and reachable again."""

    def __init__(self, host: str, port: int, history: HistoryWriter) -> None:
        self._host, self._port, self._history = host, port, history
        self._checking: asyncio.Task[None] | None = None
        self._rests_until_s = 0.0
        self._pending: list[tuple[Kind, float, dict[str, Json]]] = []

    def lost(self, at_s: float) -> None:
        """The service ended a connection, at this instant of CLOCK_MONOTONIC."""
        if at_s >= self._rests_until_s and (self._checking is None or self._checking.done()):
            self._checking = asyncio.get_running_loop().create_task(self._check(at_s))

    def flush(self) -> None:
        """Write the events so far. A lost event only widens an interval, so it must not cost the readings."""
        while self._pending:
            kind, at_s, data = self._pending.pop(0)
            with contextlib.suppress(OSError):
                t_s = at_s - self._history.anchor.monotonic_s
                self._history.event(kind, f"{self._host}:{self._port}", t_s=t_s, **data)

    def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()
        self.flush()
        self._history.close()

    async def _check(self, ended_s: float) -> None:
        try:
            found = await self._attempt()
            if found.proves_gone:
                after_ms = round((found.at_s - ended_s) * 1000.0, 3)
                self._pending.append((Kind.SERVICE_GONE, ended_s, {"how": found.how, "proven_after_ms": after_ms}))
                while found.how != _OPEN:
                    await asyncio.sleep(RETRY_S)
                    found = await self._attempt()
                self._pending.append((Kind.SERVICE_REACHABLE, found.at_s, {}))
        except Exception as error:  # Left to the loop, it would end the prober.
            print(f"the connection monitor failed: {error!r}", file=sys.stderr, flush=True)
        self._rests_until_s = time.monotonic() + REST_S

    async def _attempt(self) -> _ConnectionAttempt:
        loop = asyncio.get_running_loop()
        line = SilentConnection(loop.create_future())
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                await loop.create_connection(lambda: line, self._host, self._port)
        except ConnectionError:
            return _ConnectionAttempt(_REFUSED, time.monotonic())
        except OSError:  # It took too long; or this process lacks something, which says nothing of the service.
            return _ConnectionAttempt(_CANNOT_TELL, time.monotonic())
        try:
            await asyncio.wait([line.ended_s], timeout=HOLDS_AFTER_S)
        finally:
            line.drop()
        return (
            _ConnectionAttempt(_CLOSED, line.ended_s.result())
            if line.ended_s.done()
            else _ConnectionAttempt(_OPEN, line.opened_s)
        )


class SilentConnection(asyncio.Protocol):
    """One connection on which nothing is ever sent."""

    def __init__(self, ended_s: asyncio.Future[float]) -> None:
        self.ended_s = ended_s
        self.opened_s = 0.0
        self._transport: asyncio.Transport | None = None

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.opened_s = time.monotonic()
        self._transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sockname") == transport.get_extra_info("peername"):
            # Where no process listens on an ephemeral port, a client may be given that port and connect to itself.
            self._end()
            self.drop()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def _end(self) -> None:
        if not self.ended_s.done():
            self.ended_s.set_result(time.monotonic())
