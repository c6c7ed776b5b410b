"""Readings as a schedule without holes, and the sustained windows in it.

The measurement, the steady state and the hold phase all judge readings through this file, so that what ends a hold
and what a report calls a recovery cannot differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monkeyproof.config.target_file import Slo
from monkeyproof.record.readings import Readings, SignalState

UNKNOWN_SHARE_MAX = 0.05
"""With a larger share of unknown readings, the rest cannot tell what the users saw."""


@dataclass(frozen=True)
class ProbeSchedule:
    """One entry for every slot of the schedule, shape (n,). A slot without a row is UNKNOWN, never skipped."""

    period_s: float
    has_row: NDArray[np.bool_]
    """False: the file has no row for the slot (yet)."""
    scheduled_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    finished_s: NDArray[np.float64]
    good: NDArray[np.int8]
    correct: NDArray[np.int8]
    degraded: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.scheduled_s)

    @classmethod
    def of(cls, readings: Readings) -> ProbeSchedule | None:
        """The schedule that the readings come from. None if there are too few (under two) to know it."""
        if len(readings) < 2 or readings.slot[0] == readings.slot[-1]:
            return None
        place = readings.slot - readings.slot[0]
        n = int(place[-1]) + 1
        period_s = float(readings.scheduled_s[-1] - readings.scheduled_s[0]) / (n - 1)
        scheduled_s = readings.scheduled_s[0] + period_s * np.arange(n)
        sent_s, finished_s = np.full(n, np.nan), np.full(n, np.nan)
        good, correct = np.full(n, SignalState.UNKNOWN, np.int8), np.full(n, SignalState.UNKNOWN, np.int8)
        has_row, degraded = np.zeros(n, np.bool_), np.zeros(n, np.int8)
        has_row[place] = True
        scheduled_s[place], sent_s[place], finished_s[place] = (
            readings.scheduled_s,
            readings.sent_s,
            readings.finished_s,
        )
        good[place], correct[place], degraded[place] = readings.good, readings.correct, readings.degraded
        return cls(period_s, has_row, scheduled_s, sent_s, finished_s, good, correct, degraded)

    @property
    def is_good(self) -> NDArray[np.bool_]:
        return np.equal(self.good, SignalState.GOOD)

    @property
    def is_bad(self) -> NDArray[np.bool_]:
        return np.equal(self.good, SignalState.BAD)

    @property
    def is_unknown(self) -> NDArray[np.bool_]:
        return np.equal(self.good, SignalState.UNKNOWN)

    def in_play(self, from_s: float) -> NDArray[np.bool_]:
        """Slots that an event at ``from_s`` can have affected: due since then, or in flight then."""
        return (self.scheduled_s >= from_s) | (self.finished_s > from_s)

    def count_in(self, window_s: float) -> int:
        """How many slots a window holds: enough to fill it wholly, and at least one."""
        return max(1, math.ceil(window_s / self.period_s - 1e-6))

    def first_at(self, at_s: float) -> int:
        """Index of the first slot that is due at ``at_s`` or later; n if there is none yet."""
        return int(np.searchsorted(self.scheduled_s, at_s - 1e-9))


def meets(schedule: ProbeSchedule, window_s: float, objective: float) -> NDArray[np.bool_]:
    """Whether the window that begins at each slot meets the objective, shape (n,).

    A window that is not wholly observed does not. Unknown readings count as not good.
    """
    n, width = len(schedule), schedule.count_in(window_s)
    passed = np.zeros(n, np.bool_)
    if width <= n:
        total = np.concatenate([[0], np.cumsum(schedule.is_good)])
        passed[: n - width + 1] = total[width:] - total[:-width] >= objective * width - 1e-9
    return passed


def first_sustained(schedule: ProbeSchedule, slo: Slo, from_index: int, window_s: float = 0.0) -> int | None:
    """The earliest good slot, ``from_index`` or later, from which a whole window meets the objective.

    ``window_s`` 0 is the SLO's own ``stable_for_s``.
    """
    starts = meets(schedule, window_s or slo.stable_for_s, slo.objective) & schedule.is_good
    found = np.flatnonzero(starts[from_index:])
    return from_index + int(found[0]) if len(found) else None


def sustained_by(schedule: ProbeSchedule, slo: Slo, from_index: int, by_s: float) -> int | None:
    """As ``first_sustained``, from what was known at ``by_s``: the window is over, and no later answer counts.

    An answer that was in flight when a fault was reverted may be good only because of that.
    """
    late = schedule.is_good & (schedule.finished_s > by_s)
    known = replace(schedule, good=np.where(late, SignalState.UNKNOWN, schedule.good).astype(np.int8))
    start = first_sustained(known, slo, from_index)
    return start if start is not None and schedule.scheduled_s[start] + slo.stable_for_s <= by_s + 1e-9 else None


def lasting_by(schedule: ProbeSchedule, slo: Slo, from_index: int, by_s: float) -> int | None:
    """As ``sustained_by``, but after the last relapse that was seen by then: a blip that heals is no recovery from
    the damage that follows it. None if it was bad again at ``by_s``.
    """
    width, end = schedule.count_in(slo.stable_for_s), schedule.first_at(by_s)
    bad = np.concatenate([[0], np.cumsum(schedule.is_bad)])
    windows = np.arange(end)
    tolerated = int((1.0 - slo.objective) * width + 1e-9)
    relapsed = bad[np.minimum(windows + width, end)] - bad[windows] > tolerated
    start = sustained_by(schedule, slo, from_index, by_s)
    while start is not None and relapsed[start:].any():
        start = sustained_by(schedule, slo, start + int(np.flatnonzero(relapsed[start:])[0]) + 1, by_s)
    return start


@dataclass(frozen=True, slots=True)
class WindowShare:
    """Shares of the readings of one window. Slots that have no row (yet), or never came, are unknown."""

    count: int = 0
    good: float = 0.0
    unknown: float = 1.0

    @classmethod
    def of(cls, schedule: ProbeSchedule, start: int, window_s: float) -> WindowShare:
        """Of the window that begins at slot ``start``."""
        count = schedule.count_in(window_s)
        window = slice(start, start + count)
        good, bad = int(schedule.is_good[window].sum()), int(schedule.is_bad[window].sum())
        return cls(count, good / count, 1.0 - (good + bad) / count)

    def steady(self, slo: Slo) -> bool:
        """Whether the objective is met, and few enough readings are unknown."""
        return self.good >= slo.objective - 1e-9 and self.unknown <= UNKNOWN_SHARE_MAX + 1e-9
