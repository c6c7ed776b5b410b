"""The hold phase of a trial, and the phase after the revert; and the view of them that a terminal shows.

Chaos Toolkit observes nothing after its rollbacks, so holding, reverting and watching are steps of the method.
Experiments name this module, so it keeps its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monkeyproof.config.target_file import Windows
from monkeyproof.errors import UsageError
from monkeyproof.injection.active import bound_s
from monkeyproof.injection.inject import Context, current, has_current
from monkeyproof.probes.follower import Follower, events_of
from monkeyproof.probes.recovery.fault_times import fault_times
from monkeyproof.probes.recovery.intervals import impact_index
from monkeyproof.probes.recovery.windows import WindowShare, lasting_by, sustained_by
from monkeyproof.record.history import READINGS_FILE, Event, Kind
from monkeyproof.record.readings import Readings, SignalState
from monkeyproof.types import Json

__all__ = ["hold_until_recovered", "watch_after_revert"]

POLL_S = 0.1
WRITTEN_WITHIN_S = 0.5
LIVE_S = 1.0
STORM = "monkeyproof.faults.actions.schedule"
"""The module of the action that runs a randomised fault schedule; it holds each fault itself."""
_BOUNDS = ("at_most_s", "at_least_s")


def hold_until_recovered(
    at_most_s: float = 0.0,
    at_least_s: float = 0.0,
) -> dict[str, Json]:
    """Hold the fault until the readings show a sustained recovery from it, or the horizon is reached.

    Both limits count from t0. ``at_most_s`` 0: the target file's ``windows.horizon_s``. ``at_least_s`` goes on
    watching a service that seems to bear a fault. A fault without an effect on users is held to the horizon; one
    that can no longer be judged, because an observer died, no longer.
    """
    return _phase("hold", "recovered", lambda context: _hold(context, at_most_s, at_least_s))


def watch_after_revert(
    at_most_s: float = 0.0,
) -> dict[str, Json]:
    """Watch until the service is steady again after the revert, for at least the SLO's ``stable_for_s``.

    ``at_most_s`` 0: the target file's ``windows.after_revert_s``.
    """
    return _phase("after_revert", "steady", lambda context: _after_revert(context, at_most_s))


def _phase(name: str, verdict: str, run: Callable[[Context], tuple[bool, str]]) -> dict[str, Json]:
    """Run one phase of watching. Never raises: an error becomes the phase's reason instead."""
    from chaoslib.exceptions import InterruptExecution

    if not has_current():
        return {verdict: False, "why": "no trial is open, so no prober takes readings"}
    context = current()
    context.history.event(Kind.PHASE_STARTED, name)
    try:
        seen, why = run(context)
    except InterruptExecution:
        raise
    except Exception as error:  # A probe that raises would end the method before its revert.
        seen, why = False, f"the readings could not be read: {error}"
    context.history.event(Kind.PHASE_ENDED, name, why=why)
    return {verdict: seen, "why": why}


def held_at_most_s(windows: Windows, at_most_s: float, at_least_s: float) -> float:
    """How long a fault is held if no recovery is seen."""
    return max(at_most_s or windows.horizon_s, at_least_s)


def longest_hold_s(document: Mapping[str, Json]) -> float:
    """The longest time for which an experiment asks that a fault be held; 0 if it leaves that to the target."""
    held = [_number(one.get(name)) for one in _holds(document) for name in _BOUNDS]
    return max([*held, *_schedule_holds_s(document)], default=0.0)


def _holds(document: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    """Arguments of each of an experiment's holds."""
    for provider in _providers(document):
        if provider.get("func") == hold_until_recovered.__name__ and provider.get("module") == __name__:
            yield provider.get("arguments") or {}


def _schedule_holds_s(document: Mapping[str, Json]) -> Iterator[float]:
    """How long each fault of a randomised fault schedule is held."""
    for provider in _providers(document):
        if provider.get("module") == STORM:
            faults = (provider.get("arguments") or {}).get("faults")
            yield from (_number(one.get("duration_s")) for one in faults or () if isinstance(one, dict))


def _providers(document: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    for one in document.get("method") or ():
        yield one.get("provider") or {}


def _number(value: Json) -> float:
    """The number; 0 for a value that is not known before the experiment runs, such as ``"${seconds}"``."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def promised_hold(document: Mapping[str, Json], windows: Windows, *, ends_trial: bool) -> str:
    """Say until when a fault will be held, before it is injected.

    ``ends_trial``: whether a method that takes longer is ended, for the fault is this harness's own.
    """
    longest_s = longest_hold_s(document)
    ended = f"after {bound_s(windows, longest_s):g} s the trial is ended, whatever its method does"
    holds = list(_holds(document))
    if not holds and ends_trial:
        return f"as long as the method takes; {ended}"
    given = holds[0] if holds else {}
    most_s = held_at_most_s(windows, _number(given.get("at_most_s")), _number(given.get("at_least_s")))
    words = f"until a recovery is seen, for at most {most_s:g} s"
    return f"{words}; {ended}" if ends_trial else words


def _hold(context: Context, at_most_s: float, at_least_s: float) -> tuple[bool, str]:
    times = fault_times(events_of(context.folder))
    if times is None or times.effective_s is None:
        return False, "no fault is in effect, so there is nothing to hold"
    slo = times.under_fault(context.target.file.slo)
    at_most_s = held_at_most_s(context.target.file.windows, at_most_s, at_least_s)
    reported = False
    with Follower(context.folder) as follower:
        while True:
            now_s = context.history.now_s()
            schedule = follower.poll()
            seen = False
            if schedule is not None and (impact := impact_index(schedule, times.t0_s)) is not None:
                start = lasting_by(schedule, slo, impact, now_s)
                seen = start is not None
                if start is not None and not reported:
                    reported = True
                    context.history.event(
                        Kind.RECOVERY_SEEN,
                        good_share=round(WindowShare.of(schedule, start, slo.stable_for_s).good, 4),
                    )
            since_s = now_s - times.t0_s
            if seen and since_s >= at_least_s:
                return True, f"steady again for {slo.stable_for_s:g} s"
            if why := context.why_blind():
                return False, why
            if since_s >= at_most_s:
                return seen, f"the horizon of {at_most_s:g} s has come"
            context.clock.sleep_s(min(POLL_S, max(0.0, at_most_s - since_s)))


def _after_revert(context: Context, at_most_s: float) -> tuple[bool, str]:
    slo = context.target.file.slo
    begun_s = context.history.now_s()
    reverted = [event.t_s for event in events_of(context.folder) if event.kind is Kind.FAULT_REVERTED]
    from_s = max(reverted, default=begun_s)
    # A whole window has to fit in, and to be written by the prober.
    at_most_s = max(at_most_s or context.target.file.windows.after_revert_s, slo.stable_for_s + WRITTEN_WITHIN_S)
    with Follower(context.folder) as follower:
        while True:
            now_s = context.history.now_s()
            schedule = follower.poll()
            steady = (
                schedule is not None and sustained_by(schedule, slo, schedule.first_at(from_s), now_s) is not None
            )
            if steady and now_s - begun_s >= slo.stable_for_s:
                return True, f"steady for {slo.stable_for_s:g} s after the revert"
            if why := context.why_blind():
                return False, why
            if now_s - begun_s >= at_most_s:
                return steady, f"not steady within {at_most_s:g} s after the revert"
            context.clock.sleep_s(POLL_S)


@dataclass(frozen=True, slots=True)
class LiveView:
    """A trial at this moment, as its files tell it."""

    phase: str = ""
    """The phase that began last; empty before the first."""
    elapsed_s: float = 0.0
    """Since the trial began, as of the last event or reading."""
    faults: tuple[str, ...] = ()
    """What is broken right now: ``network.add_latency on client->gateway``."""
    good_share: float | None = None
    """Of the readings that ended in the last second. None: there are none that say anything."""
    latency_p50_ms: float | None = None


def live(folder: Path) -> LiveView:
    """Read from a running trial's files what a terminal shows of it; what is not there yet is left out."""
    try:
        events = events_of(folder)
    except UsageError:
        events = []
    try:
        readings = Readings.read(folder / READINGS_FILE)
    except UsageError:
        readings = Readings.of(())
    phases = [event.subject for event in events if event.kind is Kind.PHASE_STARTED]
    ended_s = readings.finished_s[~np.isnan(readings.finished_s)]
    newest_s = float(ended_s.max()) if len(ended_s) else 0.0
    recent = (readings.finished_s > newest_s - LIVE_S) & (readings.good != SignalState.UNKNOWN)
    return LiveView(
        phase=phases[-1] if phases else "",
        elapsed_s=max(newest_s, events[-1].t_s if events else 0.0),
        faults=_active(events),
        good_share=float((readings.good[recent] == SignalState.GOOD).mean()) if recent.any() else None,
        latency_p50_ms=float(np.median(readings.latency_ms[recent])) if recent.any() else None,
    )


def _active(events: Sequence[Event]) -> tuple[str, ...]:
    """Faults that were intended and not ended. One that is not held (a kill) is shown until the hold ends."""
    active: dict[Json, tuple[str, bool]] = {}
    for event in events:
        if event.kind is Kind.FAULT_INTENDED:
            name = f"{event.data.get('fault', 'fault')} on {event.subject}"
            active[event.data.get("id")] = (name, bool(event.data.get("held")))
        elif event.kind in (Kind.FAULT_REVERTED, Kind.FAULT_UNPROVEN):
            active.pop(event.data.get("id"), None)
        elif event.kind is Kind.PHASE_ENDED and event.subject in ("hold", "storm"):
            active = {key: (name, held) for key, (name, held) in active.items() if held}
    return tuple(name for name, _ in active.values())
