"""Shares with confidence limits: exact for a fixed number of trials, sequential for a campaign that ends early.

The exact ones (Clopper-Pearson) hold for a number of trials that was fixed beforehand; the sequential ones hold at
every look, for a campaign that ends as soon as its verdict is decided.

The sequential limits are a confidence sequence: for every candidate share an e-process (a bet against it that is
fair if the candidate is true, so that its value rarely grows large) is computed, and the candidates that are not
excluded form the interval. By Ville's inequality the chance that a fair bet ever reaches ``1 / a`` is at most
``a``, at any look and for any reason to stop.

    Wald, A. (1945). Sequential tests of statistical hypotheses. Annals of Mathematical Statistics 16, 117-186.
    Robbins, H. (1970). Statistical methods related to the law of the iterated logarithm. Annals of Mathematical
        Statistics 41, 1397-1409. (Mixtures of likelihood ratios, and limits that hold at every look.)
    Ramdas, A., Grünwald, P., Vovk, V., Shafer, G. (2023). Game-theoretic statistics and safe anytime-valid
        inference. Statistical Science 38, 576-601.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

TRIALS_MAX = 10_000
"""Beyond this many more trials, no number is named."""

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Proportion:
    """``successes`` of ``count``, with its two-sided confidence interval."""

    successes: int
    count: int
    low: float
    high: float
    confidence: float
    sequential: bool = False
    """The limits hold for any number of looks and any time of stopping (a confidence sequence); else they are
    exact (Clopper-Pearson), for a number of trials that was fixed beforehand."""


def exact_share(successes: int, count: int, confidence: float) -> Proportion | None:
    """A share with its Clopper-Pearson interval. None of none is no share.

    Clopper, C., Pearson, E. S. (1934). The use of confidence or fiducial limits illustrated in the case of the
    binomial. Biometrika 26, 404-413.
    """
    if count == 0:
        return None
    from scipy import stats

    found = stats.binomtest(successes, count).proportion_ci(confidence, method="exact")
    return Proportion(successes, count, float(found.low), float(found.high), confidence)


def sequential_share(successes: int, count: int, confidence: float) -> Proportion | None:
    """A share with limits that hold at every look and any stopping (see above). None of none is no share.

    The limits depend on these counts alone; earlier looks do not narrow them.
    """
    if count == 0:
        return None
    failures = count - successes
    low = _sequential_low(successes, failures, confidence)
    high = 1 - _sequential_low(failures, successes, confidence)
    return Proportion(successes, count, low, high, confidence, sequential=True)


def share_of(successes: int, count: int, confidence: float, *, sequential: bool) -> Proportion | None:
    """The one or the other."""
    return (sequential_share if sequential else exact_share)(successes, count, confidence)


def log_evidence_above(successes: int, failures: int, share: float) -> float:
    """Logarithm of the e-value against "the share of successes is at most ``share``".

    Half the stake is on a share of 1 and half on a share drawn evenly from ``(share, 1)``. Under any true share up
    to ``share`` each factor that a trial contributes has an expectation of at most 1 (the likelihood ratio of a
    larger share to ``share`` rises with a success, and successes are no likelier than at ``share``).
    """
    from scipy import special

    at_share = successes * math.log(share) + failures * math.log1p(-share)
    # The integral of p^s (1-p)^f over (share, 1) is B(s+1, f+1) * P(Beta(s+1, f+1) > share).
    beyond = float(special.betaincc(successes + 1, failures + 1, share))
    spread = -math.inf
    if beyond > 0:
        whole = float(special.betaln(successes + 1, failures + 1))
        spread = whole + math.log(beyond) - math.log1p(-share) - at_share
    certain = -successes * math.log(share) if failures == 0 else -math.inf
    return float(special.logsumexp([certain, spread])) - math.log(2)


def more_all_good(successes: int, count: int, share: float, confidence: float, *, sequential: bool) -> int | None:
    """How many more trials, all successes, until the low limit reaches ``share``. None: beyond the most."""

    def enough(more: int) -> bool:
        return shows_at_least(successes + more, count + more, share, confidence, sequential=sequential)

    return _first(enough)


def more_until_decided(
    successes: int, at_most: int, count: int, share: float, confidence: float, *, sequential: bool
) -> int | None:
    """How many more trials at the share seen until the limits leave ``share`` on one side. None: beyond the most.

    ``successes`` are the certain ones, ``at_most`` those that the undecided would make if all had succeeded.
    """
    if count == 0:
        return None

    def decided(more: int) -> bool:
        good, most = round(more * successes / count), round(more * at_most / count)
        passes = shows_at_least(successes + good, count + more, share, confidence, sequential=sequential)
        return passes or shows_less(at_most + most, count + more, share, confidence, sequential=sequential)

    return _first(decided)


def shows_at_least(successes: int, count: int, share: float, confidence: float, *, sequential: bool) -> bool:
    """Whether the low limit is at least ``share``, by the test that the limit inverts: no root is sought."""
    if sequential:
        return log_evidence_above(successes, count - successes, share) >= math.log(2 / (1 - confidence))
    from scipy import special

    if successes == 0:
        return False
    # P(X >= s | share), which Clopper-Pearson compares with half of what may be wrong.
    return float(special.betainc(successes, count - successes + 1, share)) <= (1 - confidence) / 2


def shows_less(successes: int, count: int, share: float, confidence: float, *, sequential: bool) -> bool:
    """Whether the high limit is below ``share``."""
    return shows_at_least(count - successes, count, 1 - share, confidence, sequential=sequential)


def _first(enough: Callable[[int], bool]) -> int | None:
    """The smallest number from 1 up that is enough, if more never is less."""
    top = 1
    while not enough(top):
        if top >= TRIALS_MAX:
            return None
        top = min(2 * top, TRIALS_MAX)
    bottom = top // 2
    while top - bottom > 1:
        middle = (top + bottom) // 2
        if enough(middle):
            top = middle
        else:
            bottom = middle
    return top


def _sequential_low(successes: int, failures: int, confidence: float) -> float:
    """The largest share that is excluded as too small; 0 if none is.

    There is one root. With q = c + u (1 - c), the stake at u multiplies by exp(l(q) - l(c)), l being the log
    likelihood of what was seen. It is concave, so for c below the share seen the exponent falls as c grows, for
    every u; and above the share seen no exponent is positive, so that nothing is excluded there.
    """
    if successes == 0:
        return 0.0
    from scipy import optimize

    needed = math.log(2 / (1 - confidence))  # Each side may err with half of what may be wrong.

    def beyond(share: float) -> float:
        return log_evidence_above(successes, failures, share) - needed

    seen = min(successes / (successes + failures), 1 - _TINY)
    if beyond(_TINY) < 0:
        return 0.0
    return float(optimize.brentq(beyond, _TINY, seen, xtol=_TINY))
