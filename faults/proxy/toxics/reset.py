"""The toxic that resets connections."""

from __future__ import annotations

import time
from dataclasses import dataclass

from monkeyproof.faults.proxy.byte_filters import MAX_AFTER_BYTES, ByteFilter, ByteStream, CuttingFilter
from monkeyproof.faults.proxy.hooks import CONNECTION, ShareOfConnections
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic


@toxic("reset", hook=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class ResetConnections(ShareOfConnections):
    """Reset a connection when ``after_bytes`` of the direction have passed (0: when the first comes).

    With ``after_ms``, so long after it was opened instead; a live connection, so long after the toxic came.
    """

    after_bytes: int = 0
    after_ms: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(0 <= self.after_bytes <= MAX_AFTER_BYTES, "after_bytes is at least 0")
        self.check(self.after_ms is None or not self.after_bytes, "takes after_bytes or after_ms, not both")
        self.check(self.after_ms is None or 0 <= self.after_ms <= 600_000, "after_ms is in 0..600000")

    def filter(self, active: ActiveToxic, stream: ByteStream, number: int) -> ByteFilter:  # noqa: ARG002
        if self.after_ms is None:
            return _ResetAfterBytes(active, stream, self.after_bytes)
        return _ResetLater(active, stream, self.after_ms)


class _ResetAfterBytes(CuttingFilter):
    def end(self) -> None:
        self.hit()
        self.stream.reset_once_sent()


class _ResetLater(ByteFilter):
    def __init__(self, active: ActiveToxic, stream: ByteStream, after_ms: float) -> None:
        super().__init__(active, stream)
        self._timer = stream.call_at(time.monotonic() + after_ms / 1000, self._ring)

    def _ring(self) -> None:
        self.hit()
        self.stream.reset()

    def drop(self) -> None:
        self._timer.cancel()
