"""The last whole window of readings: what a steady-state probe of your own reads.

How to write one: docs/extending/probe.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from monkeyproof.injection.inject import Context, current
from monkeyproof.probes.follower import Follower, events_of
from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.record.history import Kind
from monkeyproof.record.readings import Readings, SignalState

__all__ = ["ReadingsWindow", "last_window"]

POLL_S = 0.02
GRACE_S = 5.0
"""How much longer than its window ``last_window`` waits for readings that do not come."""


@dataclass(frozen=True, slots=True)
class ReadingsWindow:
    """The readings that were due in ``[begin_s, end_s)``, in seconds since the trial began."""

    readings: Readings
    """Columns of equal length n, one row for each reading that was written; see monkeyproof.record.readings."""
    begin_s: float
    end_s: float
    due_count: int
    """How many readings were due. More than n: the prober wrote fewer (it hangs, or has ended)."""

    @property
    def good_share(self) -> float:
        """Share of the due readings that were available, fast and correct; 0.0 where none was due."""
        return float((self.readings.good == SignalState.GOOD).sum()) / self.due_count if self.due_count else 0.0

    @property
    def unknown_share(self) -> float:
        """Share of the due readings that say nothing: never sent, or not written. 1.0 where none was due."""
        known = float((self.readings.good != SignalState.UNKNOWN).sum())
        return 1.0 - known / self.due_count if self.due_count else 1.0

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """Latency of each due reading, in ms from its scheduled time, shape (due_count,).

        A reading without an answer in time is infinitely late: a refused connection fails within a ms, and
        must not pass for a fast answer. So is one that is unknown.
        """
        found = np.full(self.due_count, np.inf)
        answered = self.readings.available == SignalState.GOOD
        found[: len(self.readings)] = np.where(answered, self.readings.latency_ms, np.inf)
        return found


def last_window(window_s: float = 0.0) -> ReadingsWindow:
    """Wait until a whole window of readings is written, and return it.

    The window is the last one before the call, of a trial that is open in this process. It reaches back neither
    before the target was as declared, loaded and probed, nor before the last revert of a fault; where less than a
    window has passed since then, it ends after the call. ``window_s`` 0: the target file's ``windows.baseline_s``.
    After ``GRACE_S`` more it returns what there is: compare ``due_count`` or ``unknown_share``.

    Raises:
        Refusal: no trial is open.
    """
    context = current()
    file = context.target.file
    window_s = window_s or file.windows.baseline_s
    now_s = context.history.now_s()
    begin_s = max(_earliest_s(context, now_s), now_s - window_s)
    give_up_s = begin_s + window_s + file.prober.timeout_ms / 1000 + GRACE_S
    with Follower(context.folder) as follower:
        while True:
            late = context.history.now_s() >= give_up_s
            schedule = follower.poll()
            if schedule is not None:
                first, count = schedule.first_at(begin_s), schedule.count_in(window_s)
                whole = first + count <= len(schedule) and bool(schedule.has_row[first : first + count].all())
                if whole or late:
                    return _window(follower.readings, schedule, first, begin_s, window_s)
            elif late:
                due_count = math.ceil(window_s * file.prober.rate_per_s - 1e-6)
                return ReadingsWindow(Readings.of(()), begin_s, begin_s + window_s, due_count)
            context.clock.sleep_s(POLL_S)


def _window(
    readings: Readings, schedule: ProbeSchedule, first: int, begin_s: float, window_s: float
) -> ReadingsWindow:
    count = schedule.count_in(window_s)
    place = readings.slot - readings.slot[0]
    inside = (place >= first) & (place < first + count)
    rows = Readings(**{column.name: getattr(readings, column.name)[inside] for column in fields(Readings)})
    return ReadingsWindow(rows, begin_s, begin_s + window_s, count)


def _earliest_s(context: Context, now_s: float) -> float:
    """Readings from before this moment say nothing of the steady state."""
    reverted_s = [event.t_s for event in events_of(context.folder) if event.kind is Kind.FAULT_REVERTED]
    return max([now_s if context.watched_from_s is None else context.watched_from_s, *reverted_s])
