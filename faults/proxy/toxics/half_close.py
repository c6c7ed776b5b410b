"""The toxic that ends one direction of connections early."""

from __future__ import annotations

from dataclasses import dataclass

from monkeyproof.faults.proxy.byte_filters import MAX_AFTER_BYTES, ByteStream, CuttingFilter
from monkeyproof.faults.proxy.hooks import CONNECTION, ShareOfConnections
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic


@toxic("half_close", hook=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class HalfClose(ShareOfConnections):
    """Send the end of one direction early: when ``after_bytes`` of it have passed (0: when the first comes).

    What follows is discarded, and such a connection is reset when the toxic is removed.
    """

    after_bytes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(0 <= self.after_bytes <= MAX_AFTER_BYTES, "after_bytes is at least 0")

    def filter(self, active: ActiveToxic, stream: ByteStream, number: int) -> CuttingFilter:  # noqa: ARG002
        return _EndEarly(active, stream, self.after_bytes)


class _EndEarly(CuttingFilter):
    def end(self) -> None:
        self.hit()
        self.stream.send_end()
