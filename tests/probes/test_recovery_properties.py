"""What holds of every recovery, whatever the trace: properties, and a model of a prober whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_traces import HEALER, PERIOD_S, SLO, event, fault, letters, remedy, trace

from monkeyproof.probes.recovery.intervals import impact_index, impact_interval
from monkeyproof.probes.recovery.measurement import measure
from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.record.history import Event, Kind
from monkeyproof.record.readings import Reading, Readings, SignalState
from monkeyproof.types import Outcome, Recovery

RANK = {
    Outcome.ABSORBED: 3,
    Outcome.HEALED: 2,
    Outcome.SELF_RECOVERED: 2,
    Outcome.FAULT_REMOVED: 1,
    Outcome.NOT_RECOVERED: 0,
    Outcome.INVALID: -1,
}
bursts = st.lists(st.tuples(st.sampled_from("GGRTSWU"), st.integers(1, 35)), min_size=1, max_size=8)


def text_of(found: list[tuple[str, int]]) -> str:
    return "G" * 40 + "".join(letter * count for letter, count in found) + "G" * 10


@st.composite
def trials(draw: st.DrawFn) -> tuple[str, list[Event]]:
    text = text_of(draw(bursts))
    end_s = len(text) * PERIOD_S
    held = draw(st.booleans())
    reverted_s = draw(st.floats(2.1, end_s)) if held else None
    return text, [*fault(held=held, reverted_s=reverted_s), *draw(st.sampled_from([[], HEALER]))]


def worse_or_equal(worse: Recovery, better: Recovery) -> bool:
    """By outcome and low end. The high end may move on: of an outage with good answers in it one knows less."""
    if RANK[worse.outcome] > RANK[better.outcome]:
        return False
    if worse.ttr is not None and better.ttr is not None:
        return worse.ttr.low_s >= better.ttr.low_s - 1e-9
    return True


def counts_are_no_better(worse: Recovery, better: Recovery) -> bool:
    return worse.bad_count > better.bad_count and worse.resilience_loss_s >= better.resilience_loss_s - 1e-9


TOLERANT = replace(SLO, objective=0.9)


def test_tolerated_bad_readings_only_widen_the_interval() -> None:
    """A window of 20 may hold two bad ones. They may be noise, or the end of the outage."""
    text = letters((2, "G"), (1, "R")) + "GGGGRGGRG" + letters((3, "G"))
    found = measure(trace(text), [*fault(), *remedy(3.1, 3.3)], TOLERANT)
    assert found.recovered is not None
    assert found.recovered.low_s == pytest.approx(2.95, abs=0.01)  # the last bad one before the window
    # 14 bad and 6 good readings led up to the last tolerated one, so of an outage that is bad with a share of
    # about 0.7 up to 7 more good readings may be luck: the eighth after it counts.
    assert found.recovered.high_s == pytest.approx(3.76, abs=0.02)
    # The remedy began inside the interval, so it cannot be said that the service recovered without it.
    assert found.outcome is Outcome.HEALED


def test_a_bad_reading_at_the_end_of_the_window_is_tolerated() -> None:
    text = letters((2, "G"), (1, "R")) + "G" * 19 + "R" + letters((3, "G"))
    found = measure(trace(text), fault(), TOLERANT)
    assert found.recovered is not None
    assert found.recovered.high_s == pytest.approx(3.0, abs=0.02)


@given(st.text("GR", min_size=1, max_size=60), st.data())
def test_a_better_reading_never_lengthens_a_tolerant_recovery(middle: str, data: st.DataObject) -> None:
    text = letters((2, "G")) + "R" + middle + letters((2, "G"))
    bad = [place for place, letter in enumerate(text) if letter == "R"][1:]
    if bad:
        flipped = data.draw(st.sampled_from(bad))
        before = measure(trace(text), fault(), TOLERANT)
        after = measure(trace(text[:flipped] + "G" + text[flipped + 1 :]), fault(), TOLERANT)
        assert worse_or_equal(before, after)


@given(trials(), st.floats(-1000, 1000))
def test_shifting_time_shifts_times(trial: tuple[str, list[Event]], shift_s: float) -> None:
    text, events = trial
    here = measure(trace(text), events, SLO)
    there = measure(trace(text, at_s=shift_s), [replace(e, t_s=e.t_s + shift_s) for e in events], SLO)
    assert here.outcome is there.outcome
    assert (here.bad_count, here.unknown_count, here.relapses) == (
        there.bad_count,
        there.unknown_count,
        there.relapses,
    )
    for name in ("censored_at_s", "ttd_s", "first_wrong_s", "silent_s", "resilience_loss_s"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), abs=1e-6)
    if here.recovered is not None and there.recovered is not None:
        assert there.recovered.low_s == pytest.approx(here.recovered.low_s + shift_s, abs=1e-6)
        assert there.recovered.high_s == pytest.approx(here.recovered.high_s + shift_s, abs=1e-6)


@given(trials(), st.data())
def test_turning_a_bad_reading_good_never_lengthens_recovery(
    trial: tuple[str, list[Event]], data: st.DataObject
) -> None:
    """Of the readings after impact: without the first bad one it is another outage that is timed."""
    text, events = trial
    before = measure(trace(text), events, SLO)
    schedule = ProbeSchedule.of(trace(text))
    assert schedule is not None
    impact = impact_index(schedule, 2.0)
    bad = [i for i, letter in enumerate(text) if letter in "RTSW" and impact is not None and i > impact]
    if bad:
        flipped = data.draw(st.sampled_from(bad))
        after = measure(trace(text[:flipped] + "G" + text[flipped + 1 :]), events, SLO)
        assert worse_or_equal(before, after)
        assert counts_are_no_better(before, after)


@given(trials(), st.data())
def test_turning_a_good_reading_unknown_never_improves_the_outcome(
    trial: tuple[str, list[Event]], data: st.DataObject
) -> None:
    text, events = trial
    good = [i for i, letter in enumerate(text) if letter == "G"]
    lost = data.draw(st.sets(st.sampled_from(good), min_size=1, max_size=5))
    less = "".join("U" if i in lost else letter for i, letter in enumerate(text))
    assert worse_or_equal(measure(trace(less), events, SLO), measure(trace(text), events, SLO))


@given(st.integers(1, 60), st.integers(1, 19), st.integers(1, 60))
def test_a_flap_shorter_than_the_window_never_ends_an_outage(first: int, flap: int, second: int) -> None:
    text = "G" * 40 + "R" * first + "G" * flap + "R" * second + "G" * 40
    found = measure(trace(text), fault(held=False), SLO)
    truth_s = (first + flap + second) * PERIOD_S
    assert found.ttr is not None
    assert found.ttr.low_s <= truth_s <= found.ttr.high_s


@settings(max_examples=300)
@given(
    st.sampled_from(["dark", "cut", "hang", "release", "slow", "wrong"]),
    st.floats(0.45, 3.0),
    st.floats(0.0, 0.2),
    st.sampled_from([0.0, 0.02]),
    st.integers(0, 2**32 - 1),
)
def test_the_truth_always_lies_in_the_interval(
    how: str, outage_s: float, after_t0_s: float, lost: float, seed: int
) -> None:
    """A model of an open-loop prober, with random latencies, of a service that is bad between two instants."""
    rng = np.random.default_rng(seed)
    t0_s = 1.0 + rng.uniform(0, 0.05)
    began_s = t0_s + after_t0_s
    ended_s = began_s + outage_s
    rows = [probe(how, slot, began_s, ended_s, lost, rng) for slot in range(int((ended_s + 2.5) * 50))]
    readings = Readings.of(rows)
    found = measure(readings, fault(t0_s, held=False), replace(SLO, stable_for_s=0.5))
    if found.outcome is Outcome.INVALID:
        assert found.unknown_count > 0.05 * found.readings_count
        return
    if found.outcome is Outcome.NOT_RECOVERED:
        assert found.unknown_count  # They never left a whole window to prove a recovery by.
        return
    assert found.outcome is Outcome.SELF_RECOVERED, found.reason
    assert found.recovered is not None
    assert found.recovered.low_s < ended_s <= found.recovered.high_s
    schedule = ProbeSchedule.of(readings)
    assert schedule is not None
    impact = impact_index(schedule, t0_s)
    assert impact is not None
    began = impact_interval(schedule, impact, t0_s)
    assert began.low_s <= began_s <= began.high_s
    # The process is dead at once, and its connections end when its memory has been freed.
    gone = service_gone(began_s + rng.uniform(0.0001, 0.03), rng.uniform(0.1, 20.0))
    told = impact_interval(schedule, impact, t0_s, [gone])
    assert told.low_s == began.low_s
    assert began_s <= told.high_s <= began.high_s


def service_gone(t_s: float, proven_after_ms: float) -> Event:
    return event(t_s, Kind.SERVICE_GONE, "127.0.0.1:1", "prober", how="refused", proven_after_ms=proven_after_ms)


def test_a_death_between_two_questions_narrows_the_onset() -> None:
    readings, events = trace(letters((3.0, "G"), (1, "R"), (4, "G"))), fault(2.97, held=False)
    assert "between 0.00 and 0.03 s" in measure(readings, events, SLO).reason
    told = measure(readings, [*events, service_gone(2.98, 0.2)], SLO)
    assert "between 0.00 and 0.01 s" in told.reason
    assert replace(told, reason="") == replace(measure(readings, events, SLO), reason="")


@given(trials(), st.floats(0.0, 9.0), st.floats(0.0, 20.0))
def test_a_death_elsewhere_changes_nothing(
    trial: tuple[str, list[Event]], gone_s: float, proven_after_ms: float
) -> None:
    """Whenever it was seen, nothing but the onset's upper end can move; and that only if it was seen inside."""
    text, events = trial
    gone = service_gone(gone_s, proven_after_ms)
    before, after = measure(trace(text), events, SLO), measure(trace(text), [*events, gone], SLO)
    assert replace(after, reason="") == replace(before, reason="")
    schedule = ProbeSchedule.of(trace(text))
    assert schedule is not None
    if (impact := impact_index(schedule, 2.0)) is None:
        return
    here, there = impact_interval(schedule, impact, 2.0), impact_interval(schedule, impact, 2.0, [gone])
    assert there.low_s == here.low_s <= there.high_s
    inside = here.low_s <= gone_s and gone_s + proven_after_ms / 1000.0 < here.high_s
    assert inside or there == here


def probe(how: str, slot: int, began_s: float, ended_s: float, lost: float, rng: np.random.Generator) -> Reading:
    """What a prober sees of a service that looks at each request at one instant while it is in flight."""
    due_s = slot / 50
    sent_s = due_s + rng.exponential(0.0005)
    took_s = rng.lognormal(math.log(0.01), 1.0) % 0.2
    looked_s = sent_s + rng.uniform(0, 1) * took_s
    nan = float("nan")
    good, bad, unknown = SignalState.GOOD, SignalState.BAD, SignalState.UNKNOWN
    if rng.random() < lost:
        return Reading(slot, due_s, nan, nan, unknown, unknown, unknown, problem="missed")
    answered_s, right = sent_s + took_s, good
    if began_s <= looked_s < ended_s:
        if how == "dark":
            return Reading(slot, due_s, sent_s, looked_s, bad, good, unknown, problem="refused")
        if how in ("hang", "cut"):
            until_s = due_s + 1.0 if how == "hang" else min(ended_s, due_s + 1.0)
            return Reading(slot, due_s, sent_s, until_s, bad, bad, unknown, problem="timeout")
        if how == "release":
            answered_s = ended_s + took_s
        elif how == "slow":
            answered_s += rng.uniform(0.3, 2.0)
        else:
            right = bad
    if answered_s >= due_s + 1.0:
        return Reading(slot, due_s, sent_s, due_s + 1.0, bad, bad, unknown, problem="timeout")
    fast = good if answered_s - due_s <= 0.25 else bad
    return Reading(slot, due_s, sent_s, answered_s, good, fast, right, status=200)
