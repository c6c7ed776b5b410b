"""By how much sooner one side recovered than the other, with an interval that holds where hardly a trial differed.

The effect is the difference of the restricted means at the horizon that both know. Its interval is Student's t:
of the differences of pseudo-values where trials are paired by seed, Welch's where they are not.

Student's t knows only the spread that was seen. Eight trials that all ended stuck at the horizon have none, and
yet up to 36.9 % of such trials may recover (Clopper and Pearson, 95 %). So where fewer than five trials of a side
ended in the rarer way (recovered, or stuck), each mean gets limits of its own: the share of the rarer way at its
Clopper-Pearson limit, what was not seen of it at the worst time (a recovery at 0, a stuck trial at the horizon);
or those of Student's t, where they are wider. The limits of the two means are combined by squares (Zou and
Donner), and the interval is never narrower than that of the differences. Student's p-value is not given there, as
it rests on the same missing spread: ``sign_p`` is exact for any number of pairs. Simulated, 95 % held the truth in
0.96 or more of samples of 4 to 30 pairs, of which one side recovered in 80 to 100 % and the other in 0 to 30 %.

    Andersen, P. K., Hansen, M. G., Klein, J. P. (2004). Regression analysis of restricted mean survival time based
        on pseudo-observations. Lifetime Data Analysis 10, 335-350.
    Clopper, C., Pearson, E. S. (1934). The use of confidence or fiducial limits illustrated in the case of the
        binomial. Biometrika 26, 404-413.
    Dixon, W. J., Mood, A. M. (1946). The statistical sign test. Journal of the American Statistical Association
        41, 557-566.
    Mantel, N. (1966). Evaluation of survival data and two new rank order statistics arising in its consideration.
        Cancer Chemotherapy Reports 50, 163-170. (The log-rank test.)
    Welch, B. L. (1947). The generalization of "Student's" problem when several different population variances are
        involved. Biometrika 34, 28-35.
    Zou, G. Y., Donner, A. (2008). Construction of confidence limits about effect measures: a general approach.
        Statistics in Medicine 27, 1693-1702.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from monkeyproof.reports.stats.survival import (
    UNKNOWN,
    Estimate,
    Observation,
    kaplan_meier,
    pseudo_values_s,
    standard_error_s,
    student_quantile,
    tells_a_mean,
)

FEW = 5
"""From so many of the rarer way on, a share's error is near enough to normal (the usual rule), and so a mean's."""


def difference(
    ours: Sequence[Observation],
    reference: Sequence[Observation],
    horizon_s: float,
    confidence: float,
    *,
    paired: bool,
) -> tuple[Estimate, float | None]:
    """By how much our restricted mean is smaller than the reference's, and the two-sided p-value of no difference.

    ``paired``: the two are in the same order, and a trial is compared with its partner. Not bounded where a side
    has fewer than two trials, or all recovered and nothing differs. No p-value where a side has too few of the
    rarer way (see above).
    """
    if not tells_a_mean(ours, horizon_s) or not tells_a_mean(reference, horizon_s):
        return UNKNOWN, None
    means_s = restricted_mean_s(ours, horizon_s), restricted_mean_s(reference, horizon_s)
    sooner_s = means_s[1] - means_s[0]
    values_s = pseudo_values_s(ours, horizon_s), pseudo_values_s(reference, horizon_s)
    if paired:
        gains_s = [other_s - one_s for one_s, other_s in zip(*values_s, strict=True)]
        error_s, freedom = standard_error_s(gains_s, horizon_s), len(gains_s) - 1.0
    else:
        error_s, freedom = _welch(*values_s, horizon_s)
    reach_s = 0.0 if error_s is None else error_s * student_quantile(freedom, confidence)

    if _too_few(ours, reference, horizon_s) and min(len(ours), len(reference)) > 1:
        our_reach_s, their_reach_s = (_reach_s(side, horizon_s, confidence) for side in (ours, reference))
        low_s = max(reach_s, math.hypot(their_reach_s[0], our_reach_s[1]))
        high_s = max(reach_s, math.hypot(their_reach_s[1], our_reach_s[0]))
        # No two means are further apart than that.
        return Estimate(sooner_s, max(-horizon_s, sooner_s - low_s), min(horizon_s, sooner_s + high_s)), None
    if error_s is None:
        return Estimate(sooner_s, None, None), None
    from scipy import special

    p = 2 * float(special.stdtr(freedom, -abs(sooner_s) / error_s))
    return Estimate(sooner_s, sooner_s - reach_s, sooner_s + reach_s), p


def sign_p(pairs: Iterable[tuple[Observation, Observation]]) -> float | None:
    """Two-sided p-value of the exact sign test: whether either of a pair is as likely to have recovered first.

    Pairs that do not tell are left out: neither recovered, or one's watching ended before the other recovered.
    None: no pair tells.
    """
    first = [_before(one, other) for one, other in pairs if _before(one, other) != _before(other, one)]
    if not first:
        return None
    from scipy import stats

    return float(stats.binomtest(sum(first), len(first)).pvalue)


def log_rank_p(ours: Sequence[Observation], reference: Sequence[Observation]) -> float | None:
    """Two-sided p-value of the log-rank test (Mantel). None where it is not defined: nothing recovered, a side
    is empty, or everything ended at one time."""
    if not ours or not reference:
        return None
    import numpy as np
    from scipy import stats

    samples = [
        stats.CensoredData(
            uncensored=[seen.time_s for seen in side if seen.recovered],
            right=[seen.time_s for seen in side if not seen.recovered],
        )
        for side in (ours, reference)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        p = float(stats.logrank(*samples).pvalue)
    return p if math.isfinite(p) else None


def restricted_mean_s(observations: Sequence[Observation], horizon_s: float) -> float:
    return kaplan_meier(observations).restricted_mean_s(horizon_s)


def _welch(one_s: Sequence[float], other_s: Sequence[float], scale_s: float) -> tuple[float | None, float]:
    """Standard error of a difference of means, and its degrees of freedom (Welch and Satterthwaite)."""
    if min(len(one_s), len(other_s)) < 2:
        return None, 0.0
    # A side without spread has a standard error of 0 here; with two such sides nothing is known.
    parts = [((standard_error_s(side, scale_s) or 0.0) ** 2, len(side) - 1) for side in (one_s, other_s)]
    whole = sum(part for part, _ in parts)
    if whole == 0:
        return None, 0.0
    return math.sqrt(whole), 1 / sum((part / whole) ** 2 / freedom for part, freedom in parts)


def _too_few(ours: Sequence[Observation], reference: Sequence[Observation], horizon_s: float) -> bool:
    """Whether Student's t may miss an ending that few or no trials had. If all of both sides recovered, the
    horizon is the longest time itself, and nothing is known of later recoveries."""
    sides = [_ended(side, horizon_s) for side in (ours, reference)]
    return any(stuck for _, stuck in sides) and any(min(len(back_s), stuck) < FEW for back_s, stuck in sides)


def _ended(side: Sequence[Observation], horizon_s: float) -> tuple[list[float], float]:
    """When the trials recovered up to the horizon, and how many were stuck there. One whose watching ended earlier
    counts as the part of the horizon for which it was watched: it speaks for no more."""
    back_s = [seen.time_s for seen in side if seen.recovered and seen.time_s <= horizon_s]
    others = [seen for seen in side if not (seen.recovered and seen.time_s <= horizon_s)]
    return back_s, math.fsum(min(1.0, seen.time_s / horizon_s) for seen in others)


def _reach_s(side: Sequence[Observation], horizon_s: float, confidence: float) -> tuple[float, float]:
    """How far the limits of its restricted mean lie below and above it."""
    mean_s, (back_s, stuck) = restricted_mean_s(side, horizon_s), _ended(side, horizon_s)
    count = len(back_s) + stuck
    error_s = standard_error_s(pseudo_values_s(side, horizon_s), horizon_s)
    if error_s is None:
        # All alike: any other end is as good as unseen, and may be anywhere.
        other = _share_high(0, count, confidence)
        return other * mean_s, other * (horizon_s - mean_s)
    reach_s = error_s * student_quantile(len(side) - 1, confidence)
    below_s = above_s = 0.0
    if stuck and len(back_s) < FEW:
        below_s = (_share_high(len(back_s), count, confidence) - len(back_s) / count) * horizon_s
    if back_s and stuck < FEW:
        above_s = (_share_high(stuck, count, confidence) - stuck / count) * (horizon_s - fmean(back_s))
    return max(reach_s, below_s), max(reach_s, above_s)


def _share_high(successes: float, count: float, confidence: float) -> float:
    """Clopper and Pearson's upper limit of a share; counts need not be whole."""
    if successes >= count:
        return 1.0
    from scipy import special

    return float(special.betaincinv(successes + 1, count - successes, (1 + confidence) / 2))


def _before(one: Observation, other: Observation) -> bool:
    """Whether one is known to have recovered before the other."""
    if not one.recovered:
        return False
    return one.time_s < other.time_s or (one.time_s == other.time_s and not other.recovered)
