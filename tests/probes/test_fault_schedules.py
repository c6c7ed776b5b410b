"""A randomised fault schedule: bad answers are counted while it runs, and judged when it is reverted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from probe_traces import HEALER, SLO, event, fault, letters, trace

from monkeyproof.probes.recovery.schedules import is_fault_schedule, measure_schedule
from monkeyproof.record.history import Event, Kind
from monkeyproof.types import Outcome, Recovery

OVER_S = 10.0


def events(*more: Event, over_s: float | None = OVER_S) -> list[Event]:
    """A storm from 2 s on: the first fault until 4 s, the second from 6 s until it is over."""
    found = [
        event(1.95, Kind.PHASE_STARTED, "storm"),
        *fault(2.0, reverted_s=4.0, name="f1"),
        *fault(6.0, reverted_s=over_s, name="f2", baseline=False),
        *more,
    ]
    return found + ([event(over_s, Kind.PHASE_ENDED, "storm", why="")] if over_s is not None else [])


def measured(text: str, told: Sequence[Event]) -> Recovery:
    assert is_fault_schedule(told)
    return measure_schedule(trace(text), told, SLO)


@pytest.mark.parametrize(
    ("text", "outcome", "words"),
    [
        # Not one bad answer.
        (letters((15, "G")), Outcome.ABSORBED, "none of"),
        # Bad until the end, then good again.
        (letters((2, "G"), (8.5, "R"), (4, "G")), Outcome.FAULT_REMOVED, "good again between 0.4"),
        # Good while the storm still went on, and from then on: never called healed, whatever a healer did.
        (letters((2, "G"), (1, "R"), (9, "G")), Outcome.FAULT_REMOVED, "good from the first answer on"),
        # Good during it, broken by what came later: a recovery in the middle of a storm is none.
        (
            letters((2, "G"), (1, "R"), (4, "G"), (7, "R")),
            Outcome.NOT_RECOVERED,
            "did not come back after",
        ),
        # All was well, and the last fault's end broke it.
        (letters((10.2, "G"), (5, "W")), Outcome.NOT_RECOVERED, "0 bad readings during the storm, 100 after it"),
        # A flap after the storm: dated to its end.
        (letters((9.8, "G"), (0.6, "R"), (0.5, "G"), (0.5, "R"), (4, "G")), Outcome.FAULT_REMOVED, "between 1.3"),
        # Good again, and bad at the very end.
        (letters((10.5, "R"), (3, "G"), (0.5, "R")), Outcome.NOT_RECOVERED, "not good for 1 s on end"),
    ],
)
def test_outcome_of_a_storm(text: str, outcome: Outcome, words: str) -> None:
    found = measured(text, events(*HEALER))
    assert (found.outcome, found.reason) == (outcome, found.reason)
    assert words in found.reason
    assert found.reverted_s == OVER_S or outcome is Outcome.INVALID
    if outcome is Outcome.FAULT_REMOVED:
        assert found.recovered is not None
        assert OVER_S <= found.recovered.low_s <= found.recovered.high_s
        assert found.ttr is None
        assert found.censored_at_s == OVER_S - 2.0


def test_recovery_is_an_interval_from_the_schedules_end() -> None:
    found = measured(letters((2, "G"), (8.5, "R"), (4, "G")), events())
    assert found.recovered is not None
    since = found.recovered.since(OVER_S)
    assert 0.4 < since.low_s < 0.5 < since.high_s < 0.56
    assert found.bad_count == 170


def test_what_was_not_proven_is_no_part_of_it() -> None:
    text = letters((2, "G"), (8.5, "R"), (4, "G"))
    unproven = [
        *fault(7.0, effective=False, name="f3", baseline=False),
        event(8.0, Kind.FAULT_UNPROVEN, "part", id="f3", fault="x", why="no evidence"),
        event(8.1, Kind.FAULT_REVERTED, "part", id="f3", fault="x", summary="reverted"),
        event(8.5, Kind.FAULT_REFUSED, "x", id="", fault="x", why="not injecting: it may not"),
    ]
    early = [
        event(3.0, Kind.LEASE_RAN_OUT, "toxic-1", why="replica-2 is not paused any more"),
        event(3.5, Kind.FAULT_ENDED_EARLY, "part", id="f1", fault="x", why="another process did"),
    ]
    assert measured(text, events(*unproven, *early)) == measured(text, events())
    only = [event(1.9, Kind.BASELINE_MET), event(1.95, Kind.PHASE_STARTED, "storm"), *unproven]
    assert measured(text, only).outcome is Outcome.INVALID
    assert "no fault of the storm took effect" in measured(text, only).reason


@pytest.mark.parametrize(
    ("more", "over_s", "words"),
    [
        ([event(8.0, Kind.TRIAL_ABORTED, why="stopped")], OVER_S, "the storm was cut off: stopped"),
        ([], None, "its end is not on record"),
        ([event(9.0, Kind.OBSERVER_DIED, "load", why="status 1")], OVER_S, "the load died"),
        ([event(8.0, Kind.FAULT_UNPROVEN, "storm", id="", why="it is stuck")], OVER_S, "it is stuck"),
    ],
)
def test_what_the_readings_cannot_tell(more: list[Event], over_s: float | None, words: str) -> None:
    found = measured(letters((2, "G"), (8.5, "R"), (4, "G")), events(*more, over_s=over_s))
    assert found.outcome is Outcome.INVALID
    assert words in found.reason


def test_too_few_readings_tell_nothing() -> None:
    assert measured("", events()).outcome is Outcome.INVALID
    assert measured(letters((5, "G")), events()).outcome is Outcome.INVALID


def test_what_is_no_storm_is_measured_as_ever() -> None:
    assert not is_fault_schedule(fault(2.0))
