"""Toxics that act on the bytes of single connections: which connections, in which direction, and what happens.

Whether a connection is hit depends on (seed, its number) alone; connections are numbered from the moment that the
toxic comes, those that live already first, in the order in which they were accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from monkeyproof.faults.proxy.request_random import CHOSEN, PLACE, check, chosen, of_connection, uniform

MAX_AFTER_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class _OnConnections:
    """What they have in common."""

    seed: int
    direction: str
    share: float = 1.0

    kind: ClassVar[str] = ""
    directions: ClassVar[tuple[str, ...]] = ("request", "response")

    def __post_init__(self) -> None:
        words = " or ".join(map(repr, self.directions))
        check(self.direction in self.directions, self.kind, f"direction is {words}")
        check(0 < self.share <= 1, self.kind, "share is in (0, 1]")

    def strikes(self, number: int) -> bool:
        """Whether connection ``number`` is hit."""
        return chosen(self.seed, self.share, number)

    @property
    def ways(self) -> Sequence[str]:
        """The directions of which bytes are acted upon."""
        return ("request", "response") if self.direction == "both" else (self.direction,)


@dataclass(frozen=True, slots=True)
class Bandwidth(_OnConnections):
    """Let bytes of one direction pass at ``kib_per_s`` at most, those of each connection, or of all that are hit
    together (``per`` is "connection" or "link")."""

    kib_per_s: float = 1.0
    per: str = "link"

    kind: ClassVar[str] = "bandwidth"

    def __post_init__(self) -> None:
        _OnConnections.__post_init__(self)
        check(0.1 <= self.kib_per_s <= 1 << 20, self.kind, "kib_per_s is between 0.1 and 1048576")
        check(self.per in ("link", "connection"), self.kind, "per is 'link' or 'connection'")


@dataclass(frozen=True, slots=True)
class Reset(_OnConnections):
    """Reset a connection: when ``after_bytes`` of the direction have passed (0: when the first comes), or, where
    ``after_ms`` is given, so long after it was opened; one that lives already, so long after the toxic came."""

    after_bytes: int = 0
    after_ms: float | None = None

    kind: ClassVar[str] = "reset"

    def __post_init__(self) -> None:
        _OnConnections.__post_init__(self)
        check(0 <= self.after_bytes <= MAX_AFTER_BYTES, self.kind, "after_bytes is at least 0")
        check(self.after_ms is None or not self.after_bytes, self.kind, "takes after_bytes or after_ms, not both")
        check(self.after_ms is None or 0 <= self.after_ms <= 600_000, self.kind, "after_ms is in 0..600000")


@dataclass(frozen=True, slots=True)
class Blackhole(_OnConnections):
    """Read and swallow what comes, ends included. A connection of which something was swallowed is reset when the
    toxic goes: what follows the gap would be taken for something that it is not."""

    kind: ClassVar[str] = "blackhole"
    directions: ClassVar[tuple[str, ...]] = ("request", "response", "both")


@dataclass(frozen=True, slots=True)
class Partition(_OnConnections):
    """Let nothing of one direction pass, while the other flows. What waits meanwhile is not lost, and flows on."""

    kind: ClassVar[str] = "partition"


@dataclass(frozen=True, slots=True)
class HalfClose(_OnConnections):
    """Send the end of one direction early: when ``after_bytes`` of it have passed (0: when the first comes). What
    follows is swallowed, and such a connection is reset when the toxic goes."""

    after_bytes: int = 0

    kind: ClassVar[str] = "half_close"

    def __post_init__(self) -> None:
        _OnConnections.__post_init__(self)
        check(0 <= self.after_bytes <= MAX_AFTER_BYTES, self.kind, "after_bytes is at least 0")


@dataclass(frozen=True, slots=True)
class SlowClose(_OnConnections):
    """Pass the end of one direction on ``delay_ms`` late."""

    delay_ms: float = 0.0

    kind: ClassVar[str] = "slow_close"

    def __post_init__(self) -> None:
        _OnConnections.__post_init__(self)
        check(0 < self.delay_ms <= 600_000, self.kind, "delay_ms is in (0, 600000]")


@dataclass(frozen=True, slots=True)
class CorruptBytes(_OnConnections):
    """Flip one bit in each of a share of the blocks of ``block_bytes`` bytes of a direction.

    Which bit depends on (seed, the connection's number, the byte's position) alone, not on how the bytes arrive.
    Positions count from the connection's begin; of one that lives already, from the moment that the toxic came.
    """

    block_share: float = 1.0
    block_bytes: int = 256

    kind: ClassVar[str] = "corrupt_bytes"

    def __post_init__(self) -> None:
        _OnConnections.__post_init__(self)
        check(8 <= self.block_bytes <= 1 << 20, self.kind, "block_bytes is in 8..1048576")
        check(0 < self.block_share <= 1, self.kind, "block_share is in (0, 1]")

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


OnConnections = Bandwidth | Reset | Blackhole | Partition | HalfClose | SlowClose | CorruptBytes
