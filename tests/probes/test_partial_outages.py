"""The end of an outage in which some answers are good: the interval has to hold it, and to say what it can."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from probe_traces import fault, letters, trace

from monkeyproof.config.target_file import Slo
from monkeyproof.probes.recovery.intervals import recovered_interval
from monkeyproof.probes.recovery.measurement import measure
from monkeyproof.probes.recovery.windows import ProbeSchedule, lasting_by
from monkeyproof.record.readings import SignalState

RATE_PER_S = 50.0
SLO = Slo(latency_ms=250.0, objective=0.99, stable_for_s=2.0)
Flags = NDArray[np.bool_]


def by_chance(share: float) -> Callable[[int, np.random.Generator], Flags]:
    return lambda count, rng: rng.random(count) < share


def in_turn(pattern: str) -> Callable[[int, np.random.Generator], Flags]:
    """A balancer that sends the requests round: one replica, or all but one, is broken."""
    bad = np.array([letter == "B" for letter in pattern])
    return lambda count, rng: np.resize(np.roll(bad, rng.integers(len(bad))), count)


PARTIAL = {
    **{f"{share:.0%} are bad": by_chance(share) for share in (0.1, 0.3, 0.5, 0.9)},
    "1 of 3 in turn": in_turn("BGG"),
    "2 of 3 in turn": in_turn("BBG"),
}


def slots_of(bad: Flags) -> ProbeSchedule:
    n = len(bad)
    scheduled_s = np.arange(n) / RATE_PER_S
    good = np.where(bad, SignalState.BAD, SignalState.GOOD).astype(np.int8)
    return ProbeSchedule(
        1 / RATE_PER_S,
        np.ones(n, np.bool_),
        scheduled_s,
        scheduled_s + 0.0001,
        scheduled_s + 0.002,
        good,
        good,
        np.zeros(n, np.int8),
    )


@pytest.mark.parametrize("name", PARTIAL)
def test_the_interval_holds_the_end_of_a_partial_outage(name: str) -> None:
    rng = np.random.default_rng(7)
    held, widths_s, tries = 0, [], 1500
    for _ in range(tries):
        began_s = 1.0 + rng.uniform(0, 1 / RATE_PER_S)
        ended_s = began_s + rng.uniform(1.0, 4.0)
        begin, end = math.ceil(began_s * RATE_PER_S), math.ceil(ended_s * RATE_PER_S)
        bad = np.zeros(end + 300, np.bool_)
        bad[begin:end] = PARTIAL[name](end - begin, rng)
        schedule = slots_of(bad)
        start = lasting_by(schedule, SLO, int(np.argmax(bad)), math.inf)
        assert start is not None
        found = recovered_interval(schedule, SLO, start, began_s)
        held += found.low_s < ended_s <= found.high_s
        widths_s.append(found.width_s)
    assert held >= 0.99 * tries
    assert max(widths_s) <= SLO.stable_for_s + 2 / RATE_PER_S
    if "90%" in name:
        assert np.median(widths_s) < 0.2  # Not bought by saying nothing.


def test_a_total_outage_is_known_to_one_period() -> None:
    schedule = slots_of(np.arange(400) // 100 == 1)
    assert recovered_interval(schedule, SLO, 200, 2.0).width_s == pytest.approx(1 / RATE_PER_S + 0.0019)


def test_the_interval_ends_within_the_proving_window() -> None:
    """One in twenty is bad: a window of two seconds cannot tell the end of that."""
    schedule = slots_of((np.arange(600) % 20 == 10) & (np.arange(600) < 400))
    start = lasting_by(schedule, SLO, 10, math.inf)
    assert start == 371  # One bad one in a hundred is tolerated: the last, which is at 390.
    found = recovered_interval(schedule, SLO, start, 0.0)
    assert found.high_s == pytest.approx(schedule.finished_s[start + 99])


def test_the_healthy_time_before_a_relapse_does_not_blur_its_end() -> None:
    text = letters((2, "G"), (1, "R"), (1.5, "G"), (0.5, "R"), (4, "G"))
    found = measure(trace(text), fault(held=False), Slo(latency_ms=250.0, objective=0.99, stable_for_s=1.0))
    assert found.relapses == 1
    assert found.recovered is not None
    assert found.recovered.width_s < 0.07
