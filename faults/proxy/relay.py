"""One relayed connection: two sides, a queue in between that toxics can hold, and no byte lost or changed.

Toxics that act on the bytes themselves put a pipe (monkeyproof.faults.proxy.pipe) before the side that is written.
Backpressure goes both ways (a side that cannot be written to stops the other from being read), either side
may end its half alone, and a reset on one side is a reset on the other.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from monkeyproof.faults.proxy.endpoint import QUEUE_BYTES, Endpoint
from monkeyproof.faults.proxy.gate import Gate
from monkeyproof.faults.proxy.hooks import CONNECTION, REQUEST_DELAY, DelayToxic, RefusingToxic
from monkeyproof.faults.proxy.pipe import StreamPipes
from monkeyproof.faults.proxy.timers import Timers
from monkeyproof.faults.proxy.toxic import ActiveToxic, Hook, ToxicKind

CONNECT_TIMEOUT_S = 3.0
SENT_WITHIN_S = 1.0
_CHECK_AGAIN_S = 0.001
T = TypeVar("T", bound=ToxicKind)


class RelayLink(Protocol):
    """What a relay needs of its link."""

    forward: tuple[str, int]
    loop: asyncio.AbstractEventLoop
    timers: Timers
    relays: set[Relay]
    connections: int
    """Accepted so far."""
    hung: bool
    splits_messages: bool
    """Whether a toxic acts on messages, so that an HTTP relay has to take them apart."""
    refusals: Sequence[tuple[ActiveToxic, RefusingToxic]]
    """What acts at ``REFUSAL``."""
    request_delays: Sequence[tuple[ActiveToxic, DelayToxic]]
    """What acts at ``REQUEST_DELAY``."""

    def at(self, hook: Hook[T]) -> Sequence[tuple[ActiveToxic, T]]: ...

    def spawn(self, what: Coroutine[Any, Any, None]) -> None: ...


class Relay:
    """A client's connection, the one to the server behind the link, and what is on its way to the server."""

    def __init__(self, link: RelayLink) -> None:
        self.link = link
        self.client = Endpoint(self)
        self.server = Endpoint(self)
        self.pipes = StreamPipes(self)
        self.closed = False
        self.stalled = False
        """Nothing that the client sends passes."""
        self._connecting = False
        self._finishing = False
        self._breaking = False
        self._queue: deque[bytes | Gate | None] = deque()  # None is end-of-file.
        self._queued_bytes = 0
        link.relays.add(self)
        self.number = link.connections
        """Of the link's connections, in the order in which they were accepted."""
        link.connections += 1
        for active, toxic in link.at(CONNECTION):
            toxic.meet(active, self.pipes)
        if link.hung:
            self.hang()

    @property
    def timers(self) -> Timers:
        return self.link.timers

    def gates(self, hook: Hook[DelayToxic] = REQUEST_DELAY, *, own: bool = False) -> list[Gate]:
        """What holds the message (or chunk) that just arrived. Several delays run at the same time."""
        found = []
        for active, toxic in self.link.at(hook):
            delay_ms = toxic.delay_ms(active.draw(own), own=own)
            if delay_ms is not None:
                found.append(Gate(active, self.link.timers, self.pump, delay_ms, own=own))
        return found

    def other(self, side: Endpoint) -> Endpoint:
        return self.server if side is self.client else self.client

    @property
    def ending(self) -> bool:
        """Whether nothing more is taken in, though what was taken in may still be on its way."""
        return self.closed or self._finishing or self._breaking

    def received(self, side: Endpoint, data: bytes) -> None:
        if self.closed or self._finishing or self._breaking:
            return
        if side is self.client:
            self.from_client(data)
        else:
            self.from_server(data)

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
        if not self._queue and not gates and not self.stalled and self.server.transport is not None:
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
        return self.server.transport is not None and not self.stalled

    def pump(self) -> None:
        """Send what may be sent now."""
        self.pipes.pump()
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
            if self.closed:
                return
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
            self.reset()
        finally:
            self._connecting = False

    # What happens to the sides.
    def side_made(self, side: Endpoint) -> None:
        if side is self.client:
            self.client_made()
        else:
            self.pump()

    def side_ended(self, side: Endpoint) -> None:
        if side is self.client:
            self.client_ending()
            self._queue.append(None)
            if self.server.transport is None and len(self._queue) == 1 and not self._connecting:
                self._finish()  # The client closed without sending a byte.
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
        over = self.client.eof and self.server.eof and not self._queue
        if over and not self.closed and not self._breaking:
            self._finish()

    def pipe_ran_dry(self) -> None:
        """Nothing waits in one of the pipes any more."""
        self.pipes.tidy()
        if self._finishing and not self.closed:
            self._finish()
        else:
            self._settle()

    def _finish(self) -> None:
        """Close both sides once what was written to them is sent."""
        if not self.pipes.idle:
            self._finishing = True
            self._stop_reading()
            return
        self._forget()
        self.client.close()
        self.server.close()

    def reset(self) -> None:
        """Reset both connections, as a network does."""
        self._forget()
        self.client.abort()
        self.server.abort()

    def reset_once_sent(self, side: Endpoint) -> None:
        """Reset both connections once the peer of ``side`` has what was written, or after ``SENT_WITHIN_S``."""
        self._breaking = True
        self._stop_reading()
        deadline_s = time.monotonic() + SENT_WITHIN_S

        def check() -> None:
            if self.closed:
                return
            if side.unsent_bytes() and time.monotonic() < deadline_s:
                self.link.loop.call_later(_CHECK_AGAIN_S, check)
            else:
                self.reset()

        self.link.loop.call_later(_CHECK_AGAIN_S, check)

    def _stop_reading(self) -> None:
        for side in (self.client, self.server):
            side.hold("it comes to its end")

    def _forget(self) -> None:
        self.closed = True
        self.link.relays.discard(self)
        for item in self._queue:
            if isinstance(item, Gate):
                item.drop()
        self._queue.clear()
        self.pipes.drop()

    def hang(self) -> None:
        """Read nothing from the sides that the link's toxics hold back; read again from those that are free."""
        self.stalled = self.link.hung or self.pipes.blocks("request")
        self.client.hang(self.stalled)
        self.server.hang(self.link.hung or self.pipes.blocks("response"))
        if not self.stalled:
            self.pump()

    def hung_bytes(self) -> int:
        """How much waits unread because the link hangs, and for no other reason."""
        sides = (("request", self.client), ("response", self.server))
        return sum(
            side.waiting_bytes()
            for direction, side in sides
            if side.only_hangs and not self.pipes.blocks(direction)
        )

    def blocked_bytes(self, active: ActiveToxic) -> int | None:
        """How much waits because this toxic blocks a direction; None if it blocks none here."""
        direction = self.pipes.blocked_by(active)
        if not direction:
            return None
        return (self.client if direction == "request" else self.server).waiting_bytes()
