"""What the users saw of a fault, computed from readings and events alone. Pure functions: no clock, no files.

How an instant is bracketed by readings, and why, stands in monkeyproof.probes.recovery.intervals.

What is decided (which window, before or after the revert) is decided on the schedule, on which the prober's
rate is constant whatever the answers do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from monkeyproof.config.target_file import Slo
from monkeyproof.probes.recovery.fault_times import FaultTimes, fault_times
from monkeyproof.probes.recovery.intervals import impact_index, impact_interval, recovered_interval, sent_or_due_s
from monkeyproof.probes.recovery.windows import (
    UNKNOWN_SHARE_MAX,
    ProbeSchedule,
    first_sustained,
    lasting_by,
    meets,
)
from monkeyproof.record.history import Event, Kind
from monkeyproof.record.readings import Readings, SignalState
from monkeyproof.types import Outcome, Recovery

LOSS_BIN_S = 0.1


def measure(readings: Readings, events: Sequence[Event], slo: Slo) -> Recovery:
    """What the users saw in one trial. See the design, "Recovery, precisely", and monkeyproof.types.Recovery."""
    events = sorted(events, key=lambda event: event.t_s)
    times = fault_times(events)
    if times is None:
        return Recovery(Outcome.INVALID, _why_nothing_was_injected(events))
    readings = before(readings, times.put_back_s)
    slots = ProbeSchedule.of(readings)
    if slots is None:
        return Recovery(
            Outcome.INVALID,
            f"could not tell: {len(readings)} readings are too few to see anything",
            t0_s=times.t0_s,
            effective_s=times.effective_s,
            reverted_s=times.reverted_s,
        )
    seen = what_was_seen(slots, times, slo)
    why_invalid = why_proof_fails(events, times) or why_cannot_tell(slots, times, slo)
    if why_invalid:
        return replace(seen, outcome=Outcome.INVALID, reason=why_invalid)
    judged = _judge(seen, slots, events, times, slo)
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


def before(readings: Readings, end_s: float | None) -> Readings:
    """What was due before ``end_s``. A good answer that came later may be good only because of what began then."""
    if end_s is None:
        return readings
    keep = (readings.scheduled_s < end_s) & ~((readings.good == SignalState.GOOD) & (readings.finished_s > end_s))
    return Readings(**{column.name: getattr(readings, column.name)[keep] for column in fields(Readings)})


def what_was_seen(slots: ProbeSchedule, times: FaultTimes, slo: Slo) -> Recovery:
    """Counts and sums, which need no judgement. The outcome is filled in later."""
    play = slots.in_play(times.t0_s)
    impact = impact_index(slots, times.t0_s)
    wrong = np.flatnonzero(play & (slots.correct == SignalState.BAD))
    lateness_ms = (slots.sent_s - slots.scheduled_s)[~np.isnan(slots.sent_s)] * 1000.0
    return Recovery(
        Outcome.INVALID,
        "",
        t0_s=times.t0_s,
        effective_s=times.effective_s,
        reverted_s=times.reverted_s,
        end_s=float(slots.scheduled_s[-1]),
        impact_s=None if impact is None else max(times.t0_s, float(slots.scheduled_s[impact])),
        impact_seen_s=None if impact is None else float(slots.finished_s[impact]),
        # Dated to when it was due, as impact is: the silent time that it begins is never flattered.
        first_wrong_s=max(0.0, float(slots.scheduled_s[wrong[0]]) - times.t0_s) if len(wrong) else None,
        readings_count=int(play.sum()),
        bad_count=int((play & slots.is_bad).sum()),
        wrong_count=len(wrong),
        degraded_count=int((play & (slots.degraded == 1)).sum()),
        unknown_count=int((play & slots.is_unknown).sum()),
        resilience_loss_s=_resilience_loss_s(slots, play, slo),
        lateness_p99_ms=float(np.percentile(lateness_ms, 99)) if len(lateness_ms) else 0.0,
    )


def _resilience_loss_s(slots: ProbeSchedule, play: NDArray[np.bool_], slo: Slo) -> float:
    good = slots.is_good[play].astype(np.float64)
    width = max(1, round(LOSS_BIN_S / slots.period_s))
    shortfalls = [
        max(0.0, slo.objective - float(part.mean())) * len(part) * slots.period_s
        for part in (good[begin : begin + width] for begin in range(0, len(good), width))
    ]
    return float(sum(shortfalls))


def why_proof_fails(events: Sequence[Event], times: FaultTimes) -> str:
    """Why the trial proves nothing: an observer died, no baseline, a fault not proven. Empty if it does."""
    lost = next((event for event in events if event.kind is Kind.LEASE_RAN_OUT), None)
    if lost is not None:
        return f"the lease ran out, so the fault was not there all the while: {lost.data.get('why', lost.subject)}"
    taken = next((event for event in events if event.kind is Kind.FAULT_TAKEN_AWAY), None)
    if taken is not None:
        why = taken.data.get("why", taken.subject)
        return f"the fault was gone before it was taken back, so it was not there all the while: {why}"
    died = next((event for event in events if event.kind is Kind.OBSERVER_DIED), None)
    if died is not None:
        return f"could not tell: the {died.subject} died ({died.data.get('why', '')})"
    missed = [e for e in events if e.kind is Kind.BASELINE_MISSED and e.t_s <= times.t0_s]
    if missed:
        return f"the baseline was not met: {missed[0].data.get('why', 'the service was not steady')}"
    if not any(event.kind is Kind.BASELINE_MET and event.t_s <= times.t0_s for event in events):
        return "no baseline was seen before the fault, so there is nothing to come back to"
    # What nobody claims to prove is no failed proof; `measure` says so of the outcome.
    claims_none = (Kind.FAULT_EFFECTIVE, Kind.FAULT_INJECTED)
    proven = {event.data.get("id") for event in events if event.kind in claims_none}
    why = {e.data.get("id"): e.data.get("why", "") for e in events if e.kind is Kind.FAULT_UNPROVEN}
    unproven = [
        f"{event.data.get('fault', 'a fault')} on {event.subject}"
        + (f" ({why[event.data.get('id')]})" if why.get(event.data.get("id")) else "")
        for event in events
        if event.kind is Kind.FAULT_INTENDED and event.data.get("id") not in proven
    ]
    unproven += [
        f"{event.subject} ({event.data.get('why', '')})"
        for event in events
        if event.kind is Kind.FAULT_UNPROVEN and not event.data.get("id")
    ]
    return f"not proven to have taken effect: {'; '.join(unproven)}" if unproven else ""


def why_cannot_tell(slots: ProbeSchedule, times: FaultTimes, slo: Slo) -> str:
    """Why the readings do not show what the users saw. Empty if they do."""
    play = slots.in_play(times.t0_s)
    if not play.any():
        return "could not tell: no reading was due after the fault"
    unknown = float((play & slots.is_unknown).sum()) / float(play.sum())
    if unknown > UNKNOWN_SHARE_MAX:
        return f"could not tell: {unknown:.0%} of the readings after the fault are unknown"
    told_s = slots.scheduled_s[play & ~slots.is_unknown]
    marks_s = np.concatenate([[times.t0_s], told_s, [max(times.watched_until_s, float(slots.scheduled_s[-1]))]])
    gap_s = float(np.diff(np.maximum.accumulate(marks_s)).max())
    # One period between two readings is no gap, also where the rate is low.
    if gap_s > slo.stable_for_s + slots.period_s:
        return f"could not tell: {gap_s:.1f} s without any reading that says something"
    if times.effective_s is not None and slots.scheduled_s[-1] < times.effective_s:
        return "could not tell: the readings end before the fault was in effect"
    return ""


def _judge(seen: Recovery, slots: ProbeSchedule, events: Sequence[Event], times: FaultTimes, slo: Slo) -> Recovery:
    t0_s = times.t0_s
    end_s = float(slots.scheduled_s[-1])
    aborted = next((e for e in events if e.kind is Kind.TRIAL_ABORTED and e.t_s >= t0_s), None)
    detected_s = next((e.t_s for e in events if e.kind is Kind.HEALER_DETECTED and e.t_s >= t0_s), None)
    seen = replace(seen, ttd_s=None if detected_s is None else detected_s - t0_s)
    impact = impact_index(slots, t0_s)
    if impact is None:
        return absorbed(seen, aborted, end_s, times, slo)

    begins_s = times.revert_begins_s
    demanded = times.under_fault(slo)
    start = lasting_by(slots, demanded, impact, math.inf if begins_s is None else begins_s)
    under_fault = start is not None
    if start is None and begins_s is not None:
        start = lasting_by(slots, slo, impact, math.inf)
    first = first_sustained(slots, slo, impact)
    recovered = None if start is None else recovered_interval(slots, slo, start, t0_s)
    seen = replace(
        seen,
        recovered=recovered,
        proven_s=None
        if start is None
        else float(slots.scheduled_s[start]) + (demanded if under_fault else slo).stable_for_s,
        silent_s=_silent_s(seen, detected_s, end_s if recovered is None else recovered.high_s),
        relapses=0 if first is None else _relapses(slots, slo, first),
    )
    between = impact_interval(slots, impact, t0_s, events).since(t0_s)
    story = f"went bad between {between.low_s:.2f} and {between.high_s:.2f} s after the fault began"
    again = f"; it went bad again {_times(seen.relapses)}" if seen.relapses else ""
    if recovered is not None:
        since = recovered.since(t0_s)
        story += f", good again between {since.low_s:.2f} and {since.high_s:.2f} s"
        if under_fault:
            # Where only some answers are bad, the last bad one often lies just before the remedy that ended them.
            # Who acted while the recovery was still proving itself has a part in it.
            done = remedies(events, t0_s, seen.proven_s or recovered.high_s)
            outcome = Outcome.HEALED if done else Outcome.SELF_RECOVERED
            how = f"after the healer's {done[0]}" if done else "no healer acted before"
            return replace(seen, outcome=outcome, reason=f"{story}, {how}{again}", ttr=since)

    # Known not to have recovered: up to the last bad reading before it got better, or all the way.
    last_bad_s = recovered.low_s if recovered else sent_or_due_s(slots, int(np.flatnonzero(slots.is_bad)[-1]))
    limit_s = end_s if begins_s is None else begins_s
    seen = replace(seen, censored_at_s=max(0.0, min(limit_s, last_bad_s) - t0_s))
    why = f" (aborted: {aborted.data.get('why', 'no reason given')})" if aborted else ""
    if recovered is not None and begins_s is not None:
        ended = "began to end by itself" if times.by_itself else "was taken back"
        how = (
            f"but only after the fault {ended}"
            if recovered.low_s >= begins_s or slots.scheduled_s[start or 0] >= begins_s
            else f"but not for a whole window before the fault {ended}"
        )
        return replace(seen, outcome=Outcome.FAULT_REMOVED, reason=f"{story}, {how}{again}{why}")
    reason = f"{story}, and never again good for {slo.stable_for_s:g} s until watching ended{why}"
    return replace(seen, outcome=Outcome.NOT_RECOVERED, reason=reason)


def absorbed(seen: Recovery, aborted: Event | None, end_s: float, times: FaultTimes, slo: Slo) -> Recovery:
    """Nothing bad was seen. That counts only if somebody looked, for long enough."""
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


def remedies(events: Sequence[Event], t0_s: float, before_s: float) -> tuple[str, ...]:
    """What healers began after t0 and before ``before_s``, and then reported as done, in order."""
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
    """From the first wrong answer until somebody noticed, else until it was over."""
    if seen.first_wrong_s is None or seen.t0_s is None:
        return None
    noticed_s = until_s if detected_s is None else min(until_s, detected_s)
    return max(0.0, noticed_s - seen.t0_s - seen.first_wrong_s)


def _relapses(slots: ProbeSchedule, slo: Slo, start: int) -> int:
    """How often, after the window at ``start``, a whole window fell below the objective again."""
    steady, count = True, 0
    passed = meets(slots, slo.stable_for_s, slo.objective)
    for index in range(start, len(slots) - slots.count_in(slo.stable_for_s) + 1):
        if steady and not passed[index]:
            steady, count = False, count + 1
        elif not steady and passed[index] and slots.is_good[index]:
            steady = True
    return count


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
