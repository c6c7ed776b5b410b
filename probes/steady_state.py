"""The steady state of experiments: a whole window of readings, of which enough are good and almost all known."""

from __future__ import annotations

import logging
import math

import numpy as np

from monkeyproof.clock import Clock
from monkeyproof.history import Kind
from monkeyproof.injection import Context, current, has_current
from monkeyproof.probes.following import Follower, events_of
from monkeyproof.probes.windows import Share, Slots, meets

__all__ = ["slo_holds"]

logger = logging.getLogger("chaostoolkit")
POLL_S = 0.05
GRACE_S = 5.0
"""How much longer than its window it waits for readings that do not come."""


def slo_holds(
    window_s: float = 0.0,
    configuration: object = None,  # noqa: ARG001
    secrets: object = None,  # noqa: ARG001
) -> bool:
    """Wait for a whole window of readings that began after the call, and say whether it met the objective.

    Before any fault of the trial this is its baseline, and the first window counts. Afterwards it is the
    cool-down, which ends with the first window that meets the objective, within two windows. 0: the target
    file's ``windows.baseline_s``. What cannot be seen does not hold. Never raises: an exception from a
    steady-state probe would make Chaos Toolkit skip the rollbacks.
    """
    from chaoslib.exceptions import InterruptExecution

    if not has_current():
        logger.error("the steady state cannot be seen: no trial is open, so nobody takes readings")
        return False
    context = current()
    phase, shares, why, met = "baseline", Share(), "", False
    try:
        window_s = window_s or context.target.file.windows.baseline_s
        if any(event.kind is Kind.FAULT_INTENDED for event in events_of(context.folder)):
            phase = "cool_down"
        context.history.event(Kind.PHASE_STARTED, phase)
        met, shares, why = _watch(context, window_s, spare_s=window_s if phase == "cool_down" else 0.0)
    except InterruptExecution:
        raise
    except Exception as error:  # A probe that raises costs the rollbacks.
        why = f"could not look: {error}"
    if phase == "baseline":
        good_share = round(shares.good, 4)
        if met:
            context.history.event(Kind.BASELINE_MET, good_share=good_share, window_s=window_s)
        else:
            context.history.event(Kind.BASELINE_MISSED, good_share=good_share, window_s=window_s, why=why)
    context.history.event(Kind.PHASE_ENDED, phase, why=why)
    return met


def _watch(context: Context, window_s: float, spare_s: float) -> tuple[bool, Share, str]:
    """Whether a window that begins at most ``spare_s`` after now is steady; its shares; and why."""
    slo = context.target.file.slo
    clock: Clock = context.clock
    from_s = context.history.now_s()
    give_up_s = from_s + window_s + spare_s + context.target.file.prober.timeout_ms / 1000.0 + GRACE_S
    seen = Share()
    with Follower(context.folder) as follower:
        while True:
            late = context.history.now_s() >= give_up_s
            slots = follower.poll()
            if slots is not None and slots.first_at(from_s) < len(slots):
                first = slots.first_at(from_s)
                passed = np.flatnonzero(meets(slots, window_s, slo.objective)[first:])
                start = first + (int(passed[0]) if len(passed) else 0)
                seen = Share.of(slots, start, window_s)
                in_time = slots.scheduled_s[start] <= slots.scheduled_s[first] + spare_s + 1e-9
                if len(passed) and in_time and seen.steady(slo):
                    return True, seen, f"{seen.good:.1%} of {seen.slots} readings were good"
                if late or _covered(slots, first, window_s + spare_s):
                    seen = Share.of(slots, first + math.ceil(spare_s / slots.period_s - 1e-6), window_s)
                    return False, seen, _why_not(seen, slo.objective)
            if late:
                return False, seen, f"no readings for {window_s + spare_s + GRACE_S:.0f} s: is the prober running?"
            clock.sleep_s(POLL_S)


def _covered(slots: Slots, first: int, for_s: float) -> bool:
    """Whether every slot from ``first`` on has its row, for as long."""
    end = first + slots.count_in(for_s)
    return end <= len(slots) and bool(slots.has_row[first:end].all())


def _why_not(seen: Share, objective: float) -> str:
    why = f"only {seen.good:.1%} of {seen.slots} readings were good; {objective:.1%} are needed"
    return f"{why} ({seen.unknown:.0%} are unknown)" if seen.unknown else why
