"""The time to recover, over trials: Kaplan-Meier curves, quantiles and restricted means, with their intervals.

What is estimated is the time from t0 until right answers were back *while the fault was still there*:
- healed and self-recovered trials count with the upper end of their interval, so that an uncertain instant
  never flatters; absorbed trials recovered at 0;
- fault_removed is right-censored at the revert, not_recovered where watching under the fault ended: of
  these it is known only that the time is longer. They are never dropped and never averaged in;
- invalid and unproven trials tell nothing, and count for nothing.

The intervals are for a number of trials that did not depend on their results. Where a campaign ends as soon as its
verdict is decided, only the shares have limits that allow for it.

    Kaplan, E. L., Meier, P. (1958). Nonparametric estimation from incomplete observations. Journal of the American
        Statistical Association 53, 457-481.
    Brookmeyer, R., Crowley, J. (1982). A confidence interval for the median survival time. Biometrics 38, 29-41.
    Andersen, P. K., Hansen, M. G., Klein, J. P. (2004). Regression analysis of restricted mean survival time based
        on pseudo-observations. Lifetime Data Analysis 10, 335-350.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from monkeyproof.types import Outcome, Recovery, TrialResult

_EPSILON = 1e-9
"""Products of shares are not exact: 0.5 may arrive as 0.5000000000000001."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One trial's time to recover under the fault, in seconds since t0; censored unless ``recovered``."""

    time_s: float
    recovered: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number in seconds with its two-sided confidence interval. None: not reached, or not bounded there."""

    value_s: float | None
    low_s: float | None
    high_s: float | None


UNKNOWN = Estimate(None, None, None)


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
        """Its confidence interval, by inverting the band (Brookmeyer and Crowley, on the log-log scale). None: no
        bound on that side. Simulated with exponential times, 95 % for the median held the truth in 0.94 to 0.96
        of samples of 10 and of 30."""
        limit = 1 - recovered_share
        return self._first_at_most(self.lows, limit), self._first_at_most(self.highs, limit)

    def quantile(self, recovered_share: float) -> Estimate:
        """Both."""
        return Estimate(self.quantile_s(recovered_share), *self.quantile_interval_s(recovered_share))

    @property
    def known_until_s(self) -> float:
        """The time up to which the curve is known: infinity once every trial has recovered."""
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


def observe(recovery: Recovery, *, earliest: bool = False) -> Observation | None:
    """What one trial tells of the time to recover under the fault. None: nothing.

    ``earliest`` takes the lower end of the interval in which it recovered: with the upper end it bounds what is
    left open by not having asked more often.
    """
    if not recovery.outcome.counts:
        return None
    if recovery.outcome is Outcome.ABSORBED:
        return Observation(0.0, True)
    if recovery.outcome.under_fault and recovery.ttr is not None:
        return Observation(recovery.ttr.low_s if earliest else recovery.ttr.high_s, True)
    # Censored at 0 means only "longer than 0": it enters the count and moves no estimate.
    return Observation(recovery.censored_at_s or 0.0, False)


def in_time(recovery: Recovery, within_s: float) -> bool | None:
    """Whether a valid trial recovered under the fault within the deadline. None: it is not known."""
    if recovery.outcome is Outcome.ABSORBED:
        return True
    if recovery.outcome.under_fault and recovery.ttr is not None:
        if recovery.ttr.high_s <= within_s:
            return True
        return None if recovery.ttr.low_s <= within_s else False
    # Known not to have recovered up to there: what would have come later is known only if that is the deadline.
    return False if (recovery.censored_at_s or 0.0) >= within_s else None


def observe_all(trials: Iterable[TrialResult], *, earliest: bool = False) -> list[Observation]:
    """The observations of the valid trials."""
    found = (observe(trial.recovery, earliest=earliest) for trial in trials)
    return [seen for seen in found if seen is not None]


def kaplan_meier(observations: Sequence[Observation], confidence: float = 0.95) -> Survival:
    """The Kaplan-Meier estimate, with a pointwise log-log band. Needs at least one observation."""
    from scipy import stats

    sample = stats.CensoredData(
        uncensored=[seen.time_s for seen in observations if seen.recovered],
        right=[seen.time_s for seen in observations if not seen.recovered],
    )
    curve = stats.ecdf(sample).sf
    with warnings.catch_warnings():
        # scipy returns NaN where the share is 0 or 1: the band is not defined there.
        warnings.simplefilter("ignore", RuntimeWarning)
        band = curve.confidence_interval(confidence, method="log-log")
    return Survival(
        times_s=tuple(map(float, curve.quantiles)),
        shares=tuple(map(float, curve.probabilities)),
        lows=tuple(map(float, band.low.probabilities)),
        highs=tuple(map(float, band.high.probabilities)),
    )


def common_horizon_s(samples: Iterable[Sequence[Observation]]) -> float:
    """The longest time up to which the curve of every sample is known, so that their means compare."""
    curves = [kaplan_meier(sample) for sample in samples if sample]
    known_s = min((curve.known_until_s for curve in curves), default=0.0)
    if math.isfinite(known_s):
        return known_s
    return max(curve.times_s[-1] for curve in curves)  # All recovered: the restricted mean is the mean.


def tells_a_mean(observations: Sequence[Observation], horizon_s: float) -> bool:
    """False if there is nothing to average: no trial, or none that was watched while it had not recovered."""
    return bool(observations) and (horizon_s > 0 or all(seen.recovered for seen in observations))


def restricted_mean(observations: Sequence[Observation], horizon_s: float, confidence: float) -> Estimate:
    """Restricted mean (RMST) up to ``horizon_s``, with Student's t interval of its pseudo-values (Andersen et
    al.). Without censoring before the horizon this is the ordinary t interval of min(time, horizon). It is not
    bounded where trials show no spread: fewer than two, or all alike.

    With few trials and skewed times, the interval holds the truth less often than its confidence. Simulated, one
    of 95 % held the truth in 0.90 to 0.95 of samples of 10, and in 0.92 to 0.95 of samples of 30 (exponential and
    lognormal times, a horizon of one to three typical times, with and without censoring). Where nothing limits a
    long tail it is less: 0.86 for samples of 10 of lognormal times (sigma 1) without a horizon.
    """
    if not tells_a_mean(observations, horizon_s):
        return UNKNOWN
    value_s = kaplan_meier(observations).restricted_mean_s(horizon_s)
    count = len(observations)
    error_s = standard_error_s(pseudo_values_s(observations, horizon_s), horizon_s)
    if error_s is None:
        return Estimate(value_s, None, None)
    reach_s = error_s * student_quantile(count - 1, confidence)
    return Estimate(value_s, max(0.0, value_s - reach_s), min(horizon_s, value_s + reach_s))


def pseudo_values_s(observations: Sequence[Observation], horizon_s: float) -> list[float]:
    """Jackknife pseudo-values of the restricted mean, one for each trial, in their order (Andersen et al.).

    What trial i contributes: ``n * mean - (n - 1) * mean without i``. All means without one come from two passes:
    with one trial left out, those before it in time have one fewer at risk, and those after it are as they were.
    """
    count = len(observations)
    # At equal times a recovery comes before a censoring, as Kaplan and Meier have it.
    order = sorted(range(count), key=lambda at: (observations[at].time_s, not observations[at].recovered))
    times_s = [min(observations[at].time_s, horizon_s) for at in order] + [horizon_s]
    recovered = [observations[at].recovered for at in order]

    # Area from each time on, if the share there were 1.
    after_s = [0.0] * count
    rest_s = 0.0
    for place in reversed(range(count)):
        step_s = times_s[place + 1] - times_s[place]
        # The next trial is the (place + 1)-th; count - place - 1 are at risk when it comes.
        kept = 1 - recovered[place + 1] / (count - place - 1) if place + 1 < count else 0.0
        rest_s = step_s + kept * rest_s
        after_s[place] = rest_s
    whole_s = times_s[0] + (1 - recovered[0] / count) * after_s[0] if count else 0.0

    values_s = [0.0] * count
    area_s, share, since_s = 0.0, 1.0, 0.0
    for place, at in enumerate(order):
        area_s += share * (times_s[place] - since_s)
        since_s = times_s[place]
        without_s = area_s + share * after_s[place]
        values_s[at] = count * whole_s - (count - 1) * without_s
        if place + 1 < count:
            share *= 1 - recovered[place] / (count - 1 - place)
    return values_s


def standard_error_s(values_s: Sequence[float], scale_s: float) -> float | None:
    """Of their mean. None where they show no spread: fewer than two, or all alike (to rounding, on that scale)."""
    count = len(values_s)
    if count < 2:
        return None
    mean_s = fmean(values_s)
    spread_s = math.sqrt(math.fsum((value_s - mean_s) ** 2 for value_s in values_s) / (count - 1))
    return spread_s / math.sqrt(count) if spread_s > _EPSILON * scale_s else None


def student_quantile(freedom: float, confidence: float) -> float:
    """How many standard errors a two-sided interval reaches to each side (Student's t)."""
    from scipy import special

    return float(special.stdtrit(freedom, (1 + confidence) / 2))
