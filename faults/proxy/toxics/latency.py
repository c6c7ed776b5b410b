"""The toxic that holds requests or responses for a while, and the distributions of that while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from monkeyproof.faults.proxy.byte_filters import ByteFilter, ByteStream
from monkeyproof.faults.proxy.gate import Gate
from monkeyproof.faults.proxy.hooks import (
    CONNECTION,
    DIRECTIONS,
    REQUEST_DELAY,
    RESPONSE_DELAY,
    ConnectionPipes,
    ConnectionToxic,
    DelayToxic,
)
from monkeyproof.faults.proxy.request_random import AMOUNT, OWN, chosen, uniform
from monkeyproof.faults.proxy.toxic import ActiveToxic, Hook
from monkeyproof.faults.proxy.toxic_registry import toxic

DISTRIBUTIONS = ("uniform", "constant", "normal", "lognormal", "pareto")
LONGEST_MS = 600_000.0
_STANDARD = NormalDist()
_SMALLEST = 2.0**-54
"""Stands in for a draw of exactly 0, at which the inverse of a distribution function is infinite."""


@toxic("latency", hook=REQUEST_DELAY)
@dataclass(frozen=True, kw_only=True)
class Latency(DelayToxic, ConnectionToxic):
    """Hold each request or response once (on TCP links: each chunk), for ``low_ms`` to ``high_ms``.

    The delay is drawn by inverting the distribution's function at one number of (seed, n). ``uniform`` lies
    between the two bounds, ``constant`` is ``mean_ms``. The others have the mean ``mean_ms`` before they are cut
    off at the bounds: ``normal`` and ``lognormal`` with the standard deviation ``jitter_ms``; ``pareto`` (type I)
    with the exponent ``tail``, the heavier the closer it is to 1.
    """

    low_ms: float
    high_ms: float
    seed: int
    share: float = 1.0
    direction: str = "request"
    distribution: str = "uniform"
    mean_ms: float = 0.0
    jitter_ms: float = 0.0
    tail: float = 1.5

    def __post_init__(self) -> None:
        self.check(0 <= self.low_ms <= self.high_ms, "needs 0 <= low_ms <= high_ms")
        self.check(self.high_ms <= LONGEST_MS, "high_ms is at most 600000")
        self.check(0 < self.share <= 1, "share is in (0, 1]")
        self.check(self.direction in DIRECTIONS, "direction is 'request' or 'response'")
        self.check(self.distribution in DISTRIBUTIONS, f"distribution is one of {', '.join(DISTRIBUTIONS)}")
        if self.distribution == "uniform":
            self.check(not self.mean_ms, "uniform lies between low_ms and high_ms, and takes no mean_ms")
        else:
            fits = self.mean_ms > 0 and self.low_ms <= self.mean_ms <= self.high_ms
            self.check(fits, f"{self.distribution} needs a mean_ms above 0 between low_ms and high_ms")
        if self.distribution in ("normal", "lognormal"):
            self.check(self.jitter_ms > 0, f"{self.distribution} needs a jitter_ms above 0")
        else:
            self.check(not self.jitter_ms, f"{self.distribution} takes no jitter_ms")
        self.check(self.tail > 1, "tail is above 1, or there is no mean")

    def hook_on(self, protocol: str) -> Hook[Any]:
        if self.direction == "request":
            return REQUEST_DELAY
        # Where the proxy cannot tell responses apart, it delays each chunk of a connection.
        return RESPONSE_DELAY if protocol == "http" else CONNECTION

    def meet(self, active: ActiveToxic, pipes: ConnectionPipes) -> None:
        pipes.place(active, self.direction, lambda active, stream: _HoldChunks(active, stream, self))

    def delay_ms(self, n: int, *, own: bool = False) -> float | None:
        """The delay of request, response or chunk ``n``; None if it is not chosen."""
        if self.share < 1 and not chosen(self.seed, self.share, n, own=own):
            return None
        u = uniform(self.seed, (OWN if own else 0) + AMOUNT, n)
        if self.distribution == "uniform":
            return self.low_ms + (self.high_ms - self.low_ms) * u
        return min(max(self._drawn_ms(max(u, _SMALLEST)), self.low_ms), self.high_ms)

    def _drawn_ms(self, u: float) -> float:
        match self.distribution:
            case "normal":
                return self.mean_ms + self.jitter_ms * _STANDARD.inv_cdf(u)
            case "lognormal":
                # Of the underlying normal: mean and variance that give the lognormal's own.
                variance = math.log1p((self.jitter_ms / self.mean_ms) ** 2)
                mean = math.log(self.mean_ms) - variance / 2
                return math.exp(min(mean + math.sqrt(variance) * _STANDARD.inv_cdf(u), 700.0))
            case "pareto":
                smallest_ms = self.mean_ms * (self.tail - 1) / self.tail
                return float(smallest_ms * (1 - u) ** (-1 / self.tail))
        return self.mean_ms


class _HoldChunks(ByteFilter):
    def __init__(self, active: ActiveToxic, stream: ByteStream, latency: Latency) -> None:
        super().__init__(active, stream)
        self._latency = latency

    def before(self, data: bytes) -> Sequence[Gate]:
        if not data:
            return ()
        delay_ms = self._latency.delay_ms(self.active.draw(False))
        return () if delay_ms is None else (self.stream.gate(self.active, delay_ms),)
