"""The toxic that holds requests or answers for a while, and the distributions that the while is drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from monkeyproof.faults.proxy.request_random import AMOUNT, OWN, check, chosen, uniform

DISTRIBUTIONS = ("uniform", "constant", "normal", "lognormal", "pareto")
DIRECTIONS = ("request", "response")
LONGEST_MS = 600_000.0
_STANDARD = NormalDist()
_SMALLEST = 2.0**-54
"""Stands in for a draw of exactly 0, at which the inverse of a distribution function is infinite."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Hold each request or answer once, for ``low_ms`` to ``high_ms``; on TCP links each chunk of that direction.

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
        check(0 <= self.low_ms <= self.high_ms, "latency", "needs 0 <= low_ms <= high_ms")
        check(self.high_ms <= LONGEST_MS, "latency", "high_ms is at most 600000")
        check(0 < self.share <= 1, "latency", "share is in (0, 1]")
        check(self.direction in DIRECTIONS, "latency", "direction is 'request' or 'response'")
        check(self.distribution in DISTRIBUTIONS, "latency", f"distribution is one of {', '.join(DISTRIBUTIONS)}")
        if self.distribution == "uniform":
            check(not self.mean_ms, "latency", "uniform lies between low_ms and high_ms, and takes no mean_ms")
        else:
            fits = self.mean_ms > 0 and self.low_ms <= self.mean_ms <= self.high_ms
            check(fits, "latency", f"{self.distribution} needs a mean_ms above 0 between low_ms and high_ms")
        if self.distribution in ("normal", "lognormal"):
            check(self.jitter_ms > 0, "latency", f"{self.distribution} needs a jitter_ms above 0")
        else:
            check(not self.jitter_ms, "latency", f"{self.distribution} takes no jitter_ms")
        check(self.tail > 1, "latency", "tail is above 1, or there is no mean")

    def delay_ms(self, n: int, *, own: bool = False) -> float | None:
        """The delay of request, answer or chunk ``n``; None if it is not chosen."""
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
