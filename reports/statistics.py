"""Statistics over trials: Kaplan-Meier, restricted means, exact shares. The mathematics is scipy's.

What is estimated is the time from t0 until right answers were back *while the fault was still there*:
- healed and self-recovered trials count with the upper end of their interval, so that an uncertain instant
  never flatters; absorbed trials recovered at 0;
- fault_removed is right-censored at the revert, not_recovered where watching under the fault ended: of
  these it is known only that the time is longer. They are never dropped and never averaged in;
- invalid trials say nothing, and count for nothing.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from monkeyproof.config import Slo
from monkeyproof.types import Campaign, Outcome, Recovery, TrialResult

_EPSILON = 1e-9
"""Products of shares are not exact: 0.5 may arrive as 0.5000000000000001."""

NO_HEALER = "none"
"""The arm that all others are compared with."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One trial's time to recover under the fault, in seconds since t0; censored unless ``recovered``."""

    time_s: float
    recovered: bool


@dataclass(frozen=True, slots=True)
class Survival:
    """Kaplan-Meier estimate of the share of trials not yet recovered: a step function from (0 s, 1)."""

    times_s: tuple[float, ...]
    shares: tuple[float, ...]
    """The share just after each time."""
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    """Pointwise confidence band (log-log); NaN where it is not defined."""

    def quantile_s(self, recovered_share: float) -> float | None:
        """When that share had recovered. None: the curve never gets there (not reached)."""
        return self._first_at_most(self.shares, 1 - recovered_share)

    def quantile_interval_s(self, recovered_share: float) -> tuple[float | None, float | None]:
        """Confidence interval of that quantile, by inverting the band. None: no bound on that side."""
        limit = 1 - recovered_share
        return self._first_at_most(self.lows, limit), self._first_at_most(self.highs, limit)

    @property
    def known_until_s(self) -> float:
        """Up to when the curve says anything: infinity once everything has recovered."""
        return math.inf if self.shares[-1] <= _EPSILON else self.times_s[-1]

    def restricted_mean_s(self, horizon_s: float) -> float:
        """Mean time without right answers within ``[0, horizon_s]`` (RMST): the area under the curve."""
        area_s, since_s, share = 0.0, 0.0, 1.0
        for time_s, after in zip(self.times_s, self.shares, strict=True):
            if time_s >= horizon_s:
                break
            area_s += share * (time_s - since_s)
            since_s, share = time_s, after
        return area_s + share * (horizon_s - since_s)

    def _first_at_most(self, shares: Sequence[float], limit: float) -> float | None:
        pairs = zip(self.times_s, shares, strict=True)
        return next((time_s for time_s, share in pairs if share <= limit + _EPSILON), None)


@dataclass(frozen=True, slots=True)
class Share:
    """``successes`` of ``count``, with its exact (Clopper-Pearson) confidence interval."""

    successes: int
    count: int
    low: float
    high: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Group:
    """Trials that are comparable: one arm, of one experiment or of all."""

    experiment: str
    """Empty: over all experiments."""
    title: str
    arm: str
    trials: tuple[TrialResult, ...]
    observations: tuple[Observation, ...]
    """Of the valid trials."""
    survival: Survival | None
    """None: no valid trial."""
    horizon_s: float
    """Of the restricted mean: the same for all arms of an experiment."""
    deadline_s: float
    in_time: Share | None
    """Recovered within the deadline. Censored before it counts as not recovered."""
    censored_early_count: int
    """Valid trials whose watching under the fault ended before the deadline."""

    @property
    def counts(self) -> Mapping[Outcome, int]:
        outcomes = [trial.recovery.outcome for trial in self.trials]
        return {outcome: outcomes.count(outcome) for outcome in Outcome if outcome in outcomes}

    @property
    def recovered_s(self) -> tuple[float, ...]:
        return tuple(seen.time_s for seen in self.observations if seen.recovered)

    @property
    def censored_count(self) -> int:
        return len(self.observations) - len(self.recovered_s)

    @property
    def invalid_count(self) -> int:
        return len(self.trials) - len(self.observations)

    @property
    def median_s(self) -> float | None:
        return self.survival.quantile_s(0.5) if self.survival else None

    @property
    def p90_s(self) -> float | None:
        return self.survival.quantile_s(0.9) if self.survival else None

    @property
    def restricted_mean_s(self) -> float | None:
        return self.survival.restricted_mean_s(self.horizon_s) if self.survival else None

    @property
    def mean_recovered_s(self) -> float | None:
        """Over the recovered alone: never to be printed without the number of the censored."""
        return sum(self.recovered_s) / len(self.recovered_s) if self.recovered_s else None


@dataclass(frozen=True, slots=True)
class Paired:
    """One experiment under one arm and under no healer, over the seeds that both tried. Descriptive."""

    experiment: str
    arm: str
    pairs_count: int
    """Seeds with a valid trial in both arms."""
    arm_count: int
    """Recovered under the fault with the arm."""
    reference_count: int
    only_arm_count: int
    only_reference_count: int
    sooner_s: float
    """By how much the arm's restricted mean is smaller; negative if it made things worse."""
    horizon_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that is computed over the trials of a campaign."""

    groups: tuple[Group, ...]
    arms: tuple[Group, ...]
    pairs: tuple[Paired, ...]


def observe(recovery: Recovery) -> Observation | None:
    """What one trial tells of the time to recover under the fault. None: nothing."""
    if recovery.outcome is Outcome.INVALID:
        return None
    if recovery.outcome is Outcome.ABSORBED:
        return Observation(0.0, True)
    if recovery.outcome.under_fault and recovery.ttr is not None:
        return Observation(recovery.ttr.high_s, True)
    # Censored at 0 says only "longer than nothing": it enters the count and moves no estimate.
    return Observation(recovery.censored_at_s or 0.0, False)


def kaplan_meier(observations: Sequence[Observation], confidence: float = 0.95) -> Survival:
    """The Kaplan-Meier estimate, with a pointwise log-log band. Needs at least one observation."""
    from scipy import stats

    sample = stats.CensoredData(
        uncensored=[seen.time_s for seen in observations if seen.recovered],
        right=[seen.time_s for seen in observations if not seen.recovered],
    )
    curve = stats.ecdf(sample).sf
    with warnings.catch_warnings():
        # The band is not defined where the share is 0 or 1. It arrives as NaN, which is what we say.
        warnings.simplefilter("ignore", RuntimeWarning)
        band = curve.confidence_interval(confidence, method="log-log")
    return Survival(
        times_s=tuple(map(float, curve.quantiles)),
        shares=tuple(map(float, curve.probabilities)),
        lows=tuple(map(float, band.low.probabilities)),
        highs=tuple(map(float, band.high.probabilities)),
    )


def exact_share(successes: int, count: int, confidence: float) -> Share | None:
    """A share with its Clopper-Pearson interval. None of none is no share."""
    if count == 0:
        return None
    from scipy import stats

    found = stats.binomtest(successes, count).proportion_ci(confidence, method="exact")
    return Share(successes, count, float(found.low), float(found.high), confidence)


def summarise(campaign: Campaign, slo: Slo) -> Summary:
    """Group the trials by experiment and arm, by arm, and in pairs of equal seeds."""
    by_experiment: dict[str, dict[str, list[TrialResult]]] = defaultdict(lambda: defaultdict(list))
    by_arm: dict[str, list[TrialResult]] = defaultdict(list)
    for trial in campaign.trials:
        by_experiment[trial.experiment][trial.arm].append(trial)
        by_arm[trial.arm].append(trial)
    groups = [group for arms in by_experiment.values() for group in _groups(arms, slo, pooled=False)]
    pairs = [
        _paired(experiment, arm, arms[arm], arms[NO_HEALER])
        for experiment, arms in by_experiment.items()
        for arm in arms
        if arm != NO_HEALER and NO_HEALER in arms
    ]
    return Summary(
        tuple(groups), tuple(_groups(by_arm, slo, pooled=True)), tuple(pair for pair in pairs if pair.pairs_count)
    )


def common_horizon_s(samples: Iterable[Sequence[Observation]]) -> float:
    """The longest time up to which the curve of every sample is known, so that their means compare."""
    curves = [kaplan_meier(sample) for sample in samples if sample]
    known_s = min((curve.known_until_s for curve in curves), default=0.0)
    if math.isfinite(known_s):
        return known_s
    return max(curve.times_s[-1] for curve in curves)  # All recovered: the restricted mean is the mean.


def _groups(arms: Mapping[str, list[TrialResult]], slo: Slo, *, pooled: bool) -> list[Group]:
    samples = {arm: _sample(trials) for arm, trials in arms.items()}
    horizon_s = common_horizon_s(samples.values())
    return [_group(trials, samples[arm], horizon_s, slo, pooled=pooled) for arm, trials in arms.items()]


def _sample(trials: Iterable[TrialResult]) -> list[Observation]:
    return [seen for trial in trials if (seen := observe(trial.recovery)) is not None]


def _group(
    trials: Sequence[TrialResult], sample: Sequence[Observation], horizon_s: float, slo: Slo, *, pooled: bool
) -> Group:
    within_s = slo.recovery.within_s
    in_time = sum(seen.recovered and seen.time_s <= within_s for seen in sample)
    return Group(
        experiment="" if pooled else trials[0].experiment,
        title="all experiments" if pooled else trials[0].title,
        arm=trials[0].arm,
        trials=tuple(trials),
        observations=tuple(sample),
        survival=kaplan_meier(sample, slo.recovery.confidence) if sample else None,
        horizon_s=horizon_s,
        deadline_s=within_s,
        in_time=exact_share(in_time, len(sample), slo.recovery.confidence),
        censored_early_count=sum(not seen.recovered and seen.time_s < within_s for seen in sample),
    )


def _paired(experiment: str, arm: str, trials: list[TrialResult], reference: list[TrialResult]) -> Paired:
    """Trials with the same seed are paired in the order in which they ran."""
    pairs: list[tuple[Observation, Observation]] = []
    for seed in dict.fromkeys(trial.seed for trial in trials):
        ours = sorted((trial for trial in trials if trial.seed == seed), key=lambda trial: trial.index)
        theirs = sorted((trial for trial in reference if trial.seed == seed), key=lambda trial: trial.index)
        for one, other in zip(ours, theirs, strict=False):  # What has no partner is not paired.
            seen, seen_other = observe(one.recovery), observe(other.recovery)
            if seen is not None and seen_other is not None:
                pairs.append((seen, seen_other))
    ours_seen = [one for one, _ in pairs]
    theirs_seen = [other for _, other in pairs]
    horizon_s = common_horizon_s([ours_seen, theirs_seen])
    means_s = [kaplan_meier(seen).restricted_mean_s(horizon_s) for seen in (theirs_seen, ours_seen) if seen]
    sooner_s = means_s[0] - means_s[1] if means_s else 0.0
    return Paired(
        experiment=experiment,
        arm=arm,
        pairs_count=len(pairs),
        arm_count=sum(one.recovered for one in ours_seen),
        reference_count=sum(other.recovered for other in theirs_seen),
        only_arm_count=sum(one.recovered and not other.recovered for one, other in pairs),
        only_reference_count=sum(other.recovered and not one.recovered for one, other in pairs),
        sooner_s=sooner_s,
        horizon_s=horizon_s,
    )
