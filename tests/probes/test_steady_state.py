"""The steady state, on readings that appear as time passes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from probe_traces import fault, letters, open_trial

from monkeyproof.injection.inject import Context
from monkeyproof.probes.follower import events_of
from monkeyproof.probes.steady_state import enough_count, slo_holds
from monkeyproof.record.history import READINGS_FILE, Event, Kind


def kinds(folder: Path) -> list[tuple[Kind, str]]:
    return [(event.kind, event.subject) for event in events_of(folder)]


def last(folder: Path, kind: Kind) -> Event:
    return [event for event in events_of(folder) if event.kind is kind][-1]


def begin_fault(context: Context) -> None:
    for event in fault(context.clock.monotonic_s(), baseline=False):
        context.history.event(event.kind, event.subject, **event.data)


@pytest.mark.parametrize(
    ("text", "holds", "why"),
    [
        (letters((9, "G")), True, "100.0% of 20 readings were good"),
        (letters((9, "D")), True, "100.0%"),
        (letters((1, "R"), (9, "G")), True, "100.0%"),  # What was before the call does not matter.
        (letters((9, "R")), False, "only 0.0% of 20 readings were good; 99.0% are needed"),
        ("G" * 25 + "W" + "G" * 99, False, "only 95.0%"),
        ("G" * 25 + "T" + "G" * 99, False, "only 95.0%"),
        ("G" * 25 + "U" * 2 + "G" * 99, False, "(10% are unknown)"),
        ("G" * 25 + " " * 2 + "G" * 99, False, "(10% are unknown)"),
        (
            letters((1.5, "G")),
            False,
            "only 50.0% of 20 readings were good; 99.0% are needed (50% are unknown)",
        ),  # The prober died.
        ("", False, "no readings for 6 s: is the prober running?"),
    ],
)
def test_baseline(tmp_path: Path, text: str, holds: bool, why: str) -> None:
    with open_trial(tmp_path, text) as context:
        context.clock.go_to(1.0)  # type: ignore[attr-defined]
        assert slo_holds() is holds
        assert context.clock.monotonic_s() < 9.0
    met = Kind.BASELINE_MET if holds else Kind.BASELINE_MISSED
    assert kinds(tmp_path) == [(Kind.PHASE_STARTED, "baseline"), (met, ""), (Kind.PHASE_ENDED, "baseline")]
    assert why in last(tmp_path, Kind.PHASE_ENDED).data["why"]
    assert last(tmp_path, met).data["window_s"] == 1.0
    assert (last(tmp_path, met).data["good_share"] >= 0.99) is holds


def test_the_window_begins_after_the_call(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((9, "G"))) as context:
        context.clock.go_to(3.0)  # type: ignore[attr-defined]
        assert slo_holds(window_s=2.0)
        assert 5.0 <= context.clock.monotonic_s() <= 5.4
    assert last(tmp_path, Kind.BASELINE_MET).data["window_s"] == 2.0


@pytest.mark.parametrize(
    ("text", "watched_from_s", "began_s", "holds"),
    [
        (letters((9, "G")), 1.0, 2.85, True),  # The last second that is written.
        (letters((2.8, "R"), (9, "G")), 1.0, 2.85, True),  # What was before it does not matter,
        (letters((3.85, "G"), (9, "R")), 1.0, 2.85, True),  # nor what comes after it.
        (letters((3.5, "G"), (0.1, "R"), (9, "G")), 1.0, 2.85, False),  # One that is not good: no other is tried.
        (letters((9, "G")), 3.4, 3.4, True),  # Nothing from before the target was reset, or loaded.
        (letters((3.45, "R"), (9, "G")), 3.4, 3.4, False),
        ("", 1.0, 1.0, False),
    ],
)
def test_the_window_that_has_just_passed_is_the_baseline(
    tmp_path: Path, text: str, watched_from_s: float, began_s: float, holds: bool
) -> None:
    with open_trial(tmp_path, text) as context:
        context.clock.go_to(4.0)  # type: ignore[attr-defined]
        context.watched_from_s = watched_from_s
        assert slo_holds() is holds
        took_s = context.clock.monotonic_s() - 4.0
    began = last(tmp_path, Kind.PHASE_STARTED)
    assert began.t_s == pytest.approx(began_s, abs=0.051)
    if text:
        assert took_s == pytest.approx(max(0.0, began.t_s + 1.25 - 4.0), abs=0.1)


@pytest.mark.parametrize(
    ("objective", "count"), [(0.5, 100), (0.95, 100), (0.99, 299), (0.999, 2995), (1.0, math.inf)]
)
def test_how_many_good_readings_are_enough(objective: float, count: float) -> None:
    assert enough_count(objective) == count
    # A service just below the objective would pass that often at most.
    assert objective**count <= 0.05 or objective == 1.0


def ask_for_less(context: Context) -> None:
    """An objective that a hundred good readings show: five seconds of them, at 20 a second."""
    file = context.target.file
    context.target.file = replace(file, slo=replace(file.slo, objective=0.9))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "ends_s", "readings"),
    [
        (letters((9, "G")), 6.0, 100),
        ("G" * 60 + "W" + "G" * 199, 8.0, 140),  # One that is not good, or not known: all of the window.
        ("G" * 60 + "U" + "G" * 199, 8.0, 140),
        ("G" * 60 + " " + "G" * 199, 8.0, 140),
    ],
)
def test_a_baseline_ends_early_when_readings_are_plentiful(
    tmp_path: Path, text: str, ends_s: float, readings: int
) -> None:
    with open_trial(tmp_path, text) as context:
        ask_for_less(context)
        context.clock.go_to(1.0)  # type: ignore[attr-defined]
        assert slo_holds(window_s=7.0)
        assert context.clock.monotonic_s() == pytest.approx(ends_s + 0.25, abs=0.1)
    met = last(tmp_path, Kind.BASELINE_MET).data
    assert met["readings"] == pytest.approx(readings, abs=1)
    assert met["window_s"] == pytest.approx(met["readings"] / 20)


def test_a_cool_down_takes_its_whole_window(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((9, "G"))) as context:
        ask_for_less(context)
        begin_fault(context)
        context.watched_from_s = 0.0
        context.clock.go_to(1.0)  # type: ignore[attr-defined]
        assert slo_holds(window_s=7.0)
        assert context.clock.monotonic_s() >= 8.0


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (letters((9, "G")), True),
        (letters((1.5, "G"), (0.4, "R"), (9, "G")), True),  # Good for a window that begins within one window.
        (letters((1.5, "G"), (1.0, "R"), (9, "G")), False),  # Good only later than that.
        (letters((9, "W")), False),
    ],
)
def test_cool_down_takes_a_later_window_too(tmp_path: Path, text: str, holds: bool) -> None:
    with open_trial(tmp_path, text) as context:
        begin_fault(context)
        context.clock.go_to(1.0)  # type: ignore[attr-defined]
        assert slo_holds() is holds
        assert context.clock.monotonic_s() < 4.0
    assert kinds(tmp_path)[2:] == [(Kind.PHASE_STARTED, "cool_down"), (Kind.PHASE_ENDED, "cool_down")]


def test_it_never_raises(tmp_path: Path) -> None:
    assert slo_holds() is False  # No trial is open.
    with open_trial(tmp_path, letters((9, "G"))):
        (tmp_path / READINGS_FILE).unlink()
        (tmp_path / READINGS_FILE).mkdir()
        assert slo_holds() is False
    assert "the readings could not be read" in last(tmp_path, Kind.BASELINE_MISSED).data["why"]
