"""When the faults of a trial began, were proven and were reverted, as its events tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from monkeyproof.config.target_file import Slo
from monkeyproof.record.history import Event, Kind
from monkeyproof.types import Json

WATCHING = ("inject", "hold", "revert", "after_revert", "cool_down")
"""Phases that the readings have to cover."""


@dataclass(frozen=True, slots=True)
class FaultTimes:
    """When the faults of a trial began and ended, as far as its events tell. Times are seconds since it began."""

    t0_s: float
    effective_s: float | None
    """None: not all of them were proven, or at least done where nothing is named that would prove them."""
    reverted_s: float | None
    revert_begins_s: float | None
    """The latest moment at which the fault is sure to be whole: an improvement after it may be the Monkey's
    own doing. None: no fault was held, or none was reverted, and none ended by itself."""
    watched_until_s: float
    """Readings have to reach up to this moment."""
    reset_begins_s: float | None
    """When the harness began to reset the target for the next trial: an improvement after it is the harness's
    doing. None: it did not."""
    ends_by_itself: bool = False
    """Whether a fault's own timer may have begun to end it before the revert; ``revert_begins_s`` is then the
    soonest moment of that."""
    pauses_s: float = 0.0
    """The longest pause of a fault that stops by itself and comes back."""

    def under_fault(self, slo: Slo) -> Slo:
        """The SLO that tells a recovery from a pause of an intermittent fault: its window outlasts the pause."""
        return replace(slo, stable_for_s=slo.stable_for_s + self.pauses_s)


def fault_times(events: Sequence[Event]) -> FaultTimes | None:
    """When the faults began and ended. None if no fault was even intended."""
    intended = [event for event in events if event.kind is Kind.FAULT_INTENDED]
    if not intended:
        return None
    t0_s = min(event.t_s for event in intended)
    reverts = _reverts(events, {event.data.get("id") for event in intended if event.data.get("held")})
    begins_s = _revert_begins_s(events, t0_s, reverts)
    own_end_s = _own_end_s(intended)
    ends_by_itself = own_end_s < (math.inf if begins_s is None else begins_s)
    reset = (Kind.PHASE_STARTED, "put_back")
    watched = [e.t_s for e in events if e.kind is Kind.PHASE_ENDED and e.subject in WATCHING]
    return FaultTimes(
        t0_s=t0_s,
        effective_s=_effective_s(events, {event.data.get("id") for event in intended}),
        reverted_s=min((e.t_s for e in reverts if e.kind is Kind.FAULT_REVERTED), default=None),
        revert_begins_s=own_end_s if ends_by_itself else begins_s,
        reset_begins_s=min((e.t_s for e in events if (e.kind, e.subject) == reset), default=None),
        watched_until_s=max([t0_s, *watched, *(event.t_s for event in reverts)]),
        ends_by_itself=ends_by_itself,
        pauses_s=max(event.data.get("pauses_s", 0.0) for event in intended),
    )


def _effective_s(events: Sequence[Event], ids: set[Json]) -> float | None:
    """When the last of the intended faults was proven, or done where no evidence is named; None if one was not."""
    done = (Kind.FAULT_EFFECTIVE, Kind.FAULT_INJECTED)
    effective = {event.data.get("id"): event.t_s for event in events if event.kind in done}
    return max(effective.values()) if ids <= effective.keys() else None


def _reverts(events: Sequence[Event], held: set[Json]) -> Sequence[Event]:
    """The reverts of held faults, also those that failed."""
    kinds = (Kind.FAULT_REVERTED, Kind.FAULT_NOT_REVERTED)
    return [event for event in events if event.kind in kinds and event.data.get("id") in held]


def _revert_begins_s(events: Sequence[Event], t0_s: float, reverts: Sequence[Event]) -> float | None:
    """When the harness began to revert the first fault: at the phase of the revert, or the end of the hold."""
    first_s = min((event.t_s for event in reverts), default=None)
    if first_s is None:
        return None
    marks = ((Kind.PHASE_STARTED, "revert"), (Kind.PHASE_ENDED, "hold"))
    begins_s = [e.t_s for e in events if (e.kind, e.subject) in marks and t0_s <= e.t_s <= first_s]
    return max(begins_s, default=first_s)


def _own_end_s(intended: Sequence[Event]) -> float:
    """The soonest moment at which a fault's own timer may begin to end it; infinity if none has a timer."""
    timers = [event for event in intended if event.data.get("ends_by_itself_s") is not None]
    return min((event.t_s + event.data["ends_by_itself_s"] for event in timers), default=math.inf)
