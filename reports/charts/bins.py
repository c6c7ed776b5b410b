"""Readings, summed up in equal steps of time: a timeline's size must not grow with the prober's rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monkeyproof.record.readings import Readings, SignalState

WIDTHS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
LIMIT = 200
"""Bins of one timeline. A screen could not show more."""
PAGE_LIMIT = 5600
"""Bins of all timelines of a page, at about 300 bytes each: it has to stay under 2 MB."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """Arrays of shape (n,), one element a bin; bin i is ``[starts_s[i], starts_s[i] + width_s)``."""

    width_s: float
    starts_s: NDArray[np.float64]
    good: Counts
    bad: Counts
    unknown: Counts
    wrong: Counts
    late: Counts
    """Answered, but not within the latency objective."""
    unanswered: Counts
    degraded: Counts
    p50_ms: NDArray[np.float64]
    max_ms: NDArray[np.float64]
    """NaN where nothing was sent."""
    versions: tuple[tuple[str, ...], ...]
    """The model versions that answered in each bin, sorted."""

    def __len__(self) -> int:
        return len(self.starts_s)

    @property
    def known(self) -> Counts:
        return self.good + self.bad


def limit_for(trials_count: int) -> int:
    """How many bins each timeline of a page may have; never too few to see a trial's course."""
    return min(LIMIT, max(40, PAGE_LIMIT // max(1, trials_count)))


def bin_readings(readings: Readings, origin_s: float, limit: int = LIMIT) -> Bins | None:
    """Sum up readings by their *scheduled* time. An edge falls on ``origin_s``. None: no readings.

    Bins between readings exist too, with nothing in them: a gap must be seen.
    """
    if not len(readings):
        return None
    since_s = readings.scheduled_s - origin_s
    span_s = float(since_s.max() - since_s.min())
    width_s = next((width for width in WIDTHS_S if span_s / width < limit), span_s / limit)
    places = np.floor(since_s / width_s).astype(np.int64)
    first = int(places.min())
    places -= first
    bins_count = int(places.max()) + 1

    def count(mask: NDArray[np.bool_]) -> Counts:
        return np.bincount(places[mask], minlength=bins_count)

    good = readings.good
    answered = readings.available == SignalState.GOOD
    p50_ms, max_ms = _latency(readings, places, bins_count)
    return Bins(
        width_s=width_s,
        starts_s=np.arange(first, first + bins_count, dtype=np.float64) * width_s + origin_s,
        good=count(good == SignalState.GOOD),
        bad=count(good == SignalState.BAD),
        unknown=count(good == SignalState.UNKNOWN),
        wrong=count(readings.correct == SignalState.BAD),
        late=count(answered & (readings.fast == SignalState.BAD)),
        unanswered=count(readings.available == SignalState.BAD),
        degraded=count(readings.degraded == 1),
        p50_ms=p50_ms,
        max_ms=max_ms,
        versions=_versions(readings, places, bins_count),
    )


def _latency(
    readings: Readings, places: Counts, bins_count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p50_ms, max_ms = np.full(bins_count, np.nan), np.full(bins_count, np.nan)
    latency_ms = readings.latency_ms
    for place in np.unique(places[np.isfinite(latency_ms)]):
        of_bin = latency_ms[(places == place) & np.isfinite(latency_ms)]
        p50_ms[place], max_ms[place] = np.median(of_bin), of_bin.max()
    return p50_ms, max_ms


def _versions(readings: Readings, places: Counts, bins_count: int) -> tuple[tuple[str, ...], ...]:
    found: list[set[str]] = [set() for _ in range(bins_count)]
    for place, version in zip(places.tolist(), readings.model_version.tolist(), strict=True):
        if version:
            found[place].add(version)
    return tuple(tuple(sorted(versions)) for versions in found)
