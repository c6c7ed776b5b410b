"""Bins, stories and the drawing made of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_campaign import broken_rollback, corrupt_records, feature_store_outage, replica_kill
from samples import T0_S, Plan, detected, write_trial

from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.config.target_file import RecoveryObjective, Slo
from monkeyproof.errors import UsageError
from monkeyproof.record.history import READINGS_FILE, TRIAL_FILE, History, HistoryWriter, Kind, write_json
from monkeyproof.record.readings import Reading, Readings, ReadingsWriter, SignalState
from monkeyproof.reports.charts.bins import LIMIT, bin_readings
from monkeyproof.reports.charts.svg import LabelRows, TimeAxis, steps_path
from monkeyproof.reports.charts.timeline import draw
from monkeyproof.reports.model import trial_timeline
from monkeyproof.types import Outcome, TrialResult

SLO_TYPED = Slo(recovery=RecoveryObjective())
NAMES = {"svg": "http://www.w3.org/2000/svg"}


def reading(slot: int, at_s: float, correct: SignalState = SignalState.GOOD, **more: object) -> Reading:
    row = Reading(slot, at_s, at_s, at_s + 0.004, SignalState.GOOD, SignalState.GOOD, correct, False, 200, "1")
    return replace(row, **more)  # type: ignore[arg-type]


def parse(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)


def looks(root: ElementTree.Element, look: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if look in element.get("class", "").split()]


def titles(root: ElementTree.Element) -> str:
    return " | ".join(title.text or "" for title in root.findall(".//svg:title", NAMES))


def drawn(folder: Path, plan: Plan, seed: int = 1) -> tuple[TrialResult, ElementTree.Element]:
    trial = write_trial(folder, plan, seed, 0)
    return trial, parse(draw(trial, folder, SLO_TYPED))


def test_bins_count_every_reading_once_and_show_gaps() -> None:
    rows = [
        reading(slot, slot * 0.1, SignalState.BAD if slot in (3, 4) else SignalState.GOOD) for slot in range(10)
    ]
    rows += [reading(slot, slot * 0.1) for slot in range(30, 35)]  # Nothing for two seconds.
    bins = bin_readings(Readings.of(rows), 0.0)
    assert bins is not None
    assert bins.width_s == 0.25
    assert int(bins.known.sum()) == 15
    assert int(bins.wrong.sum()) == 2
    assert (bins.known == 0).sum() == 8
    assert np.isnan(bins.max_ms[bins.known == 0]).all()
    assert bins.versions[0] == ("1",)
    assert bins.versions[5] == ()


def test_an_edge_of_the_bins_is_t0() -> None:
    bins = bin_readings(Readings.of([reading(slot, 0.03 + slot * 0.1) for slot in range(50)]), 2.613)
    assert bins is not None
    assert min(abs(bins.starts_s - 2.613)) < 1e-9


def test_unsent_probe_is_unknown() -> None:
    gone = reading(
        0, 0.1, SignalState.UNKNOWN, sent_s=float("nan"), finished_s=float("nan"), available=SignalState.UNKNOWN
    )
    bins = bin_readings(Readings.of([gone]), 0.0)
    assert bins is not None
    assert (int(bins.unknown[0]), int(bins.known[0]), int(bins.unanswered[0])) == (1, 0, 0)
    assert np.isnan(bins.p50_ms[0])


def test_no_readings_no_bins() -> None:
    assert bin_readings(Readings.of([]), 0.0) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.floats(-10, 10))
def test_bins_are_bounded_whatever_the_times(at_s: list[float], origin_s: float) -> None:
    rows = [reading(slot, when) for slot, when in enumerate(sorted(at_s))]
    bins = bin_readings(Readings.of(rows), origin_s)
    assert bins is not None
    assert len(bins) <= LIMIT + 2
    assert int(bins.known.sum()) == len(at_s)


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(1, 200)), max_size=30))
def test_labels_in_a_row_never_overlap(labels: list[tuple[float, float]]) -> None:
    rows = LabelRows(limit=5)
    for left, wide in labels:
        rows.place(left, left + wide)
    assert len(rows.ends) <= 5
    for row in rows.ends:
        ordered = sorted(row)
        assert all(before[1] <= after[0] for before, after in pairwise(ordered))


def test_staircases_break_where_nothing_is_known() -> None:
    path = steps_path([0, 10, 20, 30, 40], [5.0, 5.0, float("nan"), 7.0], None)
    assert path == "M0,5H20M30,7H40"
    assert steps_path([0, 10, 20], [5.0, 3.0], 9.0) == "M0,5H10V3H20V9H0Z"


def test_ticks_are_few_and_count_from_t0() -> None:
    scale = TimeAxis(0.0, 25.0, 0.0, 100.0)
    ticks = scale.ticks_s(2.6)
    assert 0.0 in ticks
    assert len(ticks) <= 15
    assert all(0 <= 2.6 + tick <= 25 for tick in ticks)


def test_a_healed_trial(tmp_path: Path) -> None:
    trial, root = drawn(tmp_path, corrupt_records("elephant", 1))
    assert root.get("role") == "img"
    assert "corrupt-records, arm elephant, seed 1: healed" in root.get("aria-label", "")
    for look in ("tl-fault-shade", "tl-recovered", "tl-action", "tl-detected", "tl-diagnosed", "tl-resolved"):
        assert looks(root, look), look
    assert "data.corrupt on source->pipeline" in titles(root)
    assert "148 of 1,480 records changed" in titles(root)
    totals = [element.text for element in looks(root, "tl-total")]
    assert str(trial.recovery.wrong_count) in totals
    (shade,) = looks(root, "tl-fault-shade")
    (maybe,) = [element for element in looks(root, "tl-maybe") if float(element.get("height", "0")) > 100]
    # Hatched from intent to evidence, then shaded: the one begins where the other ends.
    assert float(maybe.get("x", "0")) + float(maybe.get("width", "0")) == pytest.approx(
        float(shade.get("x", "0")), abs=0.2
    )


def test_the_recovery_band_is_where_recovery_was(tmp_path: Path) -> None:
    trial, root = drawn(tmp_path, corrupt_records("elephant", 1))
    recovered, bins_end_s = trial.recovery.recovered, trial.recovery.end_s
    assert recovered is not None
    assert bins_end_s is not None
    (band,) = [element for element in looks(root, "tl-recovered") if element.tag.endswith("rect")]
    share = (float(band.get("x", "0")) - 114) / (944 - 114)
    first_s = T0_S - 0.25 * 11  # The bins begin on a step from t0, at or before the first reading.
    assert first_s + share * (bins_end_s - first_s) == pytest.approx(recovered.low_s, abs=0.15)


def test_a_one_shot_fault_is_not_shaded(tmp_path: Path) -> None:
    _, root = drawn(tmp_path, replica_kill("none", 1))
    assert not looks(root, "tl-fault-shade")
    assert "one shot" in "".join(root.itertext())
    assert "no healer ran in this arm" in "".join(root.itertext())


def test_unreverted_fault_is_open(tmp_path: Path) -> None:
    plan = replace(feature_store_outage("none", 1), not_reverted=("the proxy does not answer",))
    _, root = drawn(tmp_path, plan)
    (shade,) = looks(root, "tl-fault-shade")
    assert float(shade.get("x", "0")) + float(shade.get("width", "0")) == pytest.approx(944, abs=0.2)
    assert "never reverted" in "".join(root.itertext())


def test_an_unproven_fault_is_never_shaded(tmp_path: Path) -> None:
    plan = replace(corrupt_records("none", 1), outcome=Outcome.INVALID, recovered_s=None)
    _, root = drawn(tmp_path, plan)
    assert not looks(root, "tl-fault-shade")
    assert not looks(root, "tl-fault-bar")
    assert "not proven" in "".join(root.itertext())


def test_failed_actions_and_escalations_look_different(tmp_path: Path) -> None:
    _, root = drawn(tmp_path, broken_rollback("elephant", 4))
    assert len(looks(root, "tl-failed")) == 2
    assert looks(root, "tl-escalated")
    assert not looks(root, "tl-action")
    assert {"v1", "v3"} <= {element.text for element in looks(root, "tl-on-version")}


def test_a_drawing_can_stand_alone(tmp_path: Path) -> None:
    trial = write_trial(tmp_path, corrupt_records("elephant", 1), 1, 0)
    alone = draw(trial, tmp_path, SLO_TYPED, standalone=True)
    assert "<style>" in alone
    assert "--good:" in alone
    assert "<style>" not in draw(trial, tmp_path, SLO_TYPED)
    parse(alone)


def test_foreign_text_is_escaped(tmp_path: Path) -> None:
    plan = replace(
        corrupt_records("elephant", 1),
        steps=[(1.0, Kind.HEALER_DETECTED, '"><script>', {"signal": "\x00\x1b[31mred</text>", "summary": "a&b"})],
        versions=((-10.0, "</svg>\ud800"[:6]),),
        reason="<b>",
    )
    _, root = drawn(tmp_path, plan)
    assert not root.findall(".//svg:script", NAMES)
    assert 'saw red</text>: "><script>' in "".join(root.itertext())


def test_a_crowd_of_steps_keeps_its_height(tmp_path: Path) -> None:
    steps = [detected(1 + number * 0.01, "slow", f"replica-{number}", "it is slow") for number in range(100)]
    _, root = drawn(tmp_path, replace(corrupt_records("elephant", 1), steps=steps))
    assert len(looks(root, "tl-detected")) == 100
    assert float(root.get("viewBox", "").split()[3]) < 520


def test_folder_without_a_history(tmp_path: Path) -> None:
    trial = write_trial(tmp_path, corrupt_records("elephant", 1), 1, 0)
    with pytest.raises(UsageError, match="not a trial's history"):
        draw(trial, tmp_path / "elsewhere", SLO_TYPED)
    ReadingsWriter(tmp_path / trial.folder / READINGS_FILE).close()
    with pytest.raises(UsageError, match="not one reading"):
        draw(trial, tmp_path, SLO_TYPED)


def history(folder: Path, *events: tuple[float, Kind, str, dict[str, object]]) -> History:
    write_json(folder / TRIAL_FILE, {"version": 1})
    writer = HistoryWriter(folder, Anchor(0.0, ""), "elephant", ManualClock())
    for t_s, kind, subject, data in events:
        writer.event(kind, subject, t_s=t_s, **data)
    writer.close()
    return History.read(folder)


def test_actions_are_joined_with_their_own_end(tmp_path: Path) -> None:
    trial_history = history(
        tmp_path,
        (1.0, Kind.HEALER_ACTING, "replica-1", {"remedy": "drain"}),
        (1.1, Kind.HEALER_ACTING, "replica-2", {"remedy": "drain"}),
        (1.5, Kind.HEALER_ACTED, "replica-2", {"remedy": "drain", "ok": True}),
        (2.0, Kind.HEALER_ACTED, "replica-1", {"remedy": "drain", "ok": False}),
        (3.0, Kind.HEALER_ACTING, "replica-1", {"remedy": "restart"}),
    )
    found = [(step.label, step.start_s, step.end_s, step.ok) for step in trial_timeline.steps(trial_history)]
    assert found == [
        ("drain: replica-1", 1.0, 2.0, False),
        ("drain: replica-2", 1.1, 1.5, True),
        ("restart: replica-1", 3.0, None, None),
    ]


def test_faults_are_matched_by_id(tmp_path: Path) -> None:
    trial_history = history(
        tmp_path,
        (1.0, Kind.FAULT_INTENDED, "a", {"id": "1", "fault": "x.y", "held": True}),
        (1.2, Kind.FAULT_EFFECTIVE, "a", {"id": "1", "summary": "seen"}),
        (1.3, Kind.FAULT_INTENDED, "b", {"id": "2", "fault": "x.z", "held": False}),
        (1.9, Kind.FAULT_UNPROVEN, "b", {"id": "2", "why": "nothing"}),
        (4.0, Kind.FAULT_REVERTED, "a", {"id": "1"}),
        (9.0, Kind.FAULT_REVERTED, "a", {"id": "1"}),
        (9.0, Kind.FAULT_REVERTED, "?", {"id": "unheard of"}),
    )
    one, two = trial_timeline.faults(trial_history)
    assert (one.intended_s, one.effective_s, one.reverted_s, one.evidence) == (1.0, 1.2, 4.0, "seen")
    assert (two.effective_s, two.held, two.trouble) == (None, False, "not proven: nothing")


def test_troubles_of_the_trial(tmp_path: Path) -> None:
    trial_history = history(
        tmp_path,
        (1.0, Kind.BASELINE_MISSED, "", {"why": "0.93 good"}),
        (2.0, Kind.TRIAL_ABORTED, "", {"why": "interrupted"}),
    )
    assert trial_timeline.troubles(trial_history) == (
        "The baseline was missed: 0.93 good",
        "The trial was aborted: interrupted",
    )


def test_a_phase_without_an_end_lasts_until_the_next(tmp_path: Path) -> None:
    trial_history = history(
        tmp_path,
        (1.0, Kind.PHASE_STARTED, "baseline", {}),
        (2.0, Kind.PHASE_STARTED, "hold", {}),
        (3.0, Kind.PHASE_ENDED, "hold", {}),
        (3.5, Kind.PHASE_STARTED, "revert", {}),
    )
    found = [(phase.name, phase.start_s, phase.end_s) for phase in trial_timeline.phases(trial_history)]
    assert found == [("baseline", 1.0, 2.0), ("hold", 2.0, 3.0), ("revert", 3.5, None)]


def test_lane_of_absences(tmp_path: Path) -> None:
    trial, root = drawn(tmp_path, replica_kill("none", 1))
    assert "no connection from" not in titles(root)
    writer = HistoryWriter(tmp_path / trial.folder, Anchor(0.0, ""), "prober", ManualClock())
    writer.event(Kind.SERVICE_GONE, t_s=T0_S + 0.2, how="refused", proven_after_ms=0.3)
    writer.event(Kind.SERVICE_REACHABLE, t_s=T0_S + 0.9)
    writer.event(Kind.SERVICE_GONE, t_s=T0_S + 1.5, how="<refused>", proven_after_ms=0.3)
    writer.close()
    root = parse(draw(trial, tmp_path, SLO_TYPED))
    assert "no connection from 0.20 s to 0.90 s: refused" in titles(root)
    assert "to the end: <refused>" in titles(root)
