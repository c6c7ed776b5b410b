"""The steady state of experiments: a whole window of readings, of which enough are good and almost all known.

Experiments name this module, so it keeps its name. How to write a probe of your own: docs/extending/probe.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from monkeyproof.clock import Clock
from monkeyproof.config.redaction import redact
from monkeyproof.config.user_files import shown
from monkeyproof.injection.inject import Context, current, has_current
from monkeyproof.probes.follower import Follower, events_of
from monkeyproof.probes.recovery.windows import ProbeSchedule, WindowShare, meets
from monkeyproof.record.history import Kind
from monkeyproof.types import Json

__all__ = ["slo_holds"]

logger = logging.getLogger("chaostoolkit")
POLL_S = 0.02
GRACE_S = 5.0
"""How much longer than its window the probe waits for readings that do not come."""
FLATTERED_MAX = 0.05
FEWEST_ENOUGH = 100
SHORTEST_ENOUGH_S = 0.5


def slo_holds(
    window_s: float = 0.0,
) -> bool:
    """Wait for a whole window of readings, and return whether it met the objective.

    Before any fault of the trial this is its baseline: the window that has just passed, if the target was as
    declared, loaded and probed all through it, else the one that began when it was; no other is tried. It ends
    early where readings are plentiful (see ``enough_count``). Afterwards it is the cool-down, which begins with
    the call and ends with the first window that meets the objective, within two windows. 0: the target file's
    ``windows.baseline_s``. Without readings it does not hold. Never raises: an exception from a steady-state
    probe would make Chaos Toolkit skip the rollbacks.
    """
    from chaoslib.exceptions import InterruptExecution

    if not has_current():
        logger.error("the steady state is unknown: no trial is open, so no prober takes readings")
        return False
    context = current()
    phase, found = "baseline", WindowResult(False, WindowShare(), window_s)
    try:
        window_s = window_s or context.target.file.windows.baseline_s
        from_s = context.history.now_s()
        if any(event.kind is Kind.FAULT_INTENDED for event in events_of(context.folder)):
            phase = "cool_down"
        else:
            from_s = _since_s(context, window_s, from_s)
        context.history.event(Kind.PHASE_STARTED, phase, t_s=from_s)
        found = WindowResult(False, WindowShare(), window_s)
        found = _watch(context, from_s, window_s, cool_down=phase == "cool_down")
    except InterruptExecution:
        raise
    except Exception as error:  # A probe that raises costs the rollbacks.
        found = replace(found, why=f"the readings could not be read: {error}")
    if phase == "baseline":
        data: dict[str, Json] = {
            "good_share": round(found.share.good, 4),
            "window_s": found.window_s,
            "readings": found.share.count,
        }
        if found.met:
            context.history.event(Kind.BASELINE_MET, "", **data)
        else:
            context.history.event(Kind.BASELINE_MISSED, "", **data, why=found.why)
    context.history.event(Kind.PHASE_ENDED, phase, why=found.why)
    return found.met


def record_unmet(state: Mapping[str, Json] | None) -> None:
    """Record the baseline as missed where a probe of the hypothesis beside ``slo_holds`` did not hold.

    ``state`` is what Chaos Toolkit found out about the hypothesis. After a fault it changes nothing, and what
    ``slo_holds`` recorded itself is not recorded again. Without an open trial nothing happens.
    """
    if not has_current() or state is None or state["steady_state_met"] is not False:
        return
    context = current()
    recorded = {event.kind for event in events_of(context.folder)}
    if recorded & {Kind.FAULT_INTENDED, Kind.BASELINE_MISSED}:
        return
    context.history.event(Kind.BASELINE_MISSED, good_share=None, window_s=0.0, why=why_unmet(state["probes"][-1]))


def why_unmet(run: Mapping[str, Json]) -> str:
    """Why a steady-state probe did not hold, from Chaos Toolkit's record of its run."""
    activity = run["activity"]
    why = f"the experiment's own steady-state probe {activity['name']!r} did not hold"
    if run.get("status") == "failed":
        lines = "".join(run.get("exception") or ()).strip().splitlines() or ["no reason given"]
        return f"{why}: it failed ({lines[-1].removeprefix('chaoslib.exceptions.ActivityFailed: ')})"
    returned, tolerance = shown(redact(run.get("output"))), shown(redact(activity.get("tolerance")))
    return f"{why}: it returned {returned}, and its tolerance is {tolerance}"


@dataclass(frozen=True, slots=True)
class WindowResult:
    """One window, judged."""

    met: bool
    share: WindowShare
    window_s: float
    """How long it was."""
    why: str = ""


def enough_count(objective: float) -> float:
    """So many readings, all of them good, end a baseline before its window is over.

    A service of which a smaller share than the objective is good shows n good ones in a row with a chance below
    objective ** n. That is at most 5 % from here on: 299 readings where 99 % are asked for. Never fewer than a
    hundred, nor less than half a second, for neighbours in time resemble one another. A reading that is not good
    rules this early end out, so polling often gives no second chance. An objective of 1 is beyond any number.
    """
    return (
        max(FEWEST_ENOUGH, math.ceil(math.log(FLATTERED_MAX) / math.log(objective))) if objective < 1 else math.inf
    )


def _since_s(context: Context, window_s: float, now_s: float) -> float:
    """When the baseline began: with the last whole window that is written, or when the trial was ready, or now."""
    if context.watched_from_s is None:
        return now_s
    with Follower(context.folder) as follower:
        schedule = follower.poll()
    if schedule is None:
        return context.watched_from_s
    last_s = float(schedule.scheduled_s[max(0, len(schedule) - schedule.count_in(window_s))])
    return min(now_s, max(context.watched_from_s, last_s))


def _watch(context: Context, from_s: float, window_s: float, *, cool_down: bool) -> WindowResult:
    """A window that begins at ``from_s`` or, in a cool-down, at most as much later as it is long."""
    slo = context.target.file.slo
    clock: Clock = context.clock
    spare_s = window_s if cool_down else 0.0
    give_up_s = (
        context.history.now_s() + window_s + spare_s + context.target.file.prober.timeout_ms / 1000 + GRACE_S
    )
    share = WindowShare()
    with Follower(context.folder) as follower:
        while True:
            late = context.history.now_s() >= give_up_s
            schedule = follower.poll()
            if schedule is not None and schedule.first_at(from_s) < len(schedule):
                first = schedule.first_at(from_s)
                if not cool_down and (early := _enough(schedule, first, window_s, slo.objective)):
                    return early
                passed = np.flatnonzero(meets(schedule, window_s, slo.objective)[first:])
                start = first + (int(passed[0]) if len(passed) else 0)
                share = WindowShare.of(schedule, start, window_s)
                in_time = schedule.scheduled_s[start] <= schedule.scheduled_s[first] + spare_s + 1e-9
                if len(passed) and in_time and share.steady(slo):
                    return WindowResult(
                        True, share, window_s, f"{share.good:.1%} of {share.count} readings were good"
                    )
                if late or _covered(schedule, first, window_s + spare_s):
                    share = WindowShare.of(
                        schedule, first + math.ceil(spare_s / schedule.period_s - 1e-6), window_s
                    )
                    return WindowResult(False, share, window_s, _why_not(share, slo.objective))
            if late:
                why = f"no readings for {window_s + spare_s + GRACE_S:.0f} s: is the prober running?"
                return WindowResult(False, share, window_s, why)
            clock.sleep_s(POLL_S)


def _enough(schedule: ProbeSchedule, first: int, window_s: float, objective: float) -> WindowResult | None:
    """The readings of a window that is not over, if they are enough nevertheless; else None."""
    count = len(schedule) - first
    needed = max(enough_count(objective), schedule.count_in(SHORTEST_ENOUGH_S))
    if not needed <= count < schedule.count_in(window_s) or not schedule.is_good[first:].all():
        return None
    why = f"all of {count} readings were good, which are enough"
    return WindowResult(True, WindowShare(count, 1.0, 0.0), round(count * schedule.period_s, 3), why)


def _covered(schedule: ProbeSchedule, first: int, for_s: float) -> bool:
    """Whether every slot of the ``for_s`` seconds from ``first`` on has its row."""
    end = first + schedule.count_in(for_s)
    return end <= len(schedule) and bool(schedule.has_row[first:end].all())


def _why_not(found: WindowShare, objective: float) -> str:
    why = f"only {found.good:.1%} of {found.count} readings were good; {objective:.1%} are needed"
    return f"{why} ({found.unknown:.0%} are unknown)" if found.unknown else why
