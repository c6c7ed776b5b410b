"""The last window of readings that a steady-state probe reads, on readings that appear as time passes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from probe_traces import event, letters, open_trial

from monkeyproof.errors import Refusal
from monkeyproof.injection.inject import Context
from monkeyproof.probes.window import GRACE_S, last_window
from monkeyproof.record.history import Kind


def go_to(context: Context, at_s: float, watched_from_s: float | None = 0.0) -> None:
    context.clock.go_to(at_s)  # type: ignore[attr-defined]
    context.watched_from_s = watched_from_s


def test_the_window_is_the_last_one_before_the_call(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((2.9, "R"), (9, "G"))) as context:
        go_to(context, 4.0)
        found = last_window()
        assert context.clock.monotonic_s() < 4.4, "only the newest readings are awaited"
    assert (found.begin_s, found.end_s, found.due_count, len(found.readings)) == (3.0, 4.0, 20, 20)
    assert (found.good_share, found.unknown_share) == (1.0, 0.0)
    assert found.latency_ms == pytest.approx(np.full(20, 10.1))
    assert found.readings.scheduled_s[0] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("watched_from_s", "reverted_s", "begin_s"), [(3.6, None, 3.6), (None, None, 4.0), (0.0, 3.5, 3.5)]
)
def test_the_window_reaches_back_no_further_than_the_steady_state(
    tmp_path: Path, watched_from_s: float | None, reverted_s: float | None, begin_s: float
) -> None:
    with open_trial(tmp_path, letters((begin_s, "R"), (9, "G"))) as context:
        go_to(context, 4.0, watched_from_s)
        if reverted_s is not None:
            reverted = event(reverted_s, Kind.FAULT_REVERTED)
            context.history.event(reverted.kind, t_s=reverted.t_s)
        found = last_window()
    assert found.begin_s == pytest.approx(begin_s)
    assert found.good_share == 1.0
    assert len(found.readings) == 20


def test_the_window_can_be_longer_than_the_baseline(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((9, "G"))) as context:
        go_to(context, 4.0)
        assert last_window(2.5).due_count == 50


def test_readings_without_an_answer_are_infinitely_late(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((3, "G")) + "GWSRTU" + " " + letters((9, "G"))) as context:
        go_to(context, 4.0)
        found = last_window()
    assert len(found.readings) == 19, "one was never written"
    assert found.due_count == 20
    assert int(np.isinf(found.latency_ms).sum()) == 4, "refused, timed out, never sent, never written"
    assert sorted(found.latency_ms[np.isfinite(found.latency_ms)])[-1] == pytest.approx(500.1)
    assert found.good_share == pytest.approx(14 / 20)
    assert found.unknown_share == pytest.approx(2 / 20)


def test_a_prober_that_ended_leaves_readings_missing(tmp_path: Path) -> None:
    with open_trial(tmp_path, letters((3.5, "G"))) as context:
        go_to(context, 4.0)
        found = last_window()
        assert context.clock.monotonic_s() == pytest.approx(4.0 + 1.0 + GRACE_S, abs=0.1)
    assert (found.due_count, len(found.readings)) == (20, 10)
    assert found.unknown_share == pytest.approx(0.5)
    assert int(np.isinf(found.latency_ms).sum()) == 10


def test_without_any_readings_all_is_unknown(tmp_path: Path) -> None:
    with open_trial(tmp_path, "") as context:
        go_to(context, 4.0)
        found = last_window()
    assert (found.due_count, len(found.readings), found.good_share, found.unknown_share) == (20, 0, 0.0, 1.0)
    assert math.isinf(float(np.percentile(found.latency_ms, 99, method="lower")))


def test_without_a_trial_there_are_no_readings() -> None:
    with pytest.raises(Refusal, match="no trial is open"):
        last_window()
