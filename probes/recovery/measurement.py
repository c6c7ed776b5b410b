"""What the users saw of a fault, computed from readings and events alone. Pure functions: no clock, no files.

How readings bracket an instant, and why, is in monkeyproof.probes.recovery.intervals. Why a trial proves nothing
is in monkeyproof.probes.recovery.proof. Which window counts, before or after the revert, is decided on the
schedule, on which the prober's rate is constant whatever the answers do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from monkeyproof.config.target_file import Slo
from monkeyproof.probes.recovery.fault_times import FaultTimes, fault_times
from monkeyproof.probes.recovery.intervals import impact_index, impact_interval, recovered_interval, sent_or_due_s
from monkeyproof.probes.recovery.proof import why_cannot_tell, why_proof_fails
from monkeyproof.probes.recovery.windows import (
    ProbeSchedule,
    first_sustained,
    lasting_by,
    meets,
)
from monkeyproof.record.history import Event, Kind
from monkeyproof.record.readings import Readings, SignalState
from monkeyproof.types import Interval, Outcome, Recovery

LOSS_BIN_S = 0.1


def measure(readings: Readings, events: Sequence[Event], slo: Slo) -> Recovery:
    """What the users saw in one trial. See the design, "Recovery, precisely", and monkeyproof.types.Recovery."""
    events = sorted(events, key=lambda event: event.t_s)
    times = fault_times(events)
    if times is None:
        return Recovery(Outcome.INVALID, _why_nothing_was_injected(events))
    readings = readings_before(readings, times.reset_begins_s)
    schedule = ProbeSchedule.of(readings)
    if schedule is None:
        return Recovery(
            Outcome.INVALID,
            f"could not tell: {len(readings)} readings are too few to see anything",
            t0_s=times.t0_s,
            effective_s=times.effective_s,
            reverted_s=times.reverted_s,
        )
    seen = summarise_readings(schedule, times, slo)
    why_invalid = why_proof_fails(events, times) or why_cannot_tell(schedule, times, slo)
    if why_invalid:
        return replace(seen, outcome=Outcome.INVALID, reason=why_invalid)
    judged = _judge(seen, schedule, events, times, slo)
    unnamed = [event for event in events if event.kind is Kind.FAULT_INJECTED]
    if judged.outcome is Outcome.INVALID or not unnamed:
        return judged
    return replace(
        judged,
        outcome=Outcome.UNPROVEN,
        reason=f"looks {judged.outcome.replace('_', ' ')}: {judged.reason}; but nothing is named as evidence that "
        f"{unnamed[0].data.get('fault', 'the fault')} took effect",
    )


def _why_nothing_was_injected(events: Sequence[Event]) -> str:
    missed = next((event for event in events if event.kind is Kind.BASELINE_MISSED), None)
    if missed is None:
        return "no fault was injected"
    return f"no fault was injected, for the baseline was not met: {missed.data.get('why', 'it was not steady')}"


def readings_before(readings: Readings, end_s: float | None) -> Readings:
    """The readings that were due before ``end_s``, without good answers that came later.

    Such an answer may be good only because of what began at ``end_s``.
    """
    if end_s is None:
        return readings
    keep = (readings.scheduled_s < end_s) & ~((readings.good == SignalState.GOOD) & (readings.finished_s > end_s))
    return Readings(**{column.name: getattr(readings, column.name)[keep] for column in fields(Readings)})


def summarise_readings(schedule: ProbeSchedule, times: FaultTimes, slo: Slo) -> Recovery:
    """Counts and sums over the readings. The outcome is filled in later."""
    play = schedule.in_play(times.t0_s)
    impact = impact_index(schedule, times.t0_s)
    wrong = np.flatnonzero(play & (schedule.correct == SignalState.BAD))
    lateness_ms = (schedule.sent_s - schedule.scheduled_s)[~np.isnan(schedule.sent_s)] * 1000.0
    return Recovery(
        Outcome.INVALID,
        "",
        t0_s=times.t0_s,
        effective_s=times.effective_s,
        reverted_s=times.reverted_s,
        end_s=float(schedule.scheduled_s[-1]),
        impact_s=None if impact is None else max(times.t0_s, float(schedule.scheduled_s[impact])),
        impact_seen_s=None if impact is None else float(schedule.finished_s[impact]),
        # Dated to when it was due, as the impact is: the silent time that it begins is never understated.
        first_wrong_s=max(0.0, float(schedule.scheduled_s[wrong[0]]) - times.t0_s) if len(wrong) else None,
        readings_count=int(play.sum()),
        bad_count=int((play & schedule.is_bad).sum()),
        wrong_count=len(wrong),
        degraded_count=int((play & (schedule.degraded == 1)).sum()),
        unknown_count=int((play & schedule.is_unknown).sum()),
        resilience_loss_s=_resilience_loss_s(schedule, play, slo),
        lateness_p99_ms=float(np.percentile(lateness_ms, 99)) if len(lateness_ms) else 0.0,
    )


def _resilience_loss_s(schedule: ProbeSchedule, play: NDArray[np.bool_], slo: Slo) -> float:
    good = schedule.is_good[play].astype(np.float64)
    width = max(1, round(LOSS_BIN_S / schedule.period_s))
    shortfalls = [
        max(0.0, slo.objective - float(part.mean())) * len(part) * schedule.period_s
        for part in (good[begin : begin + width] for begin in range(0, len(good), width))
    ]
    return float(sum(shortfalls))


def _judge(
    counts: Recovery, schedule: ProbeSchedule, events: Sequence[Event], times: FaultTimes, slo: Slo
) -> Recovery:
    """Decide the outcome of a trial that proves its fault and whose readings can tell."""
    t0_s = times.t0_s
    end_s = float(schedule.scheduled_s[-1])
    aborted = next((e for e in events if e.kind is Kind.TRIAL_ABORTED and e.t_s >= t0_s), None)
    detected_s = next((e.t_s for e in events if e.kind is Kind.HEALER_DETECTED and e.t_s >= t0_s), None)
    found = replace(counts, ttd_s=None if detected_s is None else detected_s - t0_s)
    impact = impact_index(schedule, t0_s)
    if impact is None:
        return absorbed(found, aborted, end_s, times, slo)
    window = _recovered_window(schedule, impact, times, slo)
    recovered = None if window is None else recovered_interval(schedule, slo, window.start, t0_s)
    first = first_sustained(schedule, slo, impact)
    found = replace(
        found,
        recovered=recovered,
        proven_s=None if window is None else window.proven_s,
        silent_s=_silent_s(found, detected_s, end_s if recovered is None else recovered.high_s),
        relapses=0 if first is None else _relapses(schedule, slo, first),
    )
    text = _impact_text(impact_interval(schedule, impact, t0_s, events).since(t0_s))
    if window is not None and recovered is not None and window.under_fault:
        return _recovered_under_fault(found, recovered, events, t0_s, text)
    return _censored(found, schedule, window, times, aborted, slo, text)


@dataclass(frozen=True, slots=True)
class _RecoveredWindow:
    """The window that shows the recovery."""

    start: int
    """Index of its first slot."""
    begins_s: float
    under_fault: bool
    """Whether it was over before the revert, or the fault's own end, began."""
    proven_s: float
    """When the window was over."""


def _recovered_window(
    schedule: ProbeSchedule, impact: int, times: FaultTimes, slo: Slo
) -> _RecoveredWindow | None:
    """The first lasting window after the impact, under the fault if there is one, else after it."""
    begins_s = times.revert_begins_s
    demanded, under_fault = times.under_fault(slo), True
    start = lasting_by(schedule, demanded, impact, math.inf if begins_s is None else begins_s)
    if start is None and begins_s is not None:
        demanded, under_fault = slo, False
        start = lasting_by(schedule, slo, impact, math.inf)
    if start is None:
        return None
    window_begins_s = float(schedule.scheduled_s[start])
    return _RecoveredWindow(start, window_begins_s, under_fault, window_begins_s + demanded.stable_for_s)


def _recovered_under_fault(
    found: Recovery, recovered: Interval, events: Sequence[Event], t0_s: float, text: str
) -> Recovery:
    """``healed`` or ``self_recovered``.

    Where only some answers are bad, the last bad one often lies just before the remedy that ended them. So a
    healer that acted while the recovery was still proving itself has a part in it.
    """
    done = remedies_done(events, t0_s, found.proven_s or recovered.high_s)
    outcome = Outcome.HEALED if done else Outcome.SELF_RECOVERED
    how = f"after the healer's {done[0]}" if done else "no healer acted before"
    since = recovered.since(t0_s)
    reason = f"{text}{_recovered_text(since)}, {how}{_relapse_text(found.relapses)}"
    return replace(found, outcome=outcome, reason=reason, ttr=since)


def _censored(
    found: Recovery,
    schedule: ProbeSchedule,
    window: _RecoveredWindow | None,
    times: FaultTimes,
    aborted: Event | None,
    slo: Slo,
    text: str,
) -> Recovery:
    """``fault_removed`` or ``not_recovered``: known to be bad up to the last bad reading before it got better."""
    t0_s, begins_s, recovered = times.t0_s, times.revert_begins_s, found.recovered
    last_bad_s = (
        recovered.low_s if recovered else sent_or_due_s(schedule, int(np.flatnonzero(schedule.is_bad)[-1]))
    )
    limit_s = float(schedule.scheduled_s[-1]) if begins_s is None else begins_s
    found = replace(found, censored_at_s=max(0.0, min(limit_s, last_bad_s) - t0_s))
    why = f" (aborted: {aborted.data.get('why', 'no reason given')})" if aborted else ""
    if recovered is None or window is None or begins_s is None:
        reason = f"{text}, and never again good for {slo.stable_for_s:g} s until watching ended{why}"
        return replace(found, outcome=Outcome.NOT_RECOVERED, reason=reason)
    ended = "began to end by itself" if times.ends_by_itself else "was reverted"
    how = (
        f"but only after the fault {ended}"
        if recovered.low_s >= begins_s or window.begins_s >= begins_s
        else f"but not for a whole window before the fault {ended}"
    )
    text = f"{text}{_recovered_text(recovered.since(t0_s))}, {how}{_relapse_text(found.relapses)}"
    return replace(found, outcome=Outcome.FAULT_REMOVED, reason=f"{text}{why}")


def _impact_text(since_t0: Interval) -> str:
    return f"went bad between {since_t0.low_s:.2f} and {since_t0.high_s:.2f} s after the fault began"


def _recovered_text(since_t0: Interval) -> str:
    return f", good again between {since_t0.low_s:.2f} and {since_t0.high_s:.2f} s"


def _relapse_text(count: int) -> str:
    return f"; it went bad again {'once' if count == 1 else f'{count} times'}" if count else ""


def absorbed(seen: Recovery, aborted: Event | None, end_s: float, times: FaultTimes, slo: Slo) -> Recovery:
    """The outcome of a trial without a bad reading: it counts only if it was watched for long enough."""
    watched_s = end_s - (times.effective_s or times.t0_s)
    if aborted is not None:
        why = aborted.data.get("why", "no reason given")
        return replace(seen, reason=f"could not tell: nothing bad was seen until the trial was aborted: {why}")
    if watched_s < slo.stable_for_s:
        why = f"nothing bad was seen, but readings end {watched_s:.1f} s after the fault's proof"
        return replace(seen, reason=f"could not tell: {why}")
    unknown = f" ({seen.unknown_count} unknown)" if seen.unknown_count else ""
    return replace(
        seen,
        outcome=Outcome.ABSORBED,
        reason=f"none of {seen.readings_count} readings after the fault was bad{unknown}",
    )


def remedies_done(events: Sequence[Event], t0_s: float, before_s: float) -> tuple[str, ...]:
    """Names of the remedies that healers began after t0 and before ``before_s`` and reported as done, in order."""
    found: dict[str, None] = {}
    for acting in events:
        if acting.kind is not Kind.HEALER_ACTING or not t0_s <= acting.t_s < before_s:
            continue
        key = (acting.source, acting.data.get("remedy"))
        acted = next(
            (
                event
                for event in events
                if event.kind is Kind.HEALER_ACTED
                and event.t_s >= acting.t_s
                and (event.source, event.data.get("remedy")) == key
            ),
            None,
        )
        if acted is not None and acted.data.get("ok") is True:
            found[str(acting.data.get("remedy") or acting.data.get("summary") or "action")] = None
    return tuple(found)


def _silent_s(seen: Recovery, detected_s: float | None, until_s: float) -> float | None:
    """Seconds from the first wrong answer until a healer detected the fault, else until it was over."""
    if seen.first_wrong_s is None or seen.t0_s is None:
        return None
    noticed_s = until_s if detected_s is None else min(until_s, detected_s)
    return max(0.0, noticed_s - seen.t0_s - seen.first_wrong_s)


def _relapses(schedule: ProbeSchedule, slo: Slo, start: int) -> int:
    """How often, after the window at ``start``, a whole window fell below the objective again."""
    steady, count = True, 0
    passed = meets(schedule, slo.stable_for_s, slo.objective)
    for index in range(start, len(schedule) - schedule.count_in(slo.stable_for_s) + 1):
        if steady and not passed[index]:
            steady, count = False, count + 1
        elif not steady and passed[index] and schedule.is_good[index]:
            steady = True
    return count
