"""When the faults of a trial began, were proven, and were taken back: what its events say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from monkeyproof.config.target_file import Slo
from monkeyproof.record.history import Event, Kind

WATCHING = ("inject", "hold", "revert", "after_revert", "cool_down")
"""Phases through which readings have to reach."""


@dataclass(frozen=True, slots=True)
class FaultTimes:
    """When the faults of a trial began and ended, as far as its events say."""

    t0_s: float
    effective_s: float | None
    """None: not all of them were proven, or at least done where nothing is named that would prove them."""
    reverted_s: float | None
    revert_begins_s: float | None
    """The latest moment at which the fault is sure to be whole: from here on, what gets better may be the
    Monkey's own doing. None: nothing was held, or nothing was taken back, and nothing ended by itself."""
    watched_until_s: float
    """Readings have to reach this far."""
    put_back_s: float | None
    """When the harness began to put the target back for the next trial: what gets better from there on is its
    doing. None: it did not."""
    by_itself: bool = False
    """Whether a fault's own timer may have begun to end it before anything was taken back; ``revert_begins_s`` is
    then the soonest moment of that."""
    pauses_s: float = 0.0
    """For how long at most a fault goes away by itself, to come back."""

    def under_fault(self, slo: Slo) -> Slo:
        """The SLO by which a recovery is told from a pause of a fault that comes and goes: it lasts longer."""
        return replace(slo, stable_for_s=slo.stable_for_s + self.pauses_s)


def fault_times(events: Sequence[Event]) -> FaultTimes | None:
    """When the faults began and ended. None if none was even intended."""
    intended = [event for event in events if event.kind is Kind.FAULT_INTENDED]
    if not intended:
        return None
    t0_s = min(event.t_s for event in intended)
    done = (Kind.FAULT_EFFECTIVE, Kind.FAULT_INJECTED)
    effective = {e.data.get("id"): e.t_s for e in events if e.kind in done}
    ids = {event.data.get("id") for event in intended}
    held = {event.data.get("id") for event in intended if event.data.get("held")}
    reverts = [
        event
        for event in events
        if event.kind in (Kind.FAULT_REVERTED, Kind.FAULT_NOT_REVERTED) and event.data.get("id") in held
    ]
    first_s = min((event.t_s for event in reverts), default=None)
    begins = [
        event.t_s
        for event in events
        if (event.kind, event.subject) in ((Kind.PHASE_STARTED, "revert"), (Kind.PHASE_ENDED, "hold"))
        and first_s is not None
        and t0_s <= event.t_s <= first_s
    ]
    begins_s = max(begins, default=first_s)
    own_ends_s = [
        event.t_s + event.data["ends_by_itself_s"]
        for event in intended
        if event.data.get("ends_by_itself_s") is not None
    ]
    own_end_s = min(own_ends_s, default=math.inf)
    by_itself = own_end_s < (math.inf if begins_s is None else begins_s)
    put_back = (Kind.PHASE_STARTED, "put_back")
    watched = [e.t_s for e in events if e.kind is Kind.PHASE_ENDED and e.subject in WATCHING]
    return FaultTimes(
        t0_s=t0_s,
        effective_s=max(effective.values()) if ids <= effective.keys() else None,
        reverted_s=min((e.t_s for e in reverts if e.kind is Kind.FAULT_REVERTED), default=None),
        revert_begins_s=own_end_s if by_itself else begins_s,
        put_back_s=min((e.t_s for e in events if (e.kind, e.subject) == put_back), default=None),
        watched_until_s=max([t0_s, *watched, *(event.t_s for event in reverts)]),
        by_itself=by_itself,
        pauses_s=max(event.data.get("pauses_s", 0.0) for event in intended),
    )
