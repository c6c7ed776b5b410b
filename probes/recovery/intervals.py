"""Between which two instants the service went bad, and good again: as much as the readings prove.

A reading that was sent at ``s`` and answered at ``f`` tells how the service was at *some* moment of ``[s, f]``:

- a bad one tells that the service was bad at a moment not before ``s``. So the service recovered after the
  **send** of the last bad reading before the window. (Its end proves nothing: a probe that hangs until its
  time-out may hang alone, long after all other requests are answered again.)
- a good one tells that the service was good at a moment not after ``f``. So it had recovered by the earliest
  **answer** to a good reading of the window. (Its send proves nothing: a request that waited out the end of
  the outage is answered well, though it was sent into the outage.)
- a bad one *inside* the window is tolerated by the objective, and may still belong to the outage: the
  answer that counts is the earliest good one after it, so that a tolerance never flatters.
- an unknown one tells nothing: it moves neither bound, so it widens the interval, and never counts as good.
- a good one may also have been answered well **by luck**, where the outage was partial (one replica of three is
  down, three answers in ten are wrong). After the last bad reading such an outage may go on unseen for a few more
  good ones, so ``(last bad, first good]`` need not hold its end. The share of bad readings just before tells how
  many: the interval reaches on until an outage of that kind would have shown itself with probability 0.999
  (``_lucky_max``). A total outage yields no good answers, and its interval stays as narrow as before.

So a better reading never makes an outage end later by its outcome, its low end, its counts or its resilience loss;
but it may widen the interval, for where good answers fall into an outage, its end is less well known.

Impact is bracketed the same way round: ``[last good send, first bad observation]``. A reading that was in
flight at ``t0`` can have been hit by the fault, so it counts; its times are then dated to ``t0``.

Where the prober's connection monitor detected the service's end between the two, its proof is the first bad
observation. It moves the upper end only. A process is dead before its connections end, for the kernel frees its
memory first (measured: 1 ms for a small one, 13 ms for 100 MB, 50 ms for 600 MB), and a service that shuts down
may refuse new connections before it ends the old ones. How much earlier than their end it was bad, only a good
answer tells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monkeyproof.config.target_file import Slo
from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.record.history import Event, Kind
from monkeyproof.types import Interval

LUCK_MAX = 0.001
"""With what probability the end of a partial outage may lie beyond the reported interval."""


def impact_index(schedule: ProbeSchedule, from_s: float) -> int | None:
    """The first bad reading that was due after ``from_s``, or in flight then."""
    found = np.flatnonzero(schedule.in_play(from_s) & schedule.is_bad)
    return int(found[0]) if len(found) else None


def impact_interval(schedule: ProbeSchedule, impact: int, t0_s: float, events: Sequence[Event] = ()) -> Interval:
    """When it became bad: between the last good send and the first bad observation, and not before t0.

    Of the ``events`` those of kind ``service.gone`` count, after t0 and after every good answer before the
    impact: a service that ended and came back in between had another, shorter outage.
    """
    good = schedule.is_good[:impact]
    low_s = float(np.nanmax(schedule.sent_s[:impact][good], initial=t0_s))
    bad = schedule.is_bad[impact:]
    high_s = float(np.nanmin(schedule.finished_s[impact:][bad], initial=np.inf))
    answered_s = float(np.nanmax(schedule.finished_s[:impact][good], initial=t0_s))
    gone = [event for event in events if event.kind is Kind.SERVICE_GONE and event.t_s >= answered_s]
    high_s = min([high_s, *(event.t_s + event.data.get("proven_after_ms", 0.0) / 1000.0 for event in gone)])
    return Interval(max(t0_s, min(low_s, high_s)), high_s)


def recovered_interval(schedule: ProbeSchedule, slo: Slo, start: int, t0_s: float) -> Interval:
    """When it became good for the window that begins at slot ``start``: ``(last bad, first good]``, and wider
    where good answers fell inside the outage.

    The objective tolerates a few bad readings in the window. Readings cannot tell whether they are noise or the
    end of the outage, so the interval reaches from the window's start to the first good answer after them. It
    never reaches beyond the window, which proves that the service was good by then.
    """
    bad = np.flatnonzero(schedule.is_bad[:start])
    low_s = sent_or_due_s(schedule, int(bad[-1])) if len(bad) else t0_s
    window = np.arange(start, start + schedule.count_in(slo.stable_for_s))
    well = window[schedule.is_good[window]]
    tolerated = window[schedule.is_bad[window] & (window < well[-1])]
    if len(tolerated):
        well = well[well > tolerated[-1]]
    last_bad = int(tolerated[-1]) if len(tolerated) else int(bad[-1]) if len(bad) else 0
    lucky = _lucky_max(schedule, slo, impact_index(schedule, t0_s) or 0, last_bad, len(well) - 1)
    high_s = float(schedule.finished_s[well[lucky:]].min())
    return Interval(max(t0_s, min(low_s, high_s)), high_s)


def _lucky_max(schedule: ProbeSchedule, slo: Slo, impact: int, last_bad: int, at_most: int) -> int:
    """How many good readings after the last bad one may still belong to the outage, as far as the readings tell.

    Every reading of a partial outage is taken to be bad with one unknown probability. The ``bad`` gaps between the
    bad readings up to the last one held ``good`` good readings, so its posterior is Beta(bad, good) (Haldane's
    prior, which fits a count that ends with a bad reading), and the next gap holds ``m`` or more good ones with
    probability ``prod((good + i) / (bad + good + i) for i < m)``: the beta negative binomial distribution, see
    Johnson, Kemp and Kotz, Univariate Discrete Distributions, 3rd ed. (2005), section 6.2.2 (there as the inverse
    Polya or generalised Waring distribution).
    """
    begin = max(impact, last_bad - schedule.count_in(slo.stable_for_s))
    bad = int(schedule.is_bad[begin:last_bad].sum())
    if bad:
        begin += int(
            np.argmax(schedule.is_bad[begin:last_bad])
        )  # What came before it may be another, healthy time.
    good = int(schedule.is_good[begin:last_bad].sum())
    if not good:
        return 0
    lucky = np.arange(at_most + 1)
    exceeded = np.cumprod((good + lucky) / (bad + good + lucky))
    return int(np.searchsorted(-exceeded, -LUCK_MAX)) if exceeded[-1] <= LUCK_MAX else at_most


def sent_or_due_s(schedule: ProbeSchedule, index: int) -> float:
    """When a reading was sent; when it should have been, if it never was."""
    sent_s = float(schedule.sent_s[index])
    return float(schedule.scheduled_s[index]) if np.isnan(sent_s) else sent_s
