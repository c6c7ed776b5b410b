"""Reference statistics of clean batches of features, and how far a batch strays from them.

Two statistics, because each misses what the other finds: a robust z-score for every feature, and the share of
values outside the reference range. A batch is scored by how far its values lie from the reference median, on
average, in robust spreads and capped, so that one glitch cannot decide alone. Shifts, scaling and constants
all raise or lower that average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monkeyproof.targets.local.models.data import Floats

# Of 100,000 clean batches of 150 rows the worst had |z| 5.0 and 0.7 % out of range; of 20,000 with a tenth of
# their values scaled by U(-10, 10) the mildest had |z| 5.9 and 3.6 % out of range.
MAX_ROBUST_Z = 9.0
MAX_OUT_OF_RANGE_SHARE = 0.02
DEVIATION_CAP = 10.0
"""In robust spreads: beyond this, further away counts no more."""
RANGE_QUANTILE = 0.005
RANGE_MARGIN = 0.1
"""The reference range is widened on each side by this share of its width."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceStatistics:
    """Statistics of a clean population, one number a feature."""

    median: Floats
    spread: Floats
    low: Floats
    high: Floats
    deviation: Floats
    """Average capped deviation of the population."""
    deviation_spread: Floats
    """Standard deviation of one row's capped deviation."""

    @classmethod
    def of(cls, values: Floats) -> ReferenceStatistics:
        """Learn from clean rows."""
        median = np.median(values, axis=0)
        # Some sensors read zero most of the time: their quartiles coincide, so the spread is taken further out.
        low_tail, high_tail = np.quantile(values, [0.05, 0.95], axis=0)
        spread = np.maximum((high_tail - low_tail) / 3.29, 0.5)
        low, high = np.quantile(values, [RANGE_QUANTILE, 1 - RANGE_QUANTILE], axis=0)
        margin = RANGE_MARGIN * (high - low)
        deviations = _deviations(values, median, spread)
        return cls(
            median,
            spread,
            low - margin,
            high + margin,
            deviations.mean(axis=0),
            np.maximum(deviations.std(axis=0), 0.1),
        )

    def robust_z(self, values: Floats) -> Floats:
        """For each feature, how unusual the batch's average deviation is, in standard deviations; signed."""
        excess = _deviations(values, self.median, self.spread).mean(axis=0) - self.deviation
        return np.asarray(excess / (self.deviation_spread / np.sqrt(len(values))), dtype=np.float64)

    def out_of_range_share(self, values: Floats) -> float:
        """Share of single values outside the reference range."""
        return float(((values < self.low) | (values > self.high)).mean())

    def why_unlike(self, values: Floats) -> str:
        """Why a batch of shape (n, features) is unlike the reference; "" if it is not."""
        z = self.robust_z(values)
        worst = int(np.abs(z).argmax())
        if abs(z[worst]) > MAX_ROBUST_Z:
            return f"robust z of feature {worst + 1} is {z[worst]:.1f}, the limit is {MAX_ROBUST_Z:g}"
        if (share := self.out_of_range_share(values)) > MAX_OUT_OF_RANGE_SHARE:
            return f"{share:.1%} of values are out of range, the limit is {MAX_OUT_OF_RANGE_SHARE:.1%}"
        return ""


def _deviations(values: Floats, median: Floats, spread: Floats) -> Floats:
    return np.asarray(np.minimum(np.abs(values - median) / spread, DEVIATION_CAP), dtype=np.float64)
