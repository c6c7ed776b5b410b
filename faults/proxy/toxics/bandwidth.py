"""The toxic that limits how many bytes pass a second."""

from __future__ import annotations

import time
from dataclasses import dataclass

from monkeyproof.faults.proxy.byte_filters import ByteFilter, ByteStream
from monkeyproof.faults.proxy.hooks import CONNECTION, ShareOfConnections
from monkeyproof.faults.proxy.timers import Timer
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic

_SLICE_S = 0.02
"""What a paced connection may send at once, as time; the pace may lag behind by so much, and catch up."""


@toxic("bandwidth", hook=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class Bandwidth(ShareOfConnections):
    """Let bytes of one direction pass at ``kib_per_s`` at most, those of each connection, or of all that are hit
    together (``per`` is "connection" or "link")."""

    kib_per_s: float = 1.0
    per: str = "link"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(0.1 <= self.kib_per_s <= 1 << 20, "kib_per_s is between 0.1 and 1048576")
        self.check(self.per in ("link", "connection"), "per is 'link' or 'connection'")

    def filter(self, active: ActiveToxic, stream: ByteStream, number: int) -> ByteFilter:  # noqa: ARG002
        if self.per == "connection":
            return _Paced(active, stream, Pacer(active, self.kib_per_s))
        if active.state is None:
            active.state = Pacer(active, self.kib_per_s)
        return _Paced(active, stream, active.state)


class _Paced(ByteFilter):
    def __init__(self, active: ActiveToxic, stream: ByteStream, pacer: Pacer) -> None:
        super().__init__(active, stream)
        self._pacer = self.pacer = pacer

    def drop(self) -> None:
        self._pacer.forget(self.stream)


class Pacer:
    """Hands out the right to send so many bytes a second, in turns where several streams wait for it."""

    def __init__(self, active: ActiveToxic, kib_per_s: float) -> None:
        self._active = active
        self._bytes_per_s = kib_per_s * 1024
        self._slice_bytes = max(1, int(self._bytes_per_s * _SLICE_S))
        self._next_s = 0.0
        self._waiting: dict[ByteStream, float] = {}
        """The streams that wait for a turn, the first in front, and since when."""
        self._turn: ByteStream | None = None
        self._slowed: set[ByteStream] = set()
        self._timer: Timer | None = None

    def allowed_bytes(self, stream: ByteStream) -> int:
        """How many bytes may go now; where it is none, the stream is pumped when its turn comes."""
        if self._turn is stream or (not self._waiting and time.monotonic() >= self._next_s):
            return self._slice_bytes
        self._waiting.setdefault(stream, time.monotonic())
        self._arm(stream)
        if stream not in self._slowed:
            self._slowed.add(stream)
            self._active.hit(False)
        return 0

    def spend(self, stream: ByteStream, count: int) -> None:
        """So many bytes went."""
        now_s = time.monotonic()
        begin_s = self._next_s if now_s - self._next_s < _SLICE_S else now_s
        self._next_s = begin_s + count / self._bytes_per_s
        self._active.count("paced_bytes", count)
        if self._turn is stream:
            self._turn = None  # The next slice is another turn.

    def forget(self, stream: ByteStream) -> None:
        self._waiting.pop(stream, None)
        self._slowed.discard(stream)

    def _arm(self, stream: ByteStream) -> None:
        if self._timer is None:
            self._timer = stream.call_at(self._next_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        stream = next(iter(self._waiting))
        if time.monotonic() >= self._next_s:  # Not so where a stream that waited has ended and another spent.
            self._active.count("waited_ms_total", (time.monotonic() - self._waiting.pop(stream)) * 1000)
            self._turn = stream
            stream.pump()
            self._turn = None
        if self._waiting:
            self._arm(next(iter(self._waiting)))
