"""Holding a fault, watching after its revert, and the live view."""

from __future__ import annotations

from pathlib import Path

import pytest
from probe_traces import SLO, FeedingClock, fault, letters, open_trial
from test_steady_state import kinds, last

from monkeyproof.injection.inject import Context
from monkeyproof.probes.follower import events_of
from monkeyproof.probes.recovery.measurement import measure
from monkeyproof.probes.watch import LiveView, hold_until_recovered, live, watch_after_revert
from monkeyproof.record.history import EVENTS_FILE, READINGS_FILE, Kind
from monkeyproof.record.readings import Readings
from monkeyproof.types import Outcome


def at(context: Context, now_s: float) -> None:
    assert isinstance(context.clock, FeedingClock)
    context.clock.go_to(now_s)


def begin(context: Context, *, held: bool = True, effective: bool = True) -> None:
    """A fault at 2 s, proven at 2.05 s."""
    at(context, 2.05)
    for found in fault(2.0, held=held, effective=effective):
        context.history.event(found.kind, found.subject, t_s=found.t_s, **found.data)


@pytest.mark.parametrize(
    ("text", "recovered", "ends_s"),
    [
        (letters((2, "G"), (1, "R"), (9, "G")), True, 4.3),  # Bad until 3 s, steady for 1 s, written 0.2 s later.
        (letters((2, "G"), (1, "T"), (9, "G")), True, 4.3),
        (letters((12, "G")), False, 8.0),  # No user is affected: held to the horizon, 6 s from t0.
        (letters((12, "R")), False, 8.0),
        (letters((2, "G"), (1, "R"), (0.9, "G"), (9, "R")), False, 8.0),
        (letters((2, "G"), (5.5, "R"), (9, "G")), False, 8.0),  # Good again, but the window is not over.
        (letters((2, "G"), (1, "R"), (1, "U"), (9, "R")), False, 8.0),
        (letters((3, "G")), False, 8.0),  # The prober died.
        ("", False, 8.0),
    ],
)
def test_hold(tmp_path: Path, text: str, recovered: bool, ends_s: float) -> None:
    with open_trial(tmp_path, text) as context:
        begin(context)
        found = hold_until_recovered()
        assert found["recovered"] is recovered, found
        assert context.clock.monotonic_s() == pytest.approx(ends_s, abs=0.15)
    phases = [(Kind.PHASE_STARTED, "hold"), (Kind.RECOVERY_SEEN, ""), (Kind.PHASE_ENDED, "hold")]
    assert kinds(tmp_path)[3:] == (phases if recovered else [phases[0], phases[2]])
    assert last(tmp_path, Kind.PHASE_ENDED).data["why"] == found["why"]
    if recovered:
        assert last(tmp_path, Kind.RECOVERY_SEEN).data["good_share"] == 1.0


def test_hold_lasts_at_least_at_least_s(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((2, "G"), (1, "R"), (9, "G"))) as context:
        begin(context)
        assert hold_until_recovered(at_least_s=4.0)["recovered"] is True
        assert context.clock.monotonic_s() == pytest.approx(6.0, abs=0.15)
        assert kinds(tmp_path).count((Kind.RECOVERY_SEEN, "")) == 1


def test_hold_ends_at_its_own_horizon(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((12, "R"))) as context:
        begin(context)
        assert hold_until_recovered(at_most_s=3.0)["recovered"] is False
        assert context.clock.monotonic_s() == pytest.approx(5.0, abs=0.01)


def test_a_dead_observer_ends_hold_and_watch(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((3, "G"))) as context:
        begin(context)
        context.why_blind = lambda: "the prober died" if context.clock.monotonic_s() > 3.5 else ""
        assert hold_until_recovered() == {"recovered": False, "why": "the prober died"}
        assert context.clock.monotonic_s() == pytest.approx(3.6, abs=0.15)
        assert watch_after_revert() == {"steady": False, "why": "the prober died"}
        assert context.clock.monotonic_s() < 4.0


@pytest.mark.parametrize("intended", [False, True])
def test_nothing_is_held_where_no_fault_is_in_effect(tmp_path: Path, intended: bool) -> None:
    with open_trial(tmp_path, letters((12, "G"))) as context:
        if intended:
            begin(context, effective=False)
        before_s = context.clock.monotonic_s()
        assert hold_until_recovered() == {
            "recovered": False,
            "why": "no fault is in effect, so there is nothing to hold",
        }
        assert context.clock.monotonic_s() == before_s


@pytest.mark.parametrize("lag", range(6))
def test_what_ends_a_hold_is_a_recovery_in_the_report(tmp_path: Path, lag: int) -> None:
    """The watcher and the measurement must agree, also when the last answers are still under way."""
    text = "G" * 40 + "R" * (10 + lag) + "G" * 80
    with open_trial(tmp_path, text) as context:
        begin(context)
        assert hold_until_recovered()["recovered"] is True
        at(context, context.clock.monotonic_s() + 0.02)
        for found in fault(2.0, reverted_s=context.clock.monotonic_s()):
            if found.kind is Kind.FAULT_REVERTED:
                context.history.event(found.kind, found.subject, **found.data)
        at(context, 9.0)
    measured = measure(Readings.read(tmp_path / READINGS_FILE), events_of(tmp_path), SLO)
    assert measured.outcome is Outcome.SELF_RECOVERED, measured.reason


@pytest.mark.parametrize(
    ("text", "steady", "ends_s"),
    [
        (letters((4, "R"), (9, "G")), True, 5.3),
        (letters((5, "R"), (9, "G")), True, 6.3),
        (letters((12, "G")), True, 5.3),
        (letters((12, "W")), False, 7.0),
        ("", False, 7.0),
    ],
)
def test_after_the_revert(tmp_path: Path, text: str, steady: bool, ends_s: float) -> None:
    with open_trial(tmp_path, text) as context:
        begin(context)
        at(context, 4.0)
        context.history.event(Kind.FAULT_REVERTED, "part", id="f", fault="noop.nothing", summary="reverted")
        found = watch_after_revert()
        assert found["steady"] is steady, found
        assert context.clock.monotonic_s() == pytest.approx(ends_s, abs=0.15)
    assert kinds(tmp_path)[-2:] == [(Kind.PHASE_STARTED, "after_revert"), (Kind.PHASE_ENDED, "after_revert")]


def test_at_least_one_whole_window_is_watched(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((12, "G"))) as context:
        begin(context)
        assert watch_after_revert(at_most_s=0.1)["steady"] is True
        assert context.clock.monotonic_s() >= 3.05


def test_they_never_raise(tmp_path: Path) -> None:
    assert hold_until_recovered()["recovered"] is False
    assert watch_after_revert()["steady"] is False
    with open_trial(tmp_path, letters((9, "G"))) as context:
        begin(context)
        with (tmp_path / EVENTS_FILE).open("ab") as file:
            file.write(b"this is not an event\n")
        assert "the readings could not be read" in hold_until_recovered()["why"]
        assert "the readings could not be read" in watch_after_revert()["why"]


def test_live_view_of_nothing(tmp_path: Path) -> None:
    assert live(tmp_path) == LiveView()


def test_live_view(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((2, "G"), (9, "R"))) as context:
        context.history.event(Kind.PHASE_STARTED, "inject")
        begin(context)
        context.history.event(Kind.PHASE_STARTED, "hold")
        at(context, 2.72)
        view = live(tmp_path)
        assert (view.phase, view.faults) == ("hold", ("noop.nothing on part",))
        assert view.good_share == pytest.approx(0.5, abs=0.06)  # Of the last second, half a second was good.
        assert view.latency_p50_ms == pytest.approx(10, abs=10)
        assert view.elapsed_s == pytest.approx(2.5, abs=0.06)
        context.history.event(Kind.FAULT_REVERTED, "part", id="f", fault="noop.nothing", summary="reverted")
        at(context, 5.0)
        assert live(tmp_path).faults == ()
        assert live(tmp_path).good_share == 0.0


def test_live_view_shows_a_kill_until_the_hold_is_over(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((2, "G"), (9, "U"))) as context:
        begin(context, held=False)
        assert live(tmp_path).faults == ("noop.nothing on part",)
        context.history.event(Kind.PHASE_ENDED, "hold", why="")
        assert live(tmp_path).faults == ()
