"""The toxic that discards what connections carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from monkeyproof.faults.proxy.byte_filters import AfterBytes, ByteStream, DiscardingFilter
from monkeyproof.faults.proxy.hooks import CONNECTION, ShareOfConnections
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic


@toxic("blackhole", hook=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class Blackhole(ShareOfConnections):
    """Read and discard what comes, ends included. ``direction`` may be "both"."""

    directions: ClassVar[tuple[str, ...]] = ("request", "response", "both")

    def filter(self, active: ActiveToxic, stream: ByteStream, number: int) -> DiscardingFilter:  # noqa: ARG002
        return _DiscardAll(active, stream)


class _DiscardAll(DiscardingFilter):
    def passing(self, data: bytes) -> tuple[bytes, AfterBytes | None]:
        self.hit()
        self.discard(data)
        return b"", None

    def passes_end(self) -> bool:
        self.destroyed = True
        return False
