"""The verdict: a campaign against its target's SLO. A pure function of the campaign.

What is not known never passes: a trial that was watched for less than the deadline counts against a pass and not
for a fail, and an invalid trial counts for nothing. docs/verdict.md states the whole rule.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from monkeyproof.config.target_file import Slo
from monkeyproof.reports.model.verdict_rules import (
    Decision,
    Verdict,
    judge_shams,
    judge_storms,
    judge_trials,
    judge_without_trials,
)
from monkeyproof.reports.stats.comparison import NO_HEALER
from monkeyproof.types import Campaign, Json, TrialResult

__all__ = ["CampaignVerdict", "Decision", "Verdict", "as_json", "judge"]

SHAM = "sham"
"""The experiment of a verdict on shams where none was run."""

_Key = tuple[str, str]
"""Experiment and arm."""


@dataclass(frozen=True, slots=True)
class CampaignVerdict:
    """Of the whole campaign."""

    decision: Decision
    reason: str
    verdicts: tuple[Verdict, ...] = ()
    sequential: bool = False


@dataclass(frozen=True, slots=True)
class _Grouped:
    """A campaign's trials as the rules want them; each kind in the order in which it first ran."""

    faulted: dict[_Key, list[TrialResult]] = field(default_factory=lambda: defaultdict(list))
    storms: dict[_Key, list[TrialResult]] = field(default_factory=lambda: defaultdict(list))
    shams: dict[str, list[TrialResult]] = field(default_factory=lambda: defaultdict(list))
    """By arm."""

    @classmethod
    def of(cls, trials: Iterable[TrialResult]) -> _Grouped:
        found = cls()
        for trial in trials:
            if trial.sham:
                found.shams[trial.arm].append(trial)
            else:
                (found.storms if trial.storm else found.faulted)[trial.experiment, trial.arm].append(trial)
        return found


def judge(campaign: Campaign, slo: Slo) -> CampaignVerdict:
    """Judge every experiment under every arm, and the campaign as a whole."""
    sequential = bool(campaign.plan.get("sequential", False))
    arms = list(dict.fromkeys([*campaign.plan.get("arms", ()), *(trial.arm for trial in campaign.trials)]))
    trials = _Grouped.of(campaign.trials)
    verdicts = [judge_trials(group, slo, sequential=sequential) for group in trials.faulted.values()]
    verdicts += [judge_storms(group, slo) for group in trials.storms.values()]
    verdicts += [judge_shams(group, slo) for group in trials.shams.values()]
    verdicts += _not_run(campaign, arms, trials, slo, sequential=sequential)
    if any(arm != NO_HEALER for arm in arms):  # The arm without a healer is the reference of the others.
        verdicts = [replace(one, judged=False) if one.arm == NO_HEALER else one for one in verdicts]
    decision, reason = _overall(campaign, verdicts)
    return CampaignVerdict(decision, reason, tuple(verdicts), sequential)


def _not_run(
    campaign: Campaign, arms: Sequence[str], trials: _Grouped, slo: Slo, *, sequential: bool
) -> list[Verdict]:
    """The verdicts on planned experiments without a trial, and on arms without the shams that the SLO needs."""
    run = {(trial.experiment, trial.arm) for trial in campaign.trials}
    planned = [(name, arm) for name in campaign.plan.get("experiments", ()) for arm in arms or [""]]
    verdicts = [judge_without_trials(*key, slo, sequential=sequential) for key in planned if key not in run]
    if slo.false_heals is None:
        return verdicts
    unproven = [arm for arm in arms if arm != NO_HEALER and arm not in trials.shams]
    return verdicts + [_no_shams(arm) for arm in unproven if (SHAM, arm) not in planned]


def as_json(verdict: CampaignVerdict) -> dict[str, Json]:
    """The verdict as plain dictionaries, lists, words and numbers."""

    def plain(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        return {key: _plain(value) for key, value in pairs}

    return dataclasses.asdict(verdict, dict_factory=plain)


def _plain(value: Json) -> Json:
    if isinstance(value, StrEnum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def _no_shams(arm: str) -> Verdict:
    reason = "no sham was run, so false heals cannot be judged; --shams N runs them"
    return Verdict(SHAM, arm, Decision.INCONCLUSIVE, reason, more_at_least=1)


def _overall(campaign: Campaign, verdicts: Sequence[Verdict]) -> tuple[Decision, str]:
    """The worst of what is judged. A campaign in which nothing was judged does not pass."""
    left = list(dict.fromkeys(words for trial in campaign.trials for words in trial.not_reverted))
    if left:
        return Decision.ABORTED, "not everything could be reverted: " + "; ".join(left)
    if campaign.aborted:
        return Decision.ABORTED, campaign.aborted
    judged = [one for one in verdicts if one.judged]
    if not campaign.trials:
        return Decision.INCONCLUSIVE, "no trial was run"
    if not judged:
        return Decision.INCONCLUSIVE, "nothing was run that is judged"
    for decision, words in ((Decision.FAIL, "failed"), (Decision.INCONCLUSIVE, "inconclusive")):
        found = [one for one in judged if one.decision is decision]
        if found:
            others = f" (and {len(found) - 1} more {words})" if len(found) > 1 else ""
            return decision, f"{_name(found[0])}: {found[0].reason}{others}"
    if len(judged) == 1:
        return Decision.PASS, f"{_name(judged[0])}: {judged[0].reason}"
    return Decision.PASS, f"each of {len(judged)} passed: " + ", ".join(_name(one) for one in judged)


def _name(one: Verdict) -> str:
    arm = "no healer" if one.arm == NO_HEALER else one.arm
    return f"{one.experiment} ({arm})" if arm else one.experiment
