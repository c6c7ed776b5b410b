"""Whether a trial has begun to end, by its events. A process that ends a trial waits for that."""

from __future__ import annotations

from pathlib import Path

from monkeyproof.record.history import Kind, events_in

REVERT_BEGINS_WITHIN_S = 2.0
"""The harness kills a worker that was asked to end and has not begun to revert by then; the watchdog reverts."""
_ENDING = (Kind.FAULT_REVERTED, Kind.FAULT_NOT_REVERTED, Kind.TRIAL_ENDED)


def has_begun_to_end(folder: Path, seen: int) -> bool:
    """Whether a trial has begun to revert its faults, by its events after the first ``seen``."""
    events = events_in(folder)
    began = {one.subject for one in events[seen:] if one.kind is Kind.PHASE_STARTED}
    return (
        bool(began & {"revert", "put_back"})
        or any(one.kind in _ENDING for one in events[seen:])
        # After that event it does nothing else.
        or any(one.kind is Kind.TRIAL_ENDING for one in events)
    )
