"""Signals over windows: what is a finding, what is not, and that missing data is neither."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof.healing.detect import Detection, Signal, detect
from monkeyproof.healing.reference import Band, TargetReference, batches, grown_by, learn
from monkeyproof.healing.samples import CanaryResult, Metrics, ReplicaSample, Sample

REFERENCE = TargetReference(
    8, 1.0, "3", {"": 100.0, "replica-1": 100.0, "replica-2": 100.0}, 6.0, 0.02, True, {"f1": Band(40.0, 5.0)}
)
WELL = CanaryResult(right=8, latency_ms=5.0, versions=frozenset({"3"}))
SLOW = CanaryResult(right=8, latency_ms=700.0, versions=frozenset({"3"}))
FAILED = CanaryResult(failed=1, latency_ms=1.0, why="HTTP 502")
NOTHING = CanaryResult()


def replica(
    name: str, canary: CanaryResult = WELL, metrics: Metrics | None = None, **changes: object
) -> ReplicaSample:
    one = ReplicaSample(name, "ready", False, 1, canary, {} if metrics is None else metrics)
    return replace(one, **changes)  # type: ignore[arg-type]


def sample(number: int, gateway: CanaryResult = WELL, *seen: ReplicaSample, **changes: object) -> Sample:
    pipeline = {"pipeline_records_total": 150.0 * number, "pipeline_feature_out_of_range_share": 0.0}
    shown = seen or (replica("replica-1"), replica("replica-2"))
    one = Sample(number * 0.25, gateway, {r.name: r for r in shown}, pipeline, True)
    return replace(one, **changes)  # type: ignore[arg-type]


def signals(window: list[Sample]) -> set[tuple[str, str]]:
    return {(one.signal.value, one.subject) for one in detect(window, REFERENCE)}


def test_all_well_is_no_finding() -> None:
    assert detect([sample(n) for n in range(16)], REFERENCE) == ()
    assert detect([], REFERENCE) == ()


@pytest.mark.parametrize(
    ("gateways", "expected"),
    [
        ([SLOW, SLOW, SLOW, SLOW], {("canary_latency", "gateway")}),
        ([WELL, SLOW, SLOW, SLOW], {("canary_latency", "gateway")}),
        ([SLOW, SLOW, SLOW, WELL], set()),
        ([WELL, WELL, SLOW, SLOW], set()),
        ([WELL, SLOW, NOTHING, SLOW], set()),
        ([WELL, WELL, FAILED, FAILED], {("canary_errors", "gateway")}),
        ([WELL, WELL, WELL, FAILED], set()),
        ([WELL, FAILED, FAILED, FAILED], {("canary_errors", "gateway"), ("canary_latency", "gateway")}),
    ],
)
def test_the_gateway(gateways: list[CanaryResult], expected: set[tuple[str, str]]) -> None:
    assert signals([sample(n, gateway) for n, gateway in enumerate(gateways)]) == expected


@pytest.mark.parametrize(
    ("right", "wrong", "found"), [(64, 0, False), (62, 2, False), (58, 6, True), (10, 5, False), (0, 16, True)]
)
def test_accuracy(right: int, wrong: int, found: bool) -> None:
    window = [sample(0, CanaryResult(right=right, wrong=wrong, latency_ms=5.0), replica("replica-1", NOTHING))]
    assert (("canary_accuracy", "predictions") in signals(window)) is found


def test_a_new_version_is_a_finding_only_with_wrong_answers() -> None:
    released = CanaryResult(right=8, latency_ms=5.0, versions=frozenset({"4"}))
    wrong = replace(released, right=2, wrong=6)
    assert signals([sample(n, released) for n in range(4)]) == set()
    found = signals([sample(n, wrong, replica("replica-1", wrong)) for n in range(4)])
    assert found == {("canary_accuracy", "predictions"), ("champion_changed", "model")}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (replica("replica-1"), replica("replica-2", SLOW), {("replica_slow", "replica-2")}),
        (replica("replica-1"), replica("replica-2", FAILED), {("replica_slow", "replica-2")}),
        (replica("replica-1"), replica("replica-2", SLOW, drained=True), set()),
        (replica("replica-1", SLOW), replica("replica-2", SLOW), set()),
        (replica("replica-1"), replica("replica-2", FAILED, state="down"), {("replica_down", "replica-2")}),
        (replica("replica-1"), replica("replica-2", FAILED, state="backing_off"), {("replica_down", "replica-2")}),
        (replica("replica-1"), replace(replica("replica-2", SLOW), metrics=None), set()),
        (
            replica("replica-1"),
            replace(replica("replica-2", FAILED), metrics=None),
            {("replica_down", "replica-2")},
        ),
    ],
)
def test_replicas(first: ReplicaSample, second: ReplicaSample, expected: set[tuple[str, str]]) -> None:
    assert signals([sample(n, WELL, first, second) for n in range(4)]) == expected


def test_a_restart_between_two_samples_is_detected() -> None:
    window = [sample(n, WELL, replica("replica-1", starts=1 + (n >= 2))) for n in range(4)]
    assert signals(window) == {("replica_down", "replica-1")}


def test_latencies_of_late_samples_say_nothing() -> None:
    late = [sample(n, WELL, replica("replica-1"), replica("replica-2", SLOW), late_ms=150.0) for n in range(4)]
    assert signals(late) == set()


def test_fallbacks_are_found_in_headers_or_counters() -> None:
    fell = replace(WELL, fallback=True)
    counted = [
        {"replica_features_total/live": 50.0 * n, "replica_features_total/fallback": 9.0 * n} for n in range(4)
    ]
    once = [
        {"replica_features_total/live": 50.0 * n, "replica_features_total/fallback": 9.0 * (n > 1)}
        for n in range(4)
    ]
    assert ("fallback", "features") in signals([sample(n, fell) for n in range(4)])
    assert ("fallback", "features") not in signals([sample(n, fell if n == 3 else WELL) for n in range(4)])
    assert ("fallback", "features") in signals(
        [sample(n, WELL, replica("replica-1", WELL, c)) for n, c in enumerate(counted)]
    )
    assert ("fallback", "features") not in signals(
        [sample(n, WELL, replica("replica-1", WELL, c)) for n, c in enumerate(once)]
    )


def test_errors_of_feature_reads_and_a_silent_store() -> None:
    window = [
        sample(n, WELL, replica("replica-1", WELL, {"replica_feature_errors_total": 3.0 * n}), store_ok=False)
        for n in range(4)
    ]
    assert signals(window) == {("feature_errors", "features"), ("store_down", "features")}
    assert signals([*window[:-1], replace(window[-1], store_ok=None)]) == {("feature_errors", "features")}


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ([0.0, 0.0, 0.05], True),
        ([0.0, 0.0, 0.025], False),
        ([0.025, 0.025, 0.025], True),
        ([0.05, 0.05, 0.0], False),
        ([0.025, 0.0, 0.025], False),
    ],
)
def test_batches_of_records(shares: list[float], found: bool) -> None:
    window = [
        sample(n, pipeline={"pipeline_records_total": 150.0 * n, "pipeline_feature_out_of_range_share": share})
        for n, share in enumerate(shares)
    ]
    assert (("stray_records", "pipeline") in signals(window)) is found


def test_one_batch_in_three_samples_is_one_batch() -> None:
    stray = {"pipeline_records_total": 150.0, "pipeline_feature_robust_z/f1": -7.0}
    assert signals([sample(n, pipeline=stray) for n in range(4)]) == set()
    far = {"pipeline_records_total": 150.0, "pipeline_feature_robust_z/f1": -12.0}
    found = detect([sample(n, pipeline=far) for n in range(4)], REFERENCE)
    assert found == (Detection(Signal.STRAY_RECORDS, "pipeline", 12.0, 6.0, found[0].summary),), (
        "the z-score is what strayed, so it is what is reported"
    )


def test_moved_feature_means_are_a_finding_only_with_wrong_answers() -> None:
    wrong = replace(WELL, right=2, wrong=6)
    means = {"replica_feature_value_mean/f1": 0.0}
    moved = [sample(n, wrong, replica("replica-1", wrong, means)) for n in range(4)]
    assert signals(moved) == {("canary_accuracy", "predictions"), ("stray_features", "f1")}
    back = replica("replica-1", wrong, {"replica_feature_value_mean/f1": 38.0})
    assert ("stray_features", "f1") not in signals([*moved, sample(4, wrong, back)])
    assert signals([sample(n, WELL, replica("replica-1", WELL, means)) for n in range(4)]) == set()


def test_silence_is_a_finding_of_its_own() -> None:
    window = [Sample(n * 0.25) for n in range(6)]
    assert signals(window) == {("telemetry_lost", part) for part in ("replicas", "pipeline", "canary")}
    assert signals(window[:5]) == set()
    assert signals([*window[:5], sample(5)]) == set()


# --- the reference -------------------------------------------------------------------------------------------


def test_the_reference_is_learned_from_what_is_well() -> None:
    learned = learn([sample(n) for n in range(6)])
    assert learned is not None
    assert (learned.accuracy, learned.version, learned.samples_count) == (1.0, "3", 6)
    assert learned.slow_ms == {"": 100.0, "replica-1": 100.0, "replica-2": 100.0}


@pytest.mark.parametrize(
    "sick",
    [
        CanaryResult(right=1, wrong=7, latency_ms=5.0, versions=frozenset({"3"})),
        FAILED,
        replace(WELL, fallback=True),
        replace(WELL, versions=frozenset({"4"})),
    ],
)
def test_nothing_is_learned_from_what_is_not(sick: CanaryResult) -> None:
    assert learn([sample(n, sick, replica("replica-1", sick if sick.wrong else WELL)) for n in range(6)]) is None


def test_too_few_sound_samples_are_no_reference() -> None:
    assert learn([sample(n) for n in range(5)]) is None
    assert learn([sample(n, late_ms=500.0 * (n == 3)) for n in range(6)]) is None
    assert learn([Sample(n * 0.25) for n in range(20)]) is None


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 11))
def test_a_counter_that_began_anew_never_counts_backwards(steps: list[int], restart_at: int) -> None:
    total, value, window = 0.0, 0.0, []
    for number, step in enumerate(steps):
        if number == restart_at and number > 0:
            value = 0.0
        value += step
        if number > 0:
            total += step
        window.append(sample(number, WELL, replica("replica-1", WELL, {"c": value})))
    grown = grown_by(window, "c")
    assert 0.0 <= grown <= total
    if restart_at == 0 or restart_at >= len(steps):
        assert grown == total


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=20))
def test_each_known_batch_counts_once(positions: list[int | None]) -> None:
    window = [
        sample(n, pipeline=None if p is None else {"pipeline_records_total": float(p)})
        for n, p in enumerate(positions)
    ]
    seen = [batch["pipeline_records_total"] for batch in batches(window)]
    assert all(a != b for a, b in pairwise(seen))
    assert set(seen) == {float(p) for p in positions if p is not None}


@given(
    st.lists(
        st.builds(
            CanaryResult,
            right=st.integers(0, 8),
            wrong=st.integers(0, 8),
            failed=st.integers(0, 2),
            latency_ms=st.one_of(st.none(), st.floats(0, 3000)),
            versions=st.sets(st.sampled_from(["2", "3"])).map(frozenset),
            fallback=st.booleans(),
        ),
        max_size=16,
    ),
    st.booleans(),
)
def test_any_window_can_be_analysed(results: list[CanaryResult], blind: bool) -> None:
    window = [
        sample(n, one, replica("replica-1", one), replicas=None)
        if blind
        else sample(n, one, replica("replica-1", one))
        for n, one in enumerate(results)
    ]
    found = detect(window, REFERENCE)
    assert len({(one.signal, one.subject) for one in found}) == len(found)
    assert all(one.summary for one in found)
