"""What each toxic does to the bytes of one direction of one connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from monkeyproof.faults.proxy.timers import Timer
from monkeyproof.faults.proxy.toxics.connections import (
    Bandwidth,
    Blackhole,
    CorruptBytes,
    HalfClose,
    OnConnections,
    Reset,
    SlowClose,
)
from monkeyproof.faults.proxy.toxics.latency import Latency
from monkeyproof.faults.proxy.toxics.registry import Active

if TYPE_CHECKING:
    from monkeyproof.faults.proxy.pipe import StreamPipe
    from monkeyproof.faults.proxy.relay import Gate

_SLICE_S = 0.02
"""What a paced connection may send at once, as time; so much the pace may lag behind and catch up."""

Turn = Callable[[], None]


class ByteFilter:
    """Lets everything pass."""

    pacer: Pacer | None = None

    def __init__(self, active: Active, flow: StreamPipe) -> None:
        self._active, self._flow = active, flow
        self._struck = False

    def before(self, data: bytes) -> Sequence[Gate]:  # noqa: ARG002
        """What the bytes have to wait for."""
        return ()

    def passing(self, data: bytes) -> tuple[bytes, Turn | None]:
        """What of the bytes goes on, and what is to happen when they have."""
        return data, None

    def passes_end(self) -> bool:
        """Whether the end of the stream goes on."""
        return True

    def before_end(self) -> Sequence[Gate]:
        """What the end of the stream has to wait for."""
        return ()

    def leave(self) -> None:
        """The toxic is gone, and the connection lives on."""
        self.drop()

    def drop(self) -> None:
        """The connection is gone."""

    def _hit(self) -> None:
        """The fault has really hit this connection."""
        if not self._struck:
            self._struck = True
            self._active.hit(False)


class Holding(ByteFilter):
    """Latency of answers where nobody can tell answers apart: each chunk is held."""

    def before(self, data: bytes) -> Sequence[Gate]:
        toxic = self._active.parameters
        if not data or not isinstance(toxic, Latency):
            return ()
        delay_ms = toxic.delay_ms(self._active.draw(False))
        return () if delay_ms is None else (self._flow.relay.gate(self._active, delay_ms),)


class _Swallowing(ByteFilter):
    """Destroys bytes; so that nobody takes what follows for the whole, the connection cannot outlive the toxic."""

    destroyed = False

    def swallow(self, data: bytes) -> None:
        self.destroyed = True
        self._active.count("swallowed_bytes", len(data))

    def leave(self) -> None:
        super().leave()
        if self.destroyed:
            self._flow.relay.reset()


class _Blackholing(_Swallowing):
    def passing(self, data: bytes) -> tuple[bytes, Turn | None]:
        self._hit()
        self.swallow(data)
        return b"", None

    def passes_end(self) -> bool:
        self.destroyed = True
        return False


class _Cutting(_Swallowing):
    """Lets so many bytes pass, and does something then."""

    def __init__(self, active: Active, flow: StreamPipe, after_bytes: int) -> None:
        super().__init__(active, flow)
        self._left_bytes = after_bytes
        self._cut = False

    def passing(self, data: bytes) -> tuple[bytes, Turn | None]:
        if self._cut:
            self.swallow(data)
            return b"", None
        kept = data[: self._left_bytes]
        self._left_bytes -= len(kept)
        if self._left_bytes > 0:
            return kept, None
        self._cut = True
        if rest := data[len(kept) :]:
            self.swallow(rest)
        return kept, self._turn

    def _turn(self) -> None:
        raise NotImplementedError


class _Resetting(_Cutting):
    def _turn(self) -> None:
        self._hit()
        self._flow.relay.reset_once_sent(self._flow.side)

    def passes_end(self) -> bool:
        return not self._cut


class _ResettingLater(ByteFilter):
    def __init__(self, active: Active, flow: StreamPipe, after_ms: float) -> None:
        super().__init__(active, flow)
        self._timer = flow.relay.link.timers.at(time.monotonic() + after_ms / 1000, self._ring)

    def _ring(self) -> None:
        self._hit()
        self._flow.relay.reset()

    def drop(self) -> None:
        self._timer.cancel()


class _HalfClosing(_Cutting):
    def _turn(self) -> None:
        self._hit()
        self._flow.side.send_end()

    def passes_end(self) -> bool:
        return not self._cut  # It was sent before.


class _ClosingSlowly(ByteFilter):
    def __init__(self, active: Active, flow: StreamPipe, delay_ms: float) -> None:
        super().__init__(active, flow)
        self._delay_ms = delay_ms

    def before_end(self) -> Sequence[Gate]:
        return (self._flow.relay.gate(self._active, self._delay_ms),)


class _Flipping(ByteFilter):
    def __init__(self, active: Active, flow: StreamPipe, toxic: CorruptBytes, number: int) -> None:
        super().__init__(active, flow)
        self._toxic, self._number = toxic, number
        self._at = 0

    def passing(self, data: bytes) -> tuple[bytes, Turn | None]:
        begin, self._at = self._at, self._at + len(data)
        flips = self._toxic.flips(self._number, begin, self._at)
        if not flips:
            return data, None
        self._hit()
        changed = bytearray(data)
        for at, mask in flips:
            changed[at - begin] ^= mask
            self._active.journal.append(
                {"connection": self._number, "at": at, "old": data[at - begin], "new": changed[at - begin]}
            )
        self._active.count("flipped_bits", len(flips))
        return bytes(changed), None


class _Paced(ByteFilter):
    def __init__(self, active: Active, flow: StreamPipe, toxic: Bandwidth) -> None:
        super().__init__(active, flow)
        if toxic.per == "connection":
            self.pacer = Pacer(active, toxic)
        else:
            if active.pacer is None:
                active.pacer = Pacer(active, toxic)
            self.pacer = active.pacer

    def drop(self) -> None:
        if self.pacer is not None:
            self.pacer.forget(self._flow)


class Pacer:
    """Hands out the right to send so many bytes a second, in turns where several flows wait for it."""

    def __init__(self, active: Active, toxic: Bandwidth) -> None:
        self._active = active
        self._bytes_per_s = toxic.kib_per_s * 1024
        self._slice_bytes = max(1, int(self._bytes_per_s * _SLICE_S))
        self._next_s = 0.0
        self._waiting: dict[StreamPipe, float] = {}
        """Who waits for a turn, the first in front, and since when."""
        self._turn: StreamPipe | None = None
        self._slowed: set[StreamPipe] = set()
        self._timer: Timer | None = None

    def allowed_bytes(self, flow: StreamPipe) -> int:
        """How many bytes may go now; where it is none, the flow is pumped when its turn comes."""
        if self._turn is flow or (not self._waiting and time.monotonic() >= self._next_s):
            return self._slice_bytes
        self._waiting.setdefault(flow, time.monotonic())
        self._arm(flow)
        if flow not in self._slowed:
            self._slowed.add(flow)
            self._active.hit(False)
        return 0

    def spend(self, flow: StreamPipe, count: int) -> None:
        """So many bytes went."""
        now_s = time.monotonic()
        begin_s = self._next_s if now_s - self._next_s < _SLICE_S else now_s
        self._next_s = begin_s + count / self._bytes_per_s
        self._active.count("paced_bytes", count)
        if self._turn is flow:
            self._turn = None  # The next slice is another turn.

    def forget(self, flow: StreamPipe) -> None:
        self._waiting.pop(flow, None)
        self._slowed.discard(flow)

    def _arm(self, flow: StreamPipe) -> None:
        if self._timer is None:
            self._timer = flow.relay.link.timers.at(self._next_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        flow = next(iter(self._waiting))
        if time.monotonic() >= self._next_s:  # Not so where who waited went away and another spent.
            self._active.count("waited_ms_total", (time.monotonic() - self._waiting.pop(flow)) * 1000)
            self._turn = flow
            flow.pump()
            self._turn = None
        if self._waiting:
            self._arm(next(iter(self._waiting)))


def stage_of(active: Active, flow: StreamPipe, number: int) -> ByteFilter:
    """What a toxic does on connection ``number``."""
    toxic: OnConnections = active.parameters  # type: ignore[assignment]
    match toxic:
        case Bandwidth():
            return _Paced(active, flow, toxic)
        case Reset(after_ms=None):
            return _Resetting(active, flow, toxic.after_bytes)
        case Reset(after_ms=float(after_ms)):
            return _ResettingLater(active, flow, after_ms)
        case Blackhole():
            return _Blackholing(active, flow)
        case HalfClose():
            return _HalfClosing(active, flow, toxic.after_bytes)
        case SlowClose():
            return _ClosingSlowly(active, flow, toxic.delay_ms)
        case CorruptBytes():
            return _Flipping(active, flow, toxic, number)
    raise TypeError(f"{toxic} has no bytes to act on")
