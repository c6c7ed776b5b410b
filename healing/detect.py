"""Analyse (the A of MAPE-K), first half: from samples to detections.

Pure functions over a short window of samples and a reference learned while all was well.
A detection says that a signal left its range; not why. Missing data never clears one and never raises one,
but for TELEMETRY_LOST: not knowing is a finding of its own. Thresholds prefer few false alarms: most signals
have to stray several times in a row, or very far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from monkeyproof.healing.reference import (
    LATE_MS,
    OUT_OF_RANGE,
    SLOW_FLOOR_MS,
    TargetReference,
    batches,
    canary_result,
    canary_results,
    feature_means,
    grown_by,
    replicas,
    worst_z,
)
from monkeyproof.healing.samples import CanaryResult, Sample

WINDOW_S = 4.0
RECENT = 4
"""How many samples count as now."""
FEWEST_ANSWERS = 16
MOST_ANSWERS = 64
ACCURACY_MARGIN = 0.05
VERY_FAR = 1.5
"""A batch this many times beyond its limit needs no second one."""
FEATURE_Z_LIMIT = 6.0
FALLBACK_SHARE = 0.02
FEATURE_ERRORS = 5
ORIGINS = ("live", "cached", "snapshot", "fallback")
BLIND = 6
"""How many samples without data from a part make a finding."""


class Signal(StrEnum):
    """Every signal that a detection can be about."""

    CANARY_ACCURACY = "canary_accuracy"
    CANARY_ERRORS = "canary_errors"
    CANARY_LATENCY = "canary_latency"
    CHAMPION_CHANGED = "champion_changed"
    REPLICA_SLOW = "replica_slow"
    REPLICA_DOWN = "replica_down"
    FALLBACK = "fallback"
    FEATURE_ERRORS = "feature_errors"
    STORE_DOWN = "store_down"
    STRAY_RECORDS = "stray_records"
    STRAY_FEATURES = "stray_features"
    TELEMETRY_LOST = "telemetry_lost"


@dataclass(frozen=True, slots=True)
class Detection:
    """One signal out of its range."""

    signal: Signal
    subject: str
    value: float | str
    threshold: float | str
    summary: str


def detect(window: Sequence[Sample], reference: TargetReference) -> tuple[Detection, ...]:
    """Every signal that is out of its range at the end of the window (oldest sample first).

    A new champion and a new mix of features are everyday life. They are findings only where answers are wrong.
    """
    if not window:
        return ()
    lost = tuple(_accuracy(window, reference))
    return (
        *lost,
        *(_champion(window, reference) if lost else ()),
        *(_stray_features(window, reference) if lost else ()),
        *_errors(window),
        *_gateway_latency(window, reference),
        *_replicas_slow(window, reference),
        *_replicas_down(window),
        *_fallbacks(window),
        *_store(window),
        *_stray_records(window, reference),
        *_telemetry(window, reference),
    )


# --- answers -------------------------------------------------------------------------------------------------


def _accuracy(window: Sequence[Sample], reference: TargetReference) -> Iterator[Detection]:
    right = wrong = 0
    for sample in reversed(window):
        for result in canary_results(sample):
            right, wrong = right + result.right, wrong + result.wrong
        if right + wrong >= MOST_ANSWERS:
            break
    threshold = reference.accuracy - ACCURACY_MARGIN
    if right + wrong >= FEWEST_ANSWERS and right / (right + wrong) < threshold:
        share = right / (right + wrong)
        summary = f"{wrong} of the last {right + wrong} canary answers are wrong"
        yield Detection(Signal.CANARY_ACCURACY, "predictions", round(share, 4), round(threshold, 4), summary)


def _champion(window: Sequence[Sample], reference: TargetReference) -> Iterator[Detection]:
    now = frozenset[str]().union(*(a.versions for s in window[-2:] for a in canary_results(s)))
    others = sorted(now - {reference.version, ""})
    if reference.version and others:
        summary = f"version {others[-1]} answers; version {reference.version} did while all was well"
        yield Detection(Signal.CHAMPION_CHANGED, "model", others[-1], reference.version, summary)


def _errors(window: Sequence[Sample]) -> Iterator[Detection]:
    recent = [sample.gateway for sample in window[-RECENT:]]
    failed = sum(result.failed for result in recent)
    sent_count = failed + sum(result.latency_ms is not None and not result.failed for result in recent)
    if failed >= 2 and failed / sent_count >= 0.4:
        why = next(result.why for result in reversed(recent) if result.failed)
        summary = f"{failed} of {sent_count} recent canary requests failed ({why})"
        yield Detection(Signal.CANARY_ERRORS, "gateway", round(failed / sent_count, 4), 0.4, summary)


def _gateway_latency(window: Sequence[Sample], reference: TargetReference) -> Iterator[Detection]:
    yield from _slow(window, "", Signal.CANARY_LATENCY, "gateway", reference)


# --- replicas ------------------------------------------------------------------------------------------------


def _replicas_slow(window: Sequence[Sample], reference: TargetReference) -> Iterator[Detection]:
    """Slow on its link, though it answers its scrapes: alive. If most are slow it is no replica's own fault."""
    serving = [replica for replica in replicas(window[-1]) if not replica.drained and replica.state == "ready"]
    found: list[Detection] = []
    for replica in serving:
        seen = (sample.replicas.get(replica.name) for sample in window[-RECENT:] if sample.replicas)
        if any(one is not None and one.metrics is not None for one in seen):
            found.extend(_slow(window, replica.name, Signal.REPLICA_SLOW, replica.name, reference))
    if 2 * len(found) <= len(serving):
        yield from found


def _slow(
    window: Sequence[Sample], path: str, signal: Signal, subject: str, reference: TargetReference
) -> Iterator[Detection]:
    threshold = reference.slow_ms.get(path, SLOW_FLOOR_MS)
    recent = [canary_result(sample, path) for sample in window[-RECENT:] if sample.late_ms < LATE_MS]
    slow = [result for result in recent if too_slow(result, threshold)]
    if len(slow) >= RECENT - 1 and too_slow(recent[-1], threshold):
        worst = max(result.latency_ms or 0.0 for result in slow)
        summary = f"{subject}: {len(slow)} of the last {len(recent)} probes slow or failed, up to {worst:.0f} ms"
        yield Detection(signal, subject, round(worst, 1), round(threshold, 1), summary)


def too_slow(result: CanaryResult, threshold_ms: float) -> bool:
    return result.failed > 0 or (result.latency_ms is not None and result.latency_ms > threshold_ms)


def _replicas_down(window: Sequence[Sample]) -> Iterator[Detection]:
    """Down as the platform reports, silent on every path, or newly started: it died between two samples."""
    for replica in replicas(window[-1]):
        seen = [one for sample in window[-RECENT:] if (one := (sample.replicas or {}).get(replica.name))]
        silent = len(seen) == RECENT and all(
            one.metrics is None and not one.canary.right + one.canary.wrong for one in seen
        )
        if replica.state in ("down", "backing_off"):
            yield Detection(Signal.REPLICA_DOWN, replica.name, replica.state, "ready", f"{replica.name} is down")
        elif silent and any(one.canary.failed or one.canary.latency_ms for one in seen):
            summary = f"{replica.name} answers neither its probes nor its scrapes"
            yield Detection(Signal.REPLICA_DOWN, replica.name, "silent", "ready", summary)
        elif seen and seen[0].starts < replica.starts:
            summary = f"{replica.name} died and was started anew"
            yield Detection(Signal.REPLICA_DOWN, replica.name, replica.starts, seen[0].starts, summary)


# --- features ------------------------------------------------------------------------------------------------


def _fallbacks(window: Sequence[Sample]) -> Iterator[Detection]:
    """Answers made from default values, which look like any other. Seen twice, for one stall is no outage."""
    recent = window[-RECENT:]
    rows = {origin: grown_by(recent, f"replica_features_total/{origin}") for origin in ORIGINS}
    share = rows["fallback"] / sum(rows.values()) if any(rows.values()) else 1.0
    times = sum(
        any(result.fallback for result in canary_results(now))
        or grown_by((before, now), "replica_features_total/fallback") > 0
        for before, now in pairwise(window[-RECENT - 1 :])
    )
    if times >= 2 and share >= FALLBACK_SHARE:
        summary = f"{share:.0%} of recent rows were scored with default feature values"
        yield Detection(Signal.FALLBACK, "features", round(share, 4), FALLBACK_SHARE, summary)
    errors = grown_by(recent, "replica_feature_errors_total")
    if errors >= FEATURE_ERRORS:
        summary = f"{errors:.0f} reads of features failed within {RECENT} samples"
        yield Detection(Signal.FEATURE_ERRORS, "features", errors, FEATURE_ERRORS, summary)


def _store(window: Sequence[Sample]) -> Iterator[Detection]:
    recent = [sample.store_ok for sample in window[-3:]]
    if len(recent) == 3 and all(ok is False for ok in recent):
        summary = "the feature store does not answer on the replicas' link"
        yield Detection(Signal.STORE_DOWN, "features", "silent", "answers", summary)


def _stray_records(window: Sequence[Sample], reference: TargetReference) -> Iterator[Detection]:
    """The latest batches of new records look unlike any before: three in a row, or one very much so."""
    latest = batches(window[-2 * RECENT :])[-3:]
    far = [reference.strayed(batch)[0] for batch in latest]
    if not far or not (far[-1] >= VERY_FAR or (len(far) == 3 and min(far) >= 1.0)):
        return
    share = latest[-1].get(OUT_OF_RANGE, 0.0)
    z, worst = worst_z(latest[-1])
    summary = f"new records stray: {share:.1%} of values out of range, robust z of {worst or 'features'} {z:.1f}"
    value, limit = (
        (z, reference.record_z_limit)
        if reference.strayed(latest[-1])[1]
        else (share, reference.out_of_range_limit)
    )
    yield Detection(Signal.STRAY_RECORDS, "pipeline", round(value, 4), round(limit, 4), summary)


def _stray_features(window: Sequence[Sample], reference: TargetReference) -> Iterator[Detection]:
    """The features that replicas score with drifted away."""
    recent = [means for sample in window[-RECENT:] if (means := feature_means(sample))][-3:]
    for feature, band in reference.features.items():
        scores = [band.z(means[feature]) for means in recent if feature in means]
        if len(scores) == 3 and min(scores) > FEATURE_Z_LIMIT:
            summary = f"mean of {feature} as replicas see it is {scores[-1]:.1f} robust deviations off"
            yield Detection(Signal.STRAY_FEATURES, feature, round(scores[-1], 2), FEATURE_Z_LIMIT, summary)


# --- telemetry itself ----------------------------------------------------------------------------------------


def _telemetry(window: Sequence[Sample], reference: TargetReference) -> Iterator[Detection]:
    """No data from a part for a second and a half: not knowing is not health."""
    recent = window[-BLIND:]
    if len(recent) < BLIND:
        return
    silent = {
        "replicas": all(sample.replicas is None for sample in recent),
        "pipeline": reference.has_pipeline and all(sample.pipeline is None for sample in recent),
        "canary": all(sample.gateway.latency_ms is None for sample in recent),
    }
    for part in (part for part, is_silent in silent.items() if is_silent):
        summary = f"no data from {part} for {len(recent)} samples: its health is unknown"
        yield Detection(Signal.TELEMETRY_LOST, part, "unknown", "known", summary)
