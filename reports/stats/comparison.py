"""Comparing two arms of a campaign, or the same arm of two campaigns: effect first, p-value second.

The effect, its interval and the tests are in ``effect``. The log-rank test sees more than the means, but knows
nothing of pairs. All compare measured times, and presume that the two campaigns ran alike: ``differences`` lists
where they did not.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monkeyproof.config.target_file import Slo
from monkeyproof.record.history import TRIAL_FILE
from monkeyproof.reports.stats.effect import difference, log_rank_p, restricted_mean_s, sign_p
from monkeyproof.reports.stats.survival import Estimate, Observation, common_horizon_s, observe, observe_all
from monkeyproof.types import Campaign, Json, TrialResult

NO_HEALER = "none"
"""The arm that all others are compared with."""

ROLES = {"inject": "the fault", "evidence": "its evidence", "undo": "its undo"}
"""The roles of activities, as trials record them and as people read them."""


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
    """Of the paired difference of restricted means; None where it is not paired or not defined, and where too few
    trials differ for it: then use ``sign_p``."""
    sign_p: float | None = None
    """Of the exact sign test: which of a pair recovered first. None where it is not paired, or no pair tells."""
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
    """In what the two campaigns were not alike, so that a difference between their trials may come from it.

    Ours is called A, the reference B. With their ``folders``, each trial's own file is compared too: whether
    experiments of one name were different files, or had other activities named, and load and windows.
    """
    found: list[str] = []
    if ours.target != reference.target:
        found.append(f"the targets differ ({ours.target} in A, {reference.target} in B)")
    mine, theirs = _faulted(ours), _faulted(reference)
    if folders is not None:
        found += _unlike_trials(_headers(mine, folders[0]), _headers(theirs, folders[1]))
    found += [f"the SLOs differ in {words}" for words in _unequal(ours.slo, reference.slo)]
    found += [f"the probers differ in {words}" for words in _unequal(ours.prober, reference.prober)]
    found += [f"the machines differ in {words}" for words in _unequal(ours.machine, reference.machine)]
    found += [f"the versions differ in {words}" for words in _unequal(ours.versions, reference.versions)]
    for name, one, other in (("A", mine, theirs), ("B", theirs, mine)):
        alone = [f"{experiment} ({arm})" for experiment, arm in one if (experiment, arm) not in other]
        if alone:
            found.append(f"only {name} tried {', '.join(alone)}")
    return found


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
        sign_p=sign_p(pairs),
        restricted_mean_s=restricted_mean_s(ours, horizon_s) if known else None,
        reference_restricted_mean_s=restricted_mean_s(theirs, horizon_s) if known else None,
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
        for one, other in zip(ours, theirs, strict=False):  # A trial without a partner is not paired.
            seen, seen_other = observe(one.recovery), observe(other.recovery)
            if seen is not None and seen_other is not None:
                found.append((seen, seen_other))
    return found


def _faulted(campaign: Campaign) -> dict[tuple[str, str], list[TrialResult]]:
    """The trials of each experiment and arm, without shams and storms."""
    found: dict[tuple[str, str], list[TrialResult]] = defaultdict(list)
    for trial in campaign.trials:
        if not trial.apart:
            found[trial.experiment, trial.arm].append(trial)
    return dict(found)


def _headers(
    trials: Mapping[tuple[str, str], Sequence[TrialResult]], folder: Path
) -> dict[str, list[Mapping[str, Json]]]:
    """What each experiment's trials wrote of themselves when they began."""
    found: dict[str, list[Mapping[str, Json]]] = defaultdict(list)
    for (experiment, _), ran in trials.items():
        found[experiment] += [json.loads((folder / trial.folder / TRIAL_FILE).read_bytes()) for trial in ran]
    return dict(found)


def _unlike_trials(
    mine: Mapping[str, Sequence[Mapping[str, Json]]], theirs: Mapping[str, Sequence[Mapping[str, Json]]]
) -> list[str]:
    """In what the trials of the experiments that both tried were not alike."""
    found: list[str] = []
    common = [name for name in mine if name in theirs]
    for name in common:
        here, there = (_distinct(side[name], "experiment_sha256") for side in (mine, theirs))
        if _differ(here, there):
            found.append(f"the experiment {name} was another file in each")
        for key, role in ROLES.items():
            here, there = (_distinct(side[name], key) for side in (mine, theirs))
            if _differ(here, there):
                named = f"({_named(here)} in A, {_named(there)} in B)"
                found.append(f"in the experiment {name}, another activity was named as {role} {named}")
    for key, plural in (("load", "loads"), ("windows", "windows")):
        here, there = (
            _distinct([header for name in common for header in side[name]], key) for side in (mine, theirs)
        )
        if len(here) == len(there) == 1:
            found += [f"the {plural} differ in {words}" for words in _unequal(here[0], there[0])]
        elif _differ(here, there):
            found.append(f"the {plural} differ, and were not the same in all trials of one campaign")
    return found


def _distinct(headers: Sequence[Mapping[str, Json]], key: str) -> list[Json]:
    """The distinct values of a key. A trial of an older version may not have recorded it."""
    found: list[Json] = []
    for header in headers:
        if key in header and header[key] not in found:
            found.append(header[key])
    return found


def _differ(here: Sequence[Json], there: Sequence[Json]) -> bool:
    """Whether the values differ, in any order. False where one side recorded none."""
    return bool(here and there) and (
        any(one not in there for one in here) or any(other not in here for other in there)
    )


def _named(activities: Sequence[Json]) -> str:
    return " or ".join(str(name) or "as in its file" for name in activities)


def _unequal(one: Mapping[str, Json], other: Mapping[str, Json], within: str = "") -> list[str]:
    """``latency_ms (250 in A, 300 in B)``, for every key that is not the same in both."""
    found: list[str] = []
    for key in dict.fromkeys([*one, *other]):
        here, there = one.get(key), other.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found += _unequal(here, there, f"{within}{key}.")
        elif here != there:
            found.append(f"{within}{key} ({_word(here)} in A, {_word(there)} in B)")
    return found


def _word(value: Json) -> str:
    return "none" if value is None else str(value)
