"""One direction of a relayed connection while a toxic acts on its bytes: what passes, when, and how it ends.

Only where a toxic asks for it does a pipe stand before an endpoint, and it is removed when nothing needs it any
more. Whatever is written to that endpoint passes through it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from monkeyproof.faults.proxy.byte_filters import ByteFilter, ByteStream
from monkeyproof.faults.proxy.endpoint import QUEUE_BYTES, Endpoint
from monkeyproof.faults.proxy.gate import Gate
from monkeyproof.faults.proxy.timers import Timer, Timers
from monkeyproof.faults.proxy.toxic import ActiveToxic


class PipedRelay(Protocol):
    """What pipes need of the relay that they belong to."""

    client: Endpoint
    server: Endpoint
    closed: bool

    @property
    def timers(self) -> Timers: ...

    def other(self, side: Endpoint) -> Endpoint: ...

    def reset(self) -> None: ...

    def reset_once_sent(self, side: Endpoint) -> None: ...

    def hang(self) -> None: ...

    def pipe_ran_dry(self) -> None: ...


class StreamPipe:
    """What is on its way to one endpoint, in order: bytes, gates, and what happens when its turn comes."""

    def __init__(self, relay: PipedRelay, side: Endpoint, direction: str) -> None:
        self.side = side
        self.filters: list[ByteFilter] = []
        self._relay = relay
        self._queue: deque[bytes | Gate | Callable[[], None]] = deque()
        self._queued_bytes = 0
        self._slow = f"the way of the {direction} is slow"

    @property
    def idle(self) -> bool:
        return not self._queue

    def hold(self, gates: Iterable[Gate]) -> None:
        """Hold back what is written from now on."""
        self._queue.extend(gates)

    # What filters do (``ByteStream``).
    def gate(self, active: ActiveToxic, delay_ms: float) -> Gate:
        return Gate(active, self._relay.timers, self.pump, delay_ms)

    def call_at(self, due_s: float, ring: Callable[[], None]) -> Timer:
        return self._relay.timers.at(due_s, ring)

    def send_end(self) -> None:
        self.side.send_end()

    def reset(self) -> None:
        self._relay.reset()

    def reset_once_sent(self) -> None:
        self._relay.reset_once_sent(self.side)

    # What the relay writes.
    def write(self, data: bytes) -> None:
        actions: list[Callable[[], None]] = []
        for one in self.filters:
            self._queue.extend(one.before(data))
            data, action = one.passing(data)
            if action is not None:
                actions.append(action)
        if data:
            self._queue.append(data)
            self._queued_bytes += len(data)
        self._queue.extend(actions)
        if self._queued_bytes > QUEUE_BYTES:
            self._relay.other(self.side).hold(self._slow)
        self.pump()

    def end(self) -> None:
        """The other side has ended: pass that on, in its turn."""
        if all(one.passes_end() for one in self.filters):
            for one in self.filters:
                self.hold(one.before_end())
            self._queue.append(self.side.send_end)
            self.pump()

    def pump(self) -> None:
        """Write what may be written now."""
        if not self._queue or self._relay.closed:
            return
        while self._queue:
            item = self._queue[0]
            if isinstance(item, bytes):
                count = self._allowed_bytes(len(item))
                if count == 0:
                    break
                self._queued_bytes -= count
                self.side.send(item[:count])
                if self._relay.closed:
                    return
                if count < len(item):
                    self._queue[0] = item[count:]
                    continue
            elif callable(item):
                item()
            elif item.open:
                item.passed()
            else:
                break
            if self._relay.closed:
                return
            self._queue.popleft()
        if self._queued_bytes <= QUEUE_BYTES:
            self._relay.other(self.side).go(self._slow)
        if not self._queue:
            self._relay.pipe_ran_dry()

    def _allowed_bytes(self, count: int) -> int:
        for one in self.filters:
            if one.pacer is not None and (count := min(count, one.pacer.allowed_bytes(self))) == 0:
                return 0
        for one in self.filters:
            if one.pacer is not None:
                one.pacer.spend(self, count)
        return count

    def drop(self) -> None:
        """The connection has ended, and with it what waited."""
        for item in self._queue:
            if not isinstance(item, bytes) and not callable(item):
                item.drop()
        self._queue.clear()


class StreamPipes:
    """The pipes of one relay, and the toxics that chose its connection."""

    def __init__(self, relay: PipedRelay) -> None:
        self._relay = relay
        self._pipes: dict[str, StreamPipe] = {}
        self._filters: dict[ActiveToxic, list[tuple[StreamPipe, ByteFilter]]] = {}
        self._blocks: dict[ActiveToxic, str] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing waits in them."""
        return all(pipe.idle for pipe in self._pipes.values())

    def of(self, direction: str) -> StreamPipe:
        """The pipe of one direction; from now on all of that direction passes through it."""
        if direction not in self._pipes:
            relay = self._relay
            side = relay.server if direction == "request" else relay.client
            side.outlet = self._pipes[direction] = StreamPipe(relay, side, direction)
        return self._pipes[direction]

    def blocks(self, direction: str) -> bool:
        """Whether a toxic blocks a direction."""
        return direction in self._blocks.values()

    def blocked_by(self, active: ActiveToxic) -> str:
        """The direction that a toxic blocks here; "" if it blocks none."""
        return self._blocks.get(active, "")

    # What toxics do (``ConnectionPipes``).
    def block(self, active: ActiveToxic, direction: str) -> None:
        self._blocks[active] = direction
        self._relay.hang()

    def place(
        self, active: ActiveToxic, direction: str, make: Callable[[ActiveToxic, ByteStream], ByteFilter]
    ) -> None:
        pipe = self.of(direction)
        made = make(active, pipe)
        pipe.filters.append(made)
        self._filters.setdefault(active, []).append((pipe, made))

    def remove(self, active: ActiveToxic) -> None:
        """A toxic was removed: what it held flows on."""
        if self._blocks.pop(active, None) is not None:
            self._relay.hang()
        for pipe, placed in self._filters.pop(active, ()):
            pipe.filters.remove(placed)
            placed.toxic_removed()
            pipe.pump()
        self.tidy()

    def pump(self) -> None:
        for pipe in list(self._pipes.values()):
            pipe.pump()

    def tidy(self) -> None:
        """Take pipes that nothing needs any more out of the way."""
        for direction, pipe in list(self._pipes.items()):
            if pipe.idle and not pipe.filters:
                del self._pipes[direction]
                pipe.side.outlet = None

    def drop(self) -> None:
        """The connection has ended."""
        for pipe in self._pipes.values():
            pipe.drop()
        for placed in self._filters.values():
            for _, one in placed:
                one.drop()
        self._filters.clear()
