"""The sentinel: sees the instant at which a service goes away, between two questions.

A service that is killed takes its connections with it, and a client's loop hears of that at once, not at the next
question. So whenever the service ends one of the prober's connections (idle between two questions, or with one
under way), the instant is kept, and one new connection is tried right then:

- it is refused, or closed again within ``HOLDS_AFTER_S``: the service is gone, since the old connection ended;
- it holds: the service only closes idle connections, as most do after some seconds. Nothing is said;
- neither within ``ANSWERS_WITHIN_S``: nobody can tell, and nothing is said.

While it is gone a connection is tried every ``RETRY_S``, one at a time, until one holds. A hung service is never
gone: its kernel keeps the connections.

The idle connections are the ones that the prober has anyway, because the service offered to keep them. One opened
only to stand idle would stop a service that serves one connection at a time (a synchronous worker of gunicorn,
Python's own http.server): it would wait for the question on it, and answer nobody else. A service that keeps no
connection open has no sentinel, then, and its onset is known from readings alone.

Nothing here is a reading, delays one, or can end the prober: callbacks take down an instant, events are written
with the readings, after the questions that are due, and whatever fails is said once in the prober's log.
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
"""After it has looked, it looks no sooner than this again: a service that flaps, or closes every connection after
one answer, costs two connections a second and four lines of history at most."""

_OPEN, _REFUSED, _CLOSED, _CANNOT_TELL = "open", "refused", "closed at once", "cannot tell"


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What became of a new connection, and when that was known; of one that holds, when it was opened."""

    how: str
    at_s: float

    @property
    def proves_gone(self) -> bool:
        return self.how in (_REFUSED, _CLOSED)


class ConnectionMonitor:
    """Hears of every connection that the service ended, and says when the service was gone and reachable again."""

    def __init__(self, host: str, port: int, history: HistoryWriter) -> None:
        self._host, self._port, self._history = host, port, history
        self._looking: asyncio.Task[None] | None = None
        self._rests_until_s = 0.0
        self._to_say: list[tuple[Kind, float, dict[str, Json]]] = []

    def lost(self, at_s: float) -> None:
        """The service ended a connection, at this instant of CLOCK_MONOTONIC."""
        if at_s >= self._rests_until_s and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look(at_s))

    def flush(self) -> None:
        """Write what is to be said. Losing an event loses sharpness, so it must not cost the readings."""
        while self._to_say:
            kind, at_s, data = self._to_say.pop(0)
            with contextlib.suppress(OSError):
                t_s = at_s - self._history.anchor.monotonic_s
                self._history.event(kind, f"{self._host}:{self._port}", t_s=t_s, **data)

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self.flush()
        self._history.close()

    async def _look(self, ended_s: float) -> None:
        try:
            found = await self._attempt()
            if found.proves_gone:
                after_ms = round((found.at_s - ended_s) * 1000.0, 3)
                self._to_say.append((Kind.SERVICE_GONE, ended_s, {"how": found.how, "proven_after_ms": after_ms}))
                while found.how != _OPEN:
                    await asyncio.sleep(RETRY_S)
                    found = await self._attempt()
                self._to_say.append((Kind.SERVICE_REACHABLE, found.at_s, {}))
        except Exception as error:  # Left to the loop, it would end the prober.
            print(f"the sentinel could not look: {error!r}", file=sys.stderr, flush=True)
        self._rests_until_s = time.monotonic() + REST_S

    async def _attempt(self) -> _Attempt:
        loop = asyncio.get_running_loop()
        line = Line(loop.create_future())
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                await loop.create_connection(lambda: line, self._host, self._port)
        except ConnectionError:
            return _Attempt(_REFUSED, time.monotonic())
        except OSError:  # It took too long; or this process lacks something, which says nothing of the service.
            return _Attempt(_CANNOT_TELL, time.monotonic())
        try:
            await asyncio.wait([line.ended_s], timeout=HOLDS_AFTER_S)
        finally:
            line.drop()
        return _Attempt(_CLOSED, line.ended_s.result()) if line.ended_s.done() else _Attempt(_OPEN, line.opened_s)


class Line(asyncio.Protocol):
    """One connection on which nothing is ever said."""

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
            # Where nobody listens on a port that clients are given, a client may be given it and meets itself.
            self._end()
            self.drop()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def _end(self) -> None:
        if not self.ended_s.done():
            self.ended_s.set_result(time.monotonic())
