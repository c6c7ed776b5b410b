"""Knowledge (the K of MAPE-K): what is usual for the target, learned while all was well; numbers of a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from monkeyproof.healing.samples import CanaryResult, Metrics, ReplicaSample, Sample

LATE_MS = 100.0
"""A sample that this process took later than this says nothing about latency."""
FEWEST_SAMPLES = 6
FEWEST_ANSWERS = 16
FEWEST_GOOD = 0.9
SLOW_FLOOR_MS = 100.0
RECORD_Z_FLOOR = 6.0
OUT_OF_RANGE_FLOOR = 0.02
MAD_TO_SIGMA = 1.4826

Z = "pipeline_feature_robust_z/"
OUT_OF_RANGE = "pipeline_feature_out_of_range_share"
RECORDS = "pipeline_records_total"
FEATURE_MEAN = "replica_feature_value_mean/"
FEATURE_SPREAD = "replica_feature_value_robust_spread/"


@dataclass(frozen=True, slots=True)
class Band:
    """The usual value of one number, and how far it usually strays."""

    middle: float
    spread: float

    def z(self, value: float) -> float:
        return abs(value - self.middle) / self.spread


@dataclass(frozen=True, slots=True)
class TargetReference:
    """The usual values of the target's signals."""

    samples_count: int
    accuracy: float
    version: str
    slow_ms: Mapping[str, float]
    """Latency above which a path is slow; the gateway's name is ""."""
    record_z_limit: float
    out_of_range_limit: float
    has_pipeline: bool = False
    features: Mapping[str, Band] = field(default_factory=dict)
    """Mean values of features, as replicas see them."""

    def strayed(self, batch: Metrics) -> tuple[float, str]:
        """How many times beyond its limit a batch's worst statistic is (1 is the limit), and which one it is."""
        by_share = batch.get(OUT_OF_RANGE, 0.0) / self.out_of_range_limit
        z, feature = worst_z(batch)
        by_z = z / self.record_z_limit
        return (by_z, feature) if by_z > by_share else (by_share, "")


def learn(samples: Sequence[Sample]) -> TargetReference | None:
    """The reference, or None while too little is known, or what is known is not well enough to be one."""
    sound = [sample for sample in samples if sample.late_ms < LATE_MS and sample.replicas is not None]
    results = [result for sample in sound for result in canary_results(sample)]
    if len(sound) < FEWEST_SAMPLES or not _are_healthy(results):
        return None
    records = batches(sound)
    worst_zs = [worst_z(batch)[0] for batch in records]
    worst_shares = [batch.get(OUT_OF_RANGE, 0.0) for batch in records]
    return TargetReference(
        samples_count=len(sound),
        accuracy=_accuracy(results),
        version=next(iter(_versions(results)), ""),
        slow_ms=_slow_ms_by_path(sound),
        record_z_limit=max(RECORD_Z_FLOOR, 2.0 * max(worst_zs, default=0.0)),
        out_of_range_limit=max(OUT_OF_RANGE_FLOOR, 3.0 * max(worst_shares, default=0.0)),
        has_pipeline=bool(records),
        features=_bands([means for sample in sound if (means := feature_means(sample))], sound[-1]),
    )


def _are_healthy(results: Sequence[CanaryResult]) -> bool:
    """Whether enough answers came, nearly all right, of one version, and none failed or came from a fallback."""
    enough = sum(result.right + result.wrong for result in results) >= FEWEST_ANSWERS
    return (
        enough
        and len(_versions(results)) <= 1
        and _accuracy(results) >= FEWEST_GOOD
        and not any(result.failed or result.fallback for result in results)
    )


def _accuracy(results: Sequence[CanaryResult]) -> float:
    """Share of right answers; there has to be one answer at least."""
    right, wrong = sum(result.right for result in results), sum(result.wrong for result in results)
    return right / (right + wrong)


def _versions(results: Sequence[CanaryResult]) -> frozenset[str]:
    return frozenset[str]().union(*(result.versions for result in results))


def _slow_ms_by_path(sound: Sequence[Sample]) -> Mapping[str, float]:
    """Above which latency each path is slow; the gateway's name is ""."""
    paths = {"", *(name for sample in sound for name in sample.replicas or ())}
    return {path: _slow_ms([canary_result(sample, path).latency_ms for sample in sound]) for path in paths}


def _slow_ms(latencies: Sequence[float | None]) -> float:
    known = [latency for latency in latencies if latency is not None]
    if not known:
        return SLOW_FLOOR_MS
    middle = median(known)
    spread = median(abs(latency - middle) for latency in known)
    return max(SLOW_FLOOR_MS, middle + 10.0 * MAD_TO_SIGMA * spread)


def _bands(seen: Sequence[Mapping[str, float]], last: Sample) -> dict[str, Band]:
    """A band about as wide as single values spread: means over many rows move far less than that."""
    bands = {}
    for feature in seen[-1] if seen else ():
        values = [means[feature] for means in seen if feature in means]
        middle = median(values)
        spreads = [
            spread
            for replica in (last.replicas or {}).values()
            if replica.metrics is not None
            and (spread := replica.metrics.get(FEATURE_SPREAD + feature)) is not None
        ]
        # Where most values are one constant there is no width, and nothing that a mean could be far from.
        if spreads and (width := median(spreads)) > 0.0:
            bands[feature] = Band(middle, max(width, *(abs(value - middle) for value in values)))
    return bands


# --- numbers of a window -------------------------------------------------------------------------------------


def replicas(sample: Sample) -> Sequence[ReplicaSample]:
    return tuple((sample.replicas or {}).values())


def canary_results(sample: Sample) -> Iterator[CanaryResult]:
    """The canary results of every path that users' requests can take."""
    yield sample.gateway
    yield from (replica.canary for replica in replicas(sample) if not replica.drained)


def canary_result(sample: Sample, path: str) -> CanaryResult:
    """The canary result of one path; the gateway's name is ""."""
    if not path:
        return sample.gateway
    found = (sample.replicas or {}).get(path)
    return found.canary if found else CanaryResult()


def batches(window: Sequence[Sample]) -> list[Metrics]:
    """The pipeline's metrics after each new batch: a sample that repeats the last batch counts once."""
    found: list[Metrics] = []
    for metrics in (sample.pipeline for sample in window):
        if metrics is not None and (not found or metrics.get(RECORDS) != found[-1].get(RECORDS)):
            found.append(metrics)
    return found


def worst_z(batch: Metrics) -> tuple[float, str]:
    """The farthest robust z of a batch, without its sign, and its feature's name."""
    scores = ((abs(value), name.removeprefix(Z)) for name, value in batch.items() if name.startswith(Z))
    return max(scores, default=(0.0, ""))


def feature_means(sample: Sample) -> Mapping[str, float]:
    """Mean value of each feature over the replicas that report it."""
    seen: dict[str, list[float]] = {}
    for replica in replicas(sample):
        for name, value in (replica.metrics or {}).items():
            if name.startswith(FEATURE_MEAN):
                seen.setdefault(name.removeprefix(FEATURE_MEAN), []).append(value)
    return {feature: sum(values) / len(values) for feature, values in seen.items()}


def grown_by(window: Sequence[Sample], counter: str) -> float:
    """How far a counter grew over the window, over all replicas. A counter that fell began anew."""
    total = 0.0
    for name in {replica.name for sample in window for replica in replicas(sample)}:
        values = [
            replica.metrics.get(counter, 0.0)
            for sample in window
            if (replica := (sample.replicas or {}).get(name)) and replica.metrics is not None
        ]
        total += sum(after - before if after >= before else after for before, after in pairwise(values))
    return total
