"""Comparing two arms of a campaign, or the same arm of two campaigns: effect first, p-value second.

The effect is the difference of the restricted means at the horizon that both know. Its interval is Student's t:
of the differences of pseudo-values where trials are paired by seed, Welch's where they are not. The log-rank test
sees more than the means, but knows nothing of pairs. Both compare what was measured, and presume that the two
campaigns ran alike: ``differences`` says where they did not.

    Andersen, P. K., Hansen, M. G., Klein, J. P. (2004). Regression analysis of restricted mean survival time based
        on pseudo-observations. Lifetime Data Analysis 10, 335-350.
    Welch, B. L. (1947). The generalization of "Student's" problem when several different population variances are
        involved. Biometrika 34, 28-35.
    Mantel, N. (1966). Evaluation of survival data and two new rank order statistics arising in its consideration.
        Cancer Chemotherapy Reports 50, 163-170. (The log-rank test.)
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monkeyproof.config import Slo
from monkeyproof.history import TRIAL_FILE
from monkeyproof.reports.survival import (
    UNKNOWN,
    Estimate,
    Observation,
    common_horizon_s,
    kaplan_meier,
    observe,
    observe_all,
    pseudo_values_s,
    standard_error_s,
    student_quantile,
    tells_a_mean,
)
from monkeyproof.types import Campaign, Json, TrialResult

NO_HEALER = "none"
"""The arm that all others are compared with."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Trials of one experiment, ours against a reference. Positive effects are in our favour."""

    experiment: str
    name: str
    """Of ours: an arm, or a campaign."""
    reference: str
    arm: str
    """Of ours; equal to ``name`` where arms are compared."""
    count: int
    """Valid trials of ours."""
    reference_count: int
    pairs_count: int
    """Trials of equal seeds, both valid. 0: not paired, all trials are compared; so too where fewer than half of
    the smaller side have a partner, as comparing the pairs alone would throw most trials away."""
    recovered_count: int
    """Of the trials compared (pairs, if there are any), recovered under the fault."""
    reference_recovered_count: int
    only_ours_count: int
    only_reference_count: int
    """Pairs in which only one of the two recovered."""
    sooner: Estimate
    """By how much the restricted mean is smaller, in seconds, with its interval."""
    horizon_s: float
    """Of the restricted means."""
    log_rank_p: float | None
    """Two-sided, of the trials compared, taken as not paired; None where it is not defined."""
    paired_p: float | None = None
    """Of the paired difference of restricted means; None where it is not paired or not defined."""
    restricted_mean_s: float | None = None
    """Of the trials compared."""
    reference_restricted_mean_s: float | None = None

    @property
    def compared_count(self) -> int:
        """Of ours: the pairs, or all if there are none."""
        return self.pairs_count or self.count

    @property
    def reference_compared_count(self) -> int:
        return self.pairs_count or self.reference_count


def compare_arms(campaign: Campaign, slo: Slo) -> tuple[Comparison, ...]:
    """Every arm of every experiment with the same experiment's arm without a healer. Shams are not compared."""
    by_experiment: dict[str, dict[str, list[TrialResult]]] = defaultdict(dict)
    for (experiment, arm), trials in _faulted(campaign).items():
        by_experiment[experiment][arm] = trials
    return tuple(
        _compare((experiment, arm, NO_HEALER, arm), trials, arms[NO_HEALER], slo.recovery.confidence)
        for experiment, arms in by_experiment.items()
        if NO_HEALER in arms
        for arm, trials in arms.items()
        if arm != NO_HEALER
    )


def compare_campaigns(ours: Campaign, reference: Campaign, slo: Slo) -> tuple[Comparison, ...]:
    """The same experiment and arm in two campaigns. Shams are not compared."""
    theirs = _faulted(reference)
    return tuple(
        _compare(
            (experiment, ours.name, reference.name, arm), trials, theirs[experiment, arm], slo.recovery.confidence
        )
        for (experiment, arm), trials in _faulted(ours).items()
        if (experiment, arm) in theirs
    )


def differences(ours: Campaign, reference: Campaign, folders: tuple[Path, Path] | None = None) -> list[str]:
    """In what the two campaigns were not alike, so that what differs in their trials may come from it.

    Ours is called A, the reference B. With their ``folders``, also whether experiments of one name were different
    files.
    """
    said: list[str] = []
    if ours.target != reference.target:
        said.append(f"the targets differ ({ours.target} in A, {reference.target} in B)")
    mine, theirs = _faulted(ours), _faulted(reference)
    if folders is not None:
        digests = [_digests(trials, folder) for trials, folder in zip((mine, theirs), folders, strict=True)]
        changed = [name for name in digests[0] if name in digests[1] and digests[0][name] != digests[1][name]]
        said += [f"the experiment {name} was another file in each" for name in changed]
    said += [f"the SLOs differ in {words}" for words in _unequal(ours.slo, reference.slo)]
    said += [f"the probers differ in {words}" for words in _unequal(ours.prober, reference.prober)]
    said += [f"the machines differ in {words}" for words in _unequal(ours.machine, reference.machine)]
    said += [f"the versions differ in {words}" for words in _unequal(ours.versions, reference.versions)]
    for name, one, other in (("A", mine, theirs), ("B", theirs, mine)):
        alone = [f"{experiment} ({arm})" for experiment, arm in one if (experiment, arm) not in other]
        if alone:
            said.append(f"only {name} tried {', '.join(alone)}")
    return said


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


def difference(
    ours: Sequence[Observation],
    reference: Sequence[Observation],
    horizon_s: float,
    confidence: float,
    *,
    paired: bool,
) -> tuple[Estimate, float | None]:
    """By how much our restricted mean is smaller than the reference's, and the two-sided p-value of no difference.

    ``paired``: the two are in the same order, and a trial is compared with its partner. Not bounded, and without
    a p-value, where the trials show no spread. A side that ended alike in all its trials adds no uncertainty of
    its own here, though few such trials leave some: read the interval beside the counts.
    """
    if not tells_a_mean(ours, horizon_s) or not tells_a_mean(reference, horizon_s):
        return UNKNOWN, None
    sooner_s = _mean_s(reference, horizon_s) - _mean_s(ours, horizon_s)
    our_values_s, their_values_s = pseudo_values_s(ours, horizon_s), pseudo_values_s(reference, horizon_s)
    if paired:
        gains_s = [other_s - one_s for one_s, other_s in zip(our_values_s, their_values_s, strict=True)]
        error_s, freedom = standard_error_s(gains_s, horizon_s), len(gains_s) - 1.0
    else:
        error_s, freedom = _welch(our_values_s, their_values_s, horizon_s)
    if error_s is None:
        return Estimate(sooner_s, None, None), None
    from scipy import special

    reach_s = error_s * student_quantile(freedom, confidence)
    p = 2 * float(special.stdtr(freedom, -abs(sooner_s) / error_s))
    return Estimate(sooner_s, sooner_s - reach_s, sooner_s + reach_s), p


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


def _compare(
    names: tuple[str, str, str, str],
    trials: Sequence[TrialResult],
    reference_trials: Sequence[TrialResult],
    confidence: float,
) -> Comparison:
    ours, theirs = observe_all(trials), observe_all(reference_trials)
    counts = len(ours), len(theirs)
    pairs = _pairs(trials, reference_trials)
    if 2 * len(pairs) < min(counts):
        pairs = []
    if pairs:
        ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
    horizon_s = common_horizon_s([ours, theirs]) if ours and theirs else 0.0
    sooner, p = difference(ours, theirs, horizon_s, confidence, paired=bool(pairs))
    known = sooner.value_s is not None
    experiment, name, reference, arm = names
    return Comparison(
        experiment=experiment,
        name=name,
        reference=reference,
        arm=arm,
        count=counts[0],
        reference_count=counts[1],
        pairs_count=len(pairs),
        recovered_count=sum(seen.recovered for seen in ours),
        reference_recovered_count=sum(seen.recovered for seen in theirs),
        only_ours_count=sum(one.recovered and not other.recovered for one, other in pairs),
        only_reference_count=sum(other.recovered and not one.recovered for one, other in pairs),
        sooner=sooner,
        horizon_s=horizon_s,
        log_rank_p=log_rank_p(ours, theirs),
        paired_p=p if pairs else None,
        restricted_mean_s=_mean_s(ours, horizon_s) if known else None,
        reference_restricted_mean_s=_mean_s(theirs, horizon_s) if known else None,
    )


def _pairs(
    trials: Iterable[TrialResult], reference: Iterable[TrialResult]
) -> list[tuple[Observation, Observation]]:
    """Trials with the same seed are paired in the order in which they were planned."""
    by_seed: dict[int, tuple[list[TrialResult], list[TrialResult]]] = defaultdict(lambda: ([], []))
    for side, ran in enumerate((trials, reference)):
        for trial in sorted(ran, key=lambda trial: trial.index):
            by_seed[trial.seed][side].append(trial)
    found: list[tuple[Observation, Observation]] = []
    for ours, theirs in by_seed.values():
        for one, other in zip(ours, theirs, strict=False):  # What has no partner is not paired.
            seen, seen_other = observe(one.recovery), observe(other.recovery)
            if seen is not None and seen_other is not None:
                found.append((seen, seen_other))
    return found


def _faulted(campaign: Campaign) -> dict[tuple[str, str], list[TrialResult]]:
    """The trials of each experiment and arm, without shams."""
    found: dict[tuple[str, str], list[TrialResult]] = defaultdict(list)
    for trial in campaign.trials:
        if not trial.sham:
            found[trial.experiment, trial.arm].append(trial)
    return dict(found)


def _digests(trials: Mapping[tuple[str, str], Sequence[TrialResult]], folder: Path) -> dict[str, set[str]]:
    """Of the files that each experiment was run from."""
    found: dict[str, set[str]] = defaultdict(set)
    for (experiment, _), ran in trials.items():
        for trial in ran:
            header = json.loads((folder / trial.folder / TRIAL_FILE).read_bytes())
            found[experiment].add(str(header.get("experiment_sha256")))
    return found


def _mean_s(observations: Sequence[Observation], horizon_s: float) -> float:
    return kaplan_meier(observations).restricted_mean_s(horizon_s)


def _unequal(one: Mapping[str, Json], other: Mapping[str, Json], within: str = "") -> list[str]:
    """``latency_ms (250 in A, 300 in B)``, for every key that is not the same in both."""
    said: list[str] = []
    for key in dict.fromkeys([*one, *other]):
        here, there = one.get(key), other.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            said += _unequal(here, there, f"{within}{key}.")
        elif here != there:
            said.append(f"{within}{key} ({_word(here)} in A, {_word(there)} in B)")
    return said


def _word(value: Json) -> str:
    return "none" if value is None else str(value)
