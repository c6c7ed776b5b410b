"""Statistics over the trials of a campaign: by experiment and arm, and by arm. The mathematics is scipy's.

Observations, curves and means over trials are in ``survival``; shares in ``proportions``; the comparison of arms
in ``comparison``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from monkeyproof.config.target_file import Slo
from monkeyproof.reports.stats.comparison import Comparison, compare_arms
from monkeyproof.reports.stats.proportions import Proportion, share_of
from monkeyproof.reports.stats.survival import (
    UNKNOWN,
    Estimate,
    Observation,
    Survival,
    common_horizon_s,
    in_time,
    kaplan_meier,
    observe_all,
    restricted_mean,
)
from monkeyproof.types import Campaign, Outcome, TrialResult


@dataclass(frozen=True, slots=True)
class TrialGroup:
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
    confidence: float
    """Of all intervals."""
    in_time: Proportion | None
    """Recovered within the deadline. Censored before it counts as not recovered."""
    absorbed: Proportion | None
    """Valid trials without one bad answer."""
    served_wrong: Proportion | None
    """Valid trials in which at least one wrong answer was served."""
    censored_early_count: int
    """Valid trials whose watching under the fault ended before the deadline."""
    sham: bool = False
    """Nothing was broken in these trials; they are in no other group."""
    storm: bool = False
    """Faults came and went by chance in these trials; they are in no other group."""

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
        """Trials that count for nothing: invalid ones, and those whose fault is not proven."""
        return len(self.trials) - len(self.observations)

    @property
    def median(self) -> Estimate:
        """Time by which half had recovered."""
        return self.survival.quantile(0.5) if self.survival else UNKNOWN

    @property
    def p90(self) -> Estimate:
        """Time by which nine in ten had recovered."""
        return self.survival.quantile(0.9) if self.survival else UNKNOWN

    @property
    def restricted_mean(self) -> Estimate:
        """Mean time without right answers, up to the horizon."""
        return restricted_mean(self.observations, self.horizon_s, self.confidence)

    @property
    def median_s(self) -> float | None:
        return self.median.value_s

    @property
    def median_earliest_s(self) -> float | None:
        """The median if every trial had recovered at the lower end of its interval. ``median_s`` takes the upper
        ends, so the two bound the error that the times of the users' questions leave (interval censoring)."""
        sample = observe_all(self.trials, earliest=True)
        return kaplan_meier(sample).quantile_s(0.5) if sample else None

    @property
    def ttr_width_median_s(self) -> float | None:
        """Median width of the intervals in which the trials recovered. None: none has one."""
        found = [trial.recovery for trial in self.trials]
        widths_s = [one.ttr.width_s for one in found if one.outcome.counts and one.outcome.under_fault and one.ttr]
        return median(widths_s) if widths_s else None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Everything that is computed over the trials of a campaign."""

    groups: tuple[TrialGroup, ...]
    """One for each experiment and arm; shams and storms in groups of their own."""
    arms: tuple[TrialGroup, ...]
    """Over all experiments, without shams and storms."""
    pairs: tuple[Comparison, ...]
    """Each arm with the one without a healer, where both have a valid trial."""


def summarise(campaign: Campaign, slo: Slo) -> Statistics:
    """Group the trials by experiment and arm, and by arm; and compare the arms."""
    by_experiment: dict[tuple[str, bool, bool], dict[str, list[TrialResult]]] = defaultdict(
        lambda: defaultdict(list)
    )
    by_arm: dict[str, list[TrialResult]] = defaultdict(list)
    for trial in campaign.trials:
        by_experiment[trial.experiment, trial.sham, trial.storm][trial.arm].append(trial)
        if not trial.apart:
            by_arm[trial.arm].append(trial)
    sequential = bool(campaign.plan.get("sequential"))
    groups = [
        group
        for arms in by_experiment.values()
        for group in _groups(arms, slo, pooled=False, sequential=sequential)
    ]
    return Statistics(
        tuple(groups),
        tuple(_groups(by_arm, slo, pooled=True, sequential=sequential)),
        tuple(pair for pair in compare_arms(campaign, slo) if pair.count and pair.reference_count),
    )


def _groups(
    arms: Mapping[str, list[TrialResult]], slo: Slo, *, pooled: bool, sequential: bool
) -> list[TrialGroup]:
    horizon_s = common_horizon_s(observe_all(trials) for trials in arms.values())
    return [_group(trials, horizon_s, slo, pooled=pooled, sequential=sequential) for trials in arms.values()]


def _group(
    trials: Sequence[TrialResult], horizon_s: float, slo: Slo, *, pooled: bool, sequential: bool
) -> TrialGroup:
    sample = observe_all(trials)
    within_s, confidence = slo.recovery.within_s, slo.recovery.confidence
    valid = [trial for trial in trials if trial.recovery.outcome.counts]

    def share(of: Callable[[TrialResult], bool]) -> Proportion | None:
        # A campaign that ends by its verdict needs limits that allow for it, in every share.
        return share_of(sum(map(of, valid)), len(valid), confidence, sequential=sequential)

    return TrialGroup(
        experiment="" if pooled else trials[0].experiment,
        title="all experiments" if pooled else trials[0].title,
        arm=trials[0].arm,
        trials=tuple(trials),
        observations=tuple(sample),
        survival=kaplan_meier(sample, confidence) if sample else None,
        horizon_s=horizon_s,
        deadline_s=within_s,
        confidence=confidence,
        in_time=share(lambda trial: in_time(trial.recovery, within_s) is True),
        absorbed=share(lambda trial: trial.recovery.outcome is Outcome.ABSORBED),
        served_wrong=share(lambda trial: trial.recovery.wrong_count > 0),
        censored_early_count=sum(not seen.recovered and seen.time_s < within_s for seen in sample),
        sham=not pooled and trials[0].sham,
        storm=not pooled and trials[0].storm,
    )
