"""Why a trial proves nothing: its fault, its baseline or its observers failed, or its readings cannot tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monkeyproof.config.target_file import Slo
from monkeyproof.probes.recovery.fault_times import FaultTimes
from monkeyproof.probes.recovery.windows import UNKNOWN_SHARE_MAX, ProbeSchedule
from monkeyproof.record.history import Event, Kind


def why_proof_fails(events: Sequence[Event], times: FaultTimes) -> str:
    """Why the trial's events prove nothing; "" if they do prove their fault and its baseline."""
    return (
        _why_fault_ended_early(events)
        or _why_observer_died(events)
        or _why_no_baseline(events, times.t0_s)
        or _why_unproven(events)
    )


def _why_fault_ended_early(events: Sequence[Event]) -> str:
    lost = next((event for event in events if event.kind is Kind.LEASE_RAN_OUT), None)
    if lost is not None:
        return f"the lease ran out, so the fault was not there all the while: {lost.data.get('why', lost.subject)}"
    ended = next((event for event in events if event.kind is Kind.FAULT_ENDED_EARLY), None)
    if ended is not None:
        why = ended.data.get("why", ended.subject)
        return f"the fault had ended before it was reverted, so it was not there all the while: {why}"
    return ""


def _why_observer_died(events: Sequence[Event]) -> str:
    died = next((event for event in events if event.kind is Kind.OBSERVER_DIED), None)
    return "" if died is None else f"could not tell: the {died.subject} died ({died.data.get('why', '')})"


def _why_no_baseline(events: Sequence[Event], t0_s: float) -> str:
    missed = [event for event in events if event.kind is Kind.BASELINE_MISSED and event.t_s <= t0_s]
    if missed:
        return f"the baseline was not met: {missed[0].data.get('why', 'the service was not steady')}"
    if not any(event.kind is Kind.BASELINE_MET and event.t_s <= t0_s for event in events):
        return "no baseline was seen before the fault, so there is nothing to come back to"
    return ""


def _why_unproven(events: Sequence[Event]) -> str:
    """Faults that were to be proven and were not.

    A fault for which no evidence is named counts as done here; ``measure`` calls its outcome unproven.
    """
    claims = (Kind.FAULT_EFFECTIVE, Kind.FAULT_INJECTED)
    proven = {event.data.get("id") for event in events if event.kind in claims}
    why = {
        event.data.get("id"): event.data.get("why", "") for event in events if event.kind is Kind.FAULT_UNPROVEN
    }
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


def why_cannot_tell(schedule: ProbeSchedule, times: FaultTimes, slo: Slo) -> str:
    """Why the readings do not show what the users saw; "" if they do."""
    play = schedule.in_play(times.t0_s)
    if not play.any():
        return "could not tell: no reading was due after the fault"
    unknown = float((play & schedule.is_unknown).sum()) / float(play.sum())
    if unknown > UNKNOWN_SHARE_MAX:
        return f"could not tell: {unknown:.0%} of the readings after the fault are unknown"
    known_s = schedule.scheduled_s[play & ~schedule.is_unknown]
    marks_s = np.concatenate(
        [[times.t0_s], known_s, [max(times.watched_until_s, float(schedule.scheduled_s[-1]))]]
    )
    gap_s = float(np.diff(np.maximum.accumulate(marks_s)).max())
    # One period between two readings is no gap, also where the rate is low.
    if gap_s > slo.stable_for_s + schedule.period_s:
        return f"could not tell: {gap_s:.1f} s without any known reading"
    if times.effective_s is not None and schedule.scheduled_s[-1] < times.effective_s:
        return "could not tell: the readings end before the fault was in effect"
    return ""
