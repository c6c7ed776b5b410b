"""One direction of a relayed connection while a fault acts on its bytes: what passes, when, and how it ends.

Only where a toxic asks for it does a flow stand before a side, and it goes when it is needed no more. Whatever is
written to that side, by whomever, passes through it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from monkeyproof.faults.proxy.byte_filters import ByteFilter, Holding, stage_of
from monkeyproof.faults.proxy.endpoint import QUEUE_BYTES, Endpoint
from monkeyproof.faults.proxy.toxics.connections import OnConnections, Partition
from monkeyproof.faults.proxy.toxics.latency import Latency
from monkeyproof.faults.proxy.toxics.registry import Active

if TYPE_CHECKING:
    from monkeyproof.faults.proxy.relay import Gate, Relay


class StreamPipe:
    """What is on its way to one side, in order: bytes, what holds them, and what happens when its turn comes."""

    def __init__(self, relay: Relay, side: Endpoint, direction: str) -> None:
        self.relay, self.side = relay, side
        self.stages: list[ByteFilter] = []
        self._queue: deque[bytes | Gate | Callable[[], None]] = deque()
        self._queued_bytes = 0
        self._slow = f"the way of the {direction} is slow"

    @property
    def idle(self) -> bool:
        return not self._queue

    def hold(self, gates: Iterable[Gate]) -> None:
        """Hold back what is written from now on."""
        self._queue.extend(gates)

    def write(self, data: bytes) -> None:
        turns: list[Callable[[], None]] = []
        for stage in self.stages:
            self._queue.extend(stage.before(data))
            data, turn = stage.passing(data)
            if turn is not None:
                turns.append(turn)
        if data:
            self._queue.append(data)
            self._queued_bytes += len(data)
        self._queue.extend(turns)
        if self._queued_bytes > QUEUE_BYTES:
            self.relay.other(self.side).hold(self._slow)
        self.pump()

    def end(self) -> None:
        """The other side has ended: pass that on, in its turn."""
        if all(stage.passes_end() for stage in self.stages):
            for stage in self.stages:
                self.hold(stage.before_end())
            self._queue.append(self.side.send_end)
            self.pump()

    def pump(self) -> None:
        """Write what may be written now."""
        if not self._queue or self.relay.closed:
            return
        while self._queue:
            item = self._queue[0]
            if isinstance(item, bytes):
                count = self._allowed_bytes(len(item))
                if count == 0:
                    break
                self._queued_bytes -= count
                self.side.send(item[:count])
                if self.relay.closed:
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
            if self.relay.closed:
                return
            self._queue.popleft()
        if self._queued_bytes <= QUEUE_BYTES:
            self.relay.other(self.side).go(self._slow)
        if not self._queue:
            self.relay.flow_ran_dry()

    def _allowed_bytes(self, count: int) -> int:
        for stage in self.stages:
            if stage.pacer is not None and (count := min(count, stage.pacer.allowed_bytes(self))) == 0:
                return 0
        for stage in self.stages:
            if stage.pacer is not None:
                stage.pacer.spend(self, count)
        return count

    def drop(self) -> None:
        """The connection is gone, and what waited with it."""
        for item in self._queue:
            if not isinstance(item, bytes) and not callable(item):
                item.drop()
        self._queue.clear()


class StreamPipes:
    """The flows of one relay, and the toxics that chose its connection."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._flows: dict[str, StreamPipe] = {}
        self._stages: dict[Active, list[tuple[StreamPipe, ByteFilter]]] = {}
        self._partitions: dict[Active, str] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing waits in them."""
        return all(flow.idle for flow in self._flows.values())

    def of(self, direction: str) -> StreamPipe:
        """The flow of one direction; from now on all of that direction passes through it."""
        if direction not in self._flows:
            relay = self._relay
            side = relay.server if direction == "request" else relay.client
            side.flow = self._flows[direction] = StreamPipe(relay, side, direction)
        return self._flows[direction]

    def holds_back(self, direction: str) -> bool:
        """Whether a partition lets nothing of a direction pass."""
        return direction in self._partitions.values()

    def partitioned(self, active: Active) -> str:
        """The direction that a partition holds back here; "" if it did not choose this connection."""
        return self._partitions.get(active, "")

    def meet(self, active: Active, toxic: OnConnections | Latency) -> None:
        """Decide whether a toxic hits this connection; if so, it does from now on."""
        if isinstance(toxic, Latency):
            self._place(active, toxic.direction, Holding)
            return
        number = active.draw(False)
        if not toxic.strikes(number):
            return
        if isinstance(toxic, Partition):
            self._partitions[active] = toxic.direction
            self._relay.hang()
            return
        for direction in toxic.ways:
            self._place(active, direction, lambda active, flow: stage_of(active, flow, number))

    def _place(self, active: Active, direction: str, make: Callable[[Active, StreamPipe], ByteFilter]) -> None:
        flow = self.of(direction)
        stage = make(active, flow)
        flow.stages.append(stage)
        self._stages.setdefault(active, []).append((flow, stage))

    def part(self, active: Active) -> None:
        """A toxic is gone: what it held flows on."""
        if self._partitions.pop(active, None) is not None:
            self._relay.hang()
        for flow, stage in self._stages.pop(active, ()):
            flow.stages.remove(stage)
            stage.leave()
            flow.pump()
        self.tidy()

    def pump(self) -> None:
        for flow in list(self._flows.values()):
            flow.pump()

    def tidy(self) -> None:
        """Take flows that nothing needs any more out of the way."""
        for direction, flow in list(self._flows.items()):
            if flow.idle and not flow.stages:
                del self._flows[direction]
                flow.side.flow = None

    def drop(self) -> None:
        """The connection is gone."""
        for flow in self._flows.values():
            flow.drop()
        for placed in self._stages.values():
            for _, stage in placed:
                stage.drop()
        self._stages.clear()
