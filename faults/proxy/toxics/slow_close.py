"""The toxic that passes the end of connections on late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monkeyproof.faults.proxy.byte_filters import ByteFilter, ByteStream
from monkeyproof.faults.proxy.gate import Gate
from monkeyproof.faults.proxy.hooks import CONNECTION, ShareOfConnections
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic


@toxic("slow_close", hook=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class SlowClose(ShareOfConnections):
    """Pass the end of one direction on ``delay_ms`` late."""

    delay_ms: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(0 < self.delay_ms <= 600_000, "delay_ms is in (0, 600000]")

    def filter(self, active: ActiveToxic, stream: ByteStream, number: int) -> ByteFilter:  # noqa: ARG002
        return _HoldEnd(active, stream, self.delay_ms)


class _HoldEnd(ByteFilter):
    def __init__(self, active: ActiveToxic, stream: ByteStream, delay_ms: float) -> None:
        super().__init__(active, stream)
        self._delay_ms = delay_ms

    def before_end(self) -> Sequence[Gate]:
        return (self.stream.gate(self.active, self._delay_ms),)
