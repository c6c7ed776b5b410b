"""The steady state, on readings that appear as time passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from probe_traces import fault, letters, open_trial

from monkeyproof.history import READINGS_FILE, Event, Kind
from monkeyproof.injection import Context
from monkeyproof.probes.following import events_of
from monkeyproof.probes.steady_state import slo_holds


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


def test_the_window_begins_after_the_call_and_is_wholly_seen(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((9, "G"))) as context:
        context.clock.go_to(3.0)  # type: ignore[attr-defined]
        assert slo_holds(window_s=2.0)
        assert 5.0 <= context.clock.monotonic_s() <= 5.4
    assert last(tmp_path, Kind.BASELINE_MET).data["window_s"] == 2.0


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
    assert "could not look" in last(tmp_path, Kind.BASELINE_MISSED).data["why"]
