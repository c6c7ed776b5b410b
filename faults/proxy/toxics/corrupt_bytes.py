"""The toxic that flips bits."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monkeyproof.faults.proxy.byte_filters import AfterBytes, ByteFilter, ByteStream
from monkeyproof.faults.proxy.hooks import CONNECTION, ShareOfConnections
from monkeyproof.faults.proxy.request_random import CHOSEN, PLACE, of_connection, uniform
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic
from monkeyproof.types import Json

JOURNAL_FLIPS = 500


@toxic("corrupt_bytes", hook=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class CorruptBytes(ShareOfConnections):
    """Flip one bit in each of a share of the blocks of ``block_bytes`` bytes of a direction.

    Which bit depends on (seed, the connection's number, the byte's position) alone, not on how the bytes arrive.
    Positions count from the connection's begin; of a live connection, from the moment that the toxic came.
    """

    block_share: float = 1.0
    block_bytes: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(8 <= self.block_bytes <= 1 << 20, "block_bytes is in 8..1048576")
        self.check(0 < self.block_share <= 1, "block_share is in (0, 1]")

    def flips(self, number: int, begin: int, end: int) -> Sequence[tuple[int, int]]:
        """The flips in the bytes ``[begin, end)`` of connection ``number``: position and mask of each."""
        picking, placing = of_connection(number, CHOSEN), of_connection(number, PLACE)
        found = []
        for block in range(begin // self.block_bytes, -(-end // self.block_bytes)):
            if uniform(self.seed, picking, block) < self.block_share:
                bit = int(uniform(self.seed, placing, block) * 8 * self.block_bytes)
                at = block * self.block_bytes + bit // 8
                if begin <= at < end:
                    found.append((at, 1 << bit % 8))
        return found

    def filter(self, active: ActiveToxic, stream: ByteStream, number: int) -> ByteFilter:
        return _FlipBits(active, stream, self, number)

    def new_state(self) -> deque[dict[str, Json]]:
        """The newest flips."""
        return deque(maxlen=JOURNAL_FLIPS)

    def report(self, active: ActiveToxic) -> Mapping[str, Json]:
        return {"journal": list(active.state)}


class _FlipBits(ByteFilter):
    def __init__(self, active: ActiveToxic, stream: ByteStream, toxic: CorruptBytes, number: int) -> None:
        super().__init__(active, stream)
        self._toxic, self._number = toxic, number
        self._at = 0

    def passing(self, data: bytes) -> tuple[bytes, AfterBytes | None]:
        begin, self._at = self._at, self._at + len(data)
        flips = self._toxic.flips(self._number, begin, self._at)
        if not flips:
            return data, None
        self.hit()
        changed = bytearray(data)
        for at, mask in flips:
            changed[at - begin] ^= mask
            self.active.state.append(
                {"connection": self._number, "at": at, "old": data[at - begin], "new": changed[at - begin]}
            )
        self.active.count("flipped_bits", len(flips))
        return bytes(changed), None
