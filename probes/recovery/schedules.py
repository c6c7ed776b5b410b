"""What the users saw of a randomised fault schedule (a storm): safety first, then liveness.

While faults come and go, bad answers are counted and not judged: an improvement may be the Monkey's own doing, so
no outcome is ``healed``. When the harness has reverted all faults, the target has to come back by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from monkeyproof.config.target_file import Slo
from monkeyproof.probes.recovery.fault_times import fault_times
from monkeyproof.probes.recovery.intervals import impact_index, recovered_interval
from monkeyproof.probes.recovery.measurement import absorbed, readings_before, summarise_readings
from monkeyproof.probes.recovery.proof import why_cannot_tell, why_proof_fails
from monkeyproof.probes.recovery.windows import ProbeSchedule, lasting_by
from monkeyproof.record.history import Event, Kind
from monkeyproof.record.readings import Readings
from monkeyproof.types import Interval, Outcome, Recovery

STORM = "storm"
"""The phase of a trial in which a fault schedule runs; also the name in histories and reports."""


def is_fault_schedule(events: Sequence[Event]) -> bool:
    """Whether these are the events of a trial with a randomised fault schedule."""
    return any((event.kind, event.subject) == (Kind.PHASE_STARTED, STORM) for event in events)


def measure_schedule(readings: Readings, events: Sequence[Event], slo: Slo) -> Recovery:
    """What the users saw of one fault schedule, and whether the target came back after it.

    Faults that were refused, or not proven and reverted at once, are no part of it. One that ended early (its
    lease ran out, another process removed it) spoils nothing, for no recovery is claimed under it.

    Returns:
        ``absorbed`` if not one reading was bad; ``fault_removed`` if the objective holds in the end (``recovered``
        is then never dated to before the storm's end); ``not_recovered`` if it does not; ``invalid`` if the
        readings cannot tell.
    """
    events = _of_what_took_effect(sorted(events, key=lambda event: event.t_s))
    times = fault_times(events)
    if times is None:
        return Recovery(Outcome.INVALID, "could not tell: no fault of the storm took effect")
    over_s = _over_s(events)
    times = replace(times, reverted_s=over_s, revert_begins_s=over_s)
    schedule = ProbeSchedule.of(readings_before(readings, times.reset_begins_s))
    if schedule is None:
        return Recovery(Outcome.INVALID, "could not tell: there are too few readings", t0_s=times.t0_s)
    seen = summarise_readings(schedule, times, slo)
    detected_s = next((e.t_s for e in events if e.kind is Kind.HEALER_DETECTED and e.t_s >= times.t0_s), None)
    seen = replace(seen, ttd_s=None if detected_s is None else detected_s - times.t0_s)
    end_s = float(schedule.scheduled_s[-1])
    aborted = next((one for one in events if one.kind is Kind.TRIAL_ABORTED), None)
    why = why_proof_fails(events, times) or why_cannot_tell(schedule, times, slo)
    if not why and (aborted is not None or over_s is None):
        cut = aborted.data.get("why", "no reason given") if aborted is not None else "its end is not on record"
        why = f"could not tell: the storm was cut off: {cut}"
    if why or over_s is None:
        return replace(seen, outcome=Outcome.INVALID, reason=why)
    if impact_index(schedule, times.t0_s) is None:
        return absorbed(seen, None, end_s, times, slo)
    play = schedule.in_play(times.t0_s)
    during = int((play & schedule.is_bad & (schedule.scheduled_s < over_s)).sum())
    text = f"{during} bad readings during the storm, {seen.bad_count - during} after it"
    start = lasting_by(schedule, slo, schedule.first_at(over_s), math.inf)
    if start is None:
        reason = (
            f"did not come back after the storm: not good for {slo.stable_for_s:g} s on end in the "
            f"{end_s - over_s:.1f} s that were watched after every fault was reverted; {text}"
        )
        return replace(seen, outcome=Outcome.NOT_RECOVERED, reason=reason, censored_at_s=end_s - times.t0_s)
    last_bad = np.flatnonzero(play[:start] & schedule.is_bad[:start] & (schedule.scheduled_s[:start] >= over_s))
    if len(last_bad):
        found = recovered_interval(schedule, slo, start, times.t0_s)
        recovered = Interval(max(over_s, found.low_s), max(over_s, found.high_s))
        since = recovered.since(over_s)
        how = f"good again between {since.low_s:.2f} and {since.high_s:.2f} s after every fault was reverted"
    else:
        recovered = Interval(over_s, float(schedule.finished_s[start]))
        how = f"good from the first answer on, {recovered.width_s:.2f} s after every fault was reverted"
    return replace(
        seen,
        outcome=Outcome.FAULT_REMOVED,
        reason=f"came back after the storm: {how}; {text}",
        recovered=recovered,
        proven_s=float(schedule.scheduled_s[start]) + slo.stable_for_s,
        censored_at_s=over_s - times.t0_s,
    )


def _of_what_took_effect(events: Sequence[Event]) -> list[Event]:
    unproven = {event.data.get("id") for event in events if event.kind is Kind.FAULT_UNPROVEN} - {"", None}
    steps = (Kind.FAULT_INTENDED, Kind.FAULT_UNPROVEN, Kind.FAULT_REVERTED)
    early = (Kind.LEASE_RAN_OUT, Kind.FAULT_ENDED_EARLY)
    return [
        event
        for event in events
        if event.kind not in early and (event.kind not in steps or event.data.get("id") not in unproven)
    ]


def _over_s(events: Sequence[Event]) -> float | None:
    """When the last fault was reverted, or the schedule was over, whichever came later."""
    ended = [event.t_s for event in events if (event.kind, event.subject) == (Kind.PHASE_ENDED, STORM)]
    reverted = [event.t_s for event in events if event.kind is Kind.FAULT_REVERTED]
    return max([*ended, *reverted]) if ended else None
