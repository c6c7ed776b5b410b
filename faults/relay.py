"""One relayed connection: two sides, a queue in between that toxics can hold, and no byte lost or changed.

Backpressure goes both ways (a side that cannot be written to stops the other from being read), either side
may end its half alone, and a reset on one side is a reset on the other.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from monkeyproof.faults.side import QUEUE_BYTES, Side
from monkeyproof.faults.toxics import Active

if TYPE_CHECKING:
    from monkeyproof.faults.link import Link

CONNECT_TIMEOUT_S = 3.0


class Gate:
    """Holds the queue of a relay until its time has come, or its toxic is taken away."""

    __slots__ = ("_active", "_arrived_s", "_early", "_own", "_relay", "_timer", "open")

    def __init__(self, active: Active, relay: Relay, delay_ms: float, own: bool) -> None:
        self._active, self._relay, self._own = active, relay, own
        self._arrived_s = time.monotonic()
        self._early = False
        self.open = False
        self._timer = relay.link.timers.at(self._arrived_s + delay_ms / 1000, self._ring)
        active.held.add(self)

    def _ring(self) -> None:
        self.open = True
        self._relay.pump()

    def release(self) -> None:
        """The toxic is gone: let the request through now."""
        if not self.open:
            self._early = True
            self.open = True
            self._timer.cancel()
            self._relay.pump()

    def passed(self) -> None:
        """What waited behind it is being forwarded."""
        active = self._active
        active.held.discard(self)
        if self._early:
            active.count("released_early")
            return
        active.hit(self._own)
        prefix = "own_" if self._own else ""
        delay_ms = (time.monotonic() - self._arrived_s) * 1000
        active.count(f"{prefix}delayed_ms_total", delay_ms)
        least = active.counters.get(f"{prefix}delay_min_ms", delay_ms)
        active.counters[f"{prefix}delay_min_ms"] = min(least, delay_ms)

    def drop(self) -> None:
        """The connection is gone, and what waited with it."""
        self._timer.cancel()
        self._active.held.discard(self)


class Relay:
    """A client's connection, the one to the server behind the link, and what is on its way to the server."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.client = Side(self)
        self.server = Side(self)
        self.closed = False
        self._connecting = False
        self._queue: deque[bytes | Gate | None] = deque()  # None is end-of-file.
        self._queued_bytes = 0
        link.relays.add(self)
        if link.hung:
            self.hang(True)

    def other(self, side: Side) -> Side:
        return self.server if side is self.client else self.client

    def received(self, side: Side, data: bytes) -> None:
        (self.from_client if side is self.client else self.from_server)(data)

    # What the protocols of links change.
    def from_client(self, data: bytes) -> None:
        self.forward(data)

    def from_server(self, data: bytes) -> None:
        self.client.write(data)

    def client_made(self) -> None: ...

    def client_ending(self) -> None:
        """The client sent end-of-file: last call before it is passed on."""

    def server_ending(self) -> None:
        """The server sent end-of-file: last call before it is passed on."""

    # The way to the server.
    def forward(self, data: bytes, gates: Sequence[Gate] = ()) -> None:
        """Send bytes to the server, in order, behind the gates."""
        if not self._queue and not gates and self._flowing:
            self.server.write(data)
            return
        self._queue.extend(gates)
        self._queue.append(data)
        self._queued_bytes += len(data)
        if self._queued_bytes > QUEUE_BYTES:
            self.client.hold("much is waiting")
        self.pump()

    @property
    def _flowing(self) -> bool:
        return self.server.transport is not None and not self.link.hung

    def pump(self) -> None:
        """Send what may be sent now."""
        if self.closed or not self._queue:
            return
        if self.server.transport is None:
            self.connect()
            return
        while self._queue and self._flowing:
            item = self._queue[0]
            if isinstance(item, Gate):
                if not item.open:
                    break
                item.passed()
            elif item is None:
                self.server.end()
            else:
                self._queued_bytes -= len(item)
                self.server.write(item)
            self._queue.popleft()
        if self._queued_bytes <= QUEUE_BYTES:
            self.client.go("much is waiting")
        self._settle()

    def connect(self) -> None:
        if not self._connecting and self.server.transport is None and not self.closed:
            self._connecting = True
            self.link.spawn(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self.link.loop.create_connection(lambda: self.server, *self.link.forward)
        except OSError:  # Refused, unreachable, no such host, or (TimeoutError) too late.
            self.link.connect_failures += 1
            self.reset()
        finally:
            self._connecting = False

    # What happens to the sides.
    def side_made(self, side: Side) -> None:
        if side is self.client:
            self.client_made()
        else:
            self.pump()

    def side_ended(self, side: Side) -> None:
        if side is self.client:
            self.client_ending()
            self._queue.append(None)
            if self.server.transport is None and len(self._queue) == 1 and not self._connecting:
                self._finish()  # It came, said nothing, and went.
                return
            self.pump()
        else:
            self.server_ending()
            self.client.end()
            self._settle()

    def side_lost(self, error: Exception | None) -> None:
        if self.closed:
            return
        if error is not None:
            self.reset()
        else:
            self._finish()

    def _settle(self) -> None:
        if self.client.eof and self.server.eof and not self._queue and not self.closed:
            self._finish()

    def _finish(self) -> None:
        """Close both sides once what was written to them is sent."""
        self._forget()
        self.client.close()
        self.server.close()

    def reset(self) -> None:
        """Break both sides off, as a network does."""
        self._forget()
        self.client.abort()
        self.server.abort()

    def _forget(self) -> None:
        self.closed = True
        self.link.relays.discard(self)
        for item in self._queue:
            if isinstance(item, Gate):
                item.drop()
        self._queue.clear()

    def hang(self, on: bool) -> None:
        """Read nothing from either side, or read again."""
        self.client.hang(on)
        self.server.hang(on)
        if not on:
            self.pump()
