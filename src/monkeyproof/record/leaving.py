"""Whether a trial has begun to end, as its events tell. What ends a trial waits for that."""

from __future__ import annotations

from pathlib import Path

from monkeyproof.record.history import Kind, events_in

LEAVES_WITHIN_S = 2.0
"""The harness kills a worker that was asked to end and has not begun to revert by then; the watchdog reverts."""
_LEAVING = (Kind.FAULT_REVERTED, Kind.FAULT_NOT_REVERTED, Kind.TRIAL_ENDED)


def is_leaving(folder: Path, seen: int) -> bool:
    """Whether a trial reverts its faults, as its events after the first ``seen`` tell. That may take its time."""
    events = events_in(folder)
    began = {one.subject for one in events[seen:] if one.kind is Kind.PHASE_STARTED}
    return (
        bool(began & {"revert", "put_back"})
        or any(one.kind in _LEAVING for one in events[seen:])
        # Once it has begun that, it does nothing else any more.
        or any(one.kind is Kind.TRIAL_ENDING for one in events)
    )
