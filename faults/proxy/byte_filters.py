"""Filters of the bytes of one direction of one connection: what all of them have, and what several share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from monkeyproof.faults.proxy.gate import Gate
from monkeyproof.faults.proxy.timers import Timer
from monkeyproof.faults.proxy.toxic import ActiveToxic

MAX_AFTER_BYTES = 1 << 40

AfterBytes = Callable[[], None]
"""Something to do once the bytes before it have been written."""


class ByteStream(Protocol):
    """One direction of a connection, as a filter may act on it."""

    def gate(self, active: ActiveToxic, delay_ms: float) -> Gate:
        """Something that holds back what is written after it."""

    def call_at(self, due_s: float, ring: Callable[[], None]) -> Timer:
        """Call ``ring`` when CLOCK_MONOTONIC reaches ``due_s`` seconds."""

    def pump(self) -> None:
        """Write what may be written now."""

    def send_end(self) -> None:
        """Send end-of-file at once."""

    def reset(self) -> None:
        """Reset the whole connection at once."""

    def reset_once_sent(self) -> None:
        """Reset the whole connection when the receiver has what was written, or does not take it for a while."""


class BytePacer(Protocol):
    """Decides how many bytes may be written now."""

    def allowed_bytes(self, stream: ByteStream) -> int:
        """How many bytes may go now; where it is none, the stream is pumped when its turn comes."""

    def spend(self, stream: ByteStream, count: int) -> None:
        """So many bytes went."""


class ByteFilter:
    """Lets everything pass."""

    pacer: BytePacer | None = None

    def __init__(self, active: ActiveToxic, stream: ByteStream) -> None:
        self.active, self.stream = active, stream
        self._has_hit = False

    def before(self, data: bytes) -> Sequence[Gate]:  # noqa: ARG002
        """What the bytes have to wait for."""
        return ()

    def passing(self, data: bytes) -> tuple[bytes, AfterBytes | None]:
        """Which bytes go on, and what is to happen when they have."""
        return data, None

    def passes_end(self) -> bool:
        """Whether the end of the stream goes on."""
        return True

    def before_end(self) -> Sequence[Gate]:
        """What the end of the stream has to wait for."""
        return ()

    def toxic_removed(self) -> None:
        """The toxic was removed, and the connection lives on."""
        self.drop()

    def drop(self) -> None:
        """The connection has ended."""

    def hit(self) -> None:
        """The fault has really hit this connection: count that once."""
        if not self._has_hit:
            self._has_hit = True
            self.active.hit(False)


class DiscardingFilter(ByteFilter):
    """Destroys bytes. Such a connection is reset when the toxic is removed: the receiver would take what follows
    the gap for the whole."""

    destroyed = False

    def discard(self, data: bytes) -> None:
        self.destroyed = True
        self.active.count("swallowed_bytes", len(data))

    def toxic_removed(self) -> None:
        super().toxic_removed()
        if self.destroyed:
            self.stream.reset()


class CuttingFilter(DiscardingFilter):
    """Lets so many bytes pass, then calls ``end``, and discards the rest."""

    def __init__(self, active: ActiveToxic, stream: ByteStream, after_bytes: int) -> None:
        super().__init__(active, stream)
        self._left_bytes = after_bytes
        self._cut = False

    def passing(self, data: bytes) -> tuple[bytes, AfterBytes | None]:
        if self._cut:
            self.discard(data)
            return b"", None
        kept = data[: self._left_bytes]
        self._left_bytes -= len(kept)
        if self._left_bytes > 0:
            return kept, None
        self._cut = True
        if rest := data[len(kept) :]:
            self.discard(rest)
        return kept, self.end

    def passes_end(self) -> bool:
        return not self._cut

    def end(self) -> None:
        """The bytes that pass have been written."""
        raise NotImplementedError
