"""The verdict: the campaign against the target's SLO. A pure function of the campaign.

What is not known never passes: a trial whose watching ended before the deadline counts against a pass and not for
a fail, and an invalid one counts for nothing. docs/verdict.md tells the whole rule.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from monkeyproof.config.target_file import Slo
from monkeyproof.reports.model import verdict_text
from monkeyproof.reports.stats.comparison import NO_HEALER
from monkeyproof.reports.stats.proportions import Share, more_all_good, more_until_decided, share_of
from monkeyproof.reports.stats.survival import in_time
from monkeyproof.types import Campaign, Json, Outcome, TrialResult

SHAM = "sham"
"""Under which a verdict on shams stands where none was run."""

_EPSILON = 1e-9
"""Products of shares are not exact: 0.29 of 100 is less than 29."""


class Decision(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one experiment under one arm."""

    experiment: str
    arm: str
    decision: Decision
    reason: str
    """One sentence for people, with the numbers that decided."""
    judged: bool = True
    """False: a reference arm (no healer beside arms with one), or shams to which no limit applies. It is shown,
    and is no part of the overall verdict."""
    in_time: Share | None = None
    """Recovered within the deadline, what is undecided counted as not recovered: its low limit decides a pass."""
    in_time_at_most: Share | None = None
    """The same, what is undecided counted as recovered: its high limit decides a fail."""
    trials_count: int = 0
    """Valid ones."""
    invalid_count: int = 0
    """Invalid and unproven ones."""
    undecided_count: int = 0
    """Valid trials whose watching under the fault ended before the deadline, while not recovered; or of which it
    is not known on which side of the deadline they recovered."""
    over_limit_count: int = 0
    """Trials that broke a hard limit."""
    more_at_least: int | None = None
    """Inconclusive: with this many more trials, all valid and in time, it would pass. None: no number is known."""
    more_expected: int | None = None
    """Inconclusive: about this many more would decide, if the share stays as seen. None: none up to 10,000."""
    hopeless: bool = False
    """Inconclusive, and more trials of the same will not decide it: something else has to be changed first."""


@dataclass(frozen=True, slots=True)
class CampaignVerdict:
    """Of the whole campaign."""

    decision: Decision
    reason: str
    verdicts: tuple[Verdict, ...] = ()
    sequential: bool = False


def judge(campaign: Campaign, slo: Slo) -> CampaignVerdict:
    """Judge every experiment under every arm, and the campaign as a whole."""
    sequential = bool(campaign.plan.get("sequential", False))
    trials: dict[tuple[str, str], list[TrialResult]] = defaultdict(list)
    shams: dict[str, list[TrialResult]] = defaultdict(list)
    storms: dict[tuple[str, str], list[TrialResult]] = defaultdict(list)
    for trial in campaign.trials:
        key = trial.experiment, trial.arm
        (shams[trial.arm] if trial.sham else storms[key] if trial.storm else trials[key]).append(trial)
    arms = list(dict.fromkeys([*campaign.plan.get("arms", ()), *(trial.arm for trial in campaign.trials)]))
    with_healer = [arm for arm in arms if arm != NO_HEALER]

    verdicts = [_of_trials(group, slo, sequential=sequential) for group in trials.values()]
    verdicts += [_of_storms(group, slo) for group in storms.values()]
    verdicts += [_of_shams(group, slo) for group in shams.values()]
    run = {(trial.experiment, trial.arm) for trial in campaign.trials}
    expected = [(name, arm) for name in campaign.plan.get("experiments", ()) for arm in arms or [""]]
    verdicts += [_of_nothing(name, arm, slo, sequential) for name, arm in expected if (name, arm) not in run]
    if slo.false_heals is not None:
        reason = "no sham was run, so false heals cannot be judged; --shams N runs them"
        verdicts += [
            Verdict(SHAM, arm, Decision.INCONCLUSIVE, reason, more_at_least=1)
            for arm in with_healer
            if arm not in shams and (SHAM, arm) not in expected
        ]
    if with_healer:
        verdicts = [replace(one, judged=False) if one.arm == NO_HEALER else one for one in verdicts]
    decision, reason = _overall(campaign, verdicts)
    return CampaignVerdict(decision, reason, tuple(verdicts), sequential)


def as_json(verdict: CampaignVerdict) -> dict[str, Json]:
    """The verdict as plain dictionaries, lists, words and numbers."""

    def plain(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        return {key: _plain(value) for key, value in pairs}

    return dataclasses.asdict(verdict, dict_factory=plain)


def _plain(value: Json) -> Json:
    if isinstance(value, StrEnum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def _of_trials(trials: Sequence[TrialResult], slo: Slo, *, sequential: bool) -> Verdict:
    goal = slo.recovery
    valid = [trial for trial in trials if trial.recovery.outcome.counts]
    found = [in_time(trial.recovery, goal.within_s) for trial in valid]
    good, undecided, count = found.count(True), found.count(None), len(found)
    over = _over_wrong_answers(valid, slo)
    certain = share_of(good, count, goal.confidence, sequential=sequential)
    possible = share_of(good + undecided, count, goal.confidence, sequential=sequential)
    base = Verdict(
        experiment=trials[0].experiment,
        arm=trials[0].arm,
        decision=Decision.INCONCLUSIVE,
        reason="",
        in_time=certain,
        in_time_at_most=possible,
        trials_count=count,
        invalid_count=len(trials) - count,
        undecided_count=undecided,
        over_limit_count=len(over),
    )
    if over:
        return replace(base, decision=Decision.FAIL, reason=verdict_text.wrong_answers(over, count, slo))
    healed = [trial for trial in valid if trial.false_heals]
    if slo.false_heals is not None and len(healed) > slo.false_heals.at_most:
        acted = f"a healer acted in {len(healed)} of {verdict_text.trials_words(count)} ({_remedies_of(healed)})"
        reason = f"{acted} although nobody was harmed; {verdict_text.allowed(slo.false_heals)}"
        return replace(base, decision=Decision.FAIL, reason=reason, over_limit_count=len(healed))
    more = more_all_good(good, count, goal.share, goal.confidence, sequential=sequential)
    if unusable := _too_many_invalid(trials, slo):
        reason, dilute = unusable
        needed = None if more is None or dilute is None else max(more, dilute)
        if hopeless := _why_hopeless(trials, slo):
            return replace(base, reason=f"{reason}; {hopeless}", hopeless=True)
        mended = "" if needed is None else f"; {needed} more, all valid and in time, would pass"
        return replace(base, reason=reason + mended, more_at_least=needed)
    assert certain is not None
    assert possible is not None
    asked = f"{verdict_text.percent(goal.share)} are asked for"
    seen = f"{good} of {count} recovered within {goal.within_s:g} s" + verdict_text.undecided(valid, goal.within_s)
    sure = f"with {verdict_text.percent(goal.confidence)} confidence" + (" at every look" if sequential else "")
    low, high = verdict_text.percent(certain.low, goal.share), verdict_text.percent(possible.high, goal.share)
    if certain.low >= goal.share:
        return replace(base, decision=Decision.PASS, reason=f"{seen}: at least {low} {sure}; {asked}")
    if possible.high < goal.share:
        return replace(base, decision=Decision.FAIL, reason=f"{seen}: at most {high} {sure}; {asked}")
    decided = more_until_decided(good, good + undecided, count, goal.share, goal.confidence, sequential=sequential)
    known = f"at least {low} do" if possible.high == 1.0 else f"{low} to {high} do"
    shown = "nothing" if (certain.low, possible.high) == (0.0, 1.0) else f"only that {known}, {sure}"
    reason = f"{seen}, which shows {shown}; {asked}; {verdict_text.more_needed(more, decided)}"
    return replace(base, reason=reason, more_at_least=more, more_expected=decided)


def _remedies_of(trials: Sequence[TrialResult]) -> str:
    return ", ".join(dict.fromkeys(remedy for trial in trials for remedy in trial.false_heals))


def _of_shams(trials: Sequence[TrialResult], slo: Slo) -> Verdict:
    """All shams of one arm: nothing was broken, so that whatever a healer did was for nothing."""
    valid = [trial for trial in trials if trial.recovery.outcome.counts]
    count, healed = len(valid), [trial for trial in valid if trial.false_heals]
    wrong = _over_wrong_answers(valid, slo)
    shams = "1 sham" if count == 1 else f"{count} shams"
    seen = f"a healer acted in {len(healed)} of {shams}"
    unlimited = f"{seen}; the SLO sets no limit on that (false_heals)"
    limit = slo.false_heals
    base = Verdict(
        experiment=trials[0].experiment,
        arm=trials[0].arm,
        decision=Decision.INCONCLUSIVE,
        reason=f"{shams} with no healer, beside those with one" if trials[0].arm == NO_HEALER else unlimited,
        judged=limit is not None or slo.wrong_answers is not None,
        trials_count=count,
        invalid_count=len(trials) - count,
        over_limit_count=len(wrong),
    )
    if limit is not None and len(healed) > limit.at_most:
        over = len(healed) + sum(not trial.false_heals for trial in wrong)
        reason = f"{seen} ({_remedies_of(healed)}) although nothing was broken; {verdict_text.allowed(limit)}"
        return replace(base, decision=Decision.FAIL, reason=reason, over_limit_count=over)
    if wrong:
        return replace(base, decision=Decision.FAIL, reason=verdict_text.wrong_answers(wrong, count, slo))
    if unusable := _too_many_invalid(trials, slo):
        return replace(base, reason=unusable[0], more_at_least=unusable[1])
    if limit is not None:
        reason = f"{seen}; {verdict_text.allowed(limit)}"
        return replace(base, decision=Decision.PASS, reason=reason)
    if base.judged:
        return replace(base, decision=Decision.PASS, reason=f"none of {shams} served too many wrong answers")
    return base


def _of_storms(trials: Sequence[TrialResult], slo: Slo) -> Verdict:
    """Storms of one plan under one arm: each time the target has to come back when the last fault is taken back.

    No share is asked for: the seed that fails is one that fails.
    """
    valid = [trial for trial in trials if trial.recovery.outcome.counts]
    failed = [trial for trial in valid if trial.recovery.outcome is Outcome.NOT_RECOVERED]
    count = len(valid)
    base = Verdict(
        experiment=trials[0].experiment,
        arm=trials[0].arm,
        decision=Decision.INCONCLUSIVE,
        reason="",
        trials_count=count,
        invalid_count=len(trials) - count,
    )
    last = (failed or valid or trials)[-1].recovery.reason
    storms = "" if len(trials) == 1 else f"{count - len(failed)} of {count} storms were survived; the last: "
    if failed:
        storms = storms.replace("the last", "one that was not")
        return replace(base, decision=Decision.FAIL, reason=f"{storms}{last}")
    if not valid:
        return replace(base, reason=last, more_at_least=1)
    if unusable := _too_many_invalid(trials, slo):
        return replace(base, reason=unusable[0], more_at_least=unusable[1])
    return replace(base, decision=Decision.PASS, reason=f"{storms}{last}")


def _of_nothing(experiment: str, arm: str, slo: Slo, sequential: bool) -> Verdict:
    goal = slo.recovery
    more = more_all_good(0, 0, goal.share, goal.confidence, sequential=sequential)
    return Verdict(experiment, arm, Decision.INCONCLUSIVE, "no trial of it was run", more_at_least=more)


def _overall(campaign: Campaign, verdicts: Sequence[Verdict]) -> tuple[Decision, str]:
    """The worst of what is judged. Nothing passes because nothing was asked."""
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


def _over_wrong_answers(valid: Sequence[TrialResult], slo: Slo) -> list[TrialResult]:
    limit = slo.wrong_answers
    return [] if limit is None else [trial for trial in valid if trial.recovery.wrong_count > limit.at_most]


def _too_many_invalid(trials: Sequence[TrialResult], slo: Slo) -> tuple[str, int | None] | None:
    """Why so few valid trials say nothing, and how many more valid ones would mend it. None: there are enough."""
    outcomes = [trial.recovery.outcome for trial in trials]
    unproven, count = outcomes.count(Outcome.UNPROVEN), len(outcomes)
    bad = sum(not outcome.counts for outcome in outcomes)
    most = slo.recovery.invalid_share_max
    if bad < count and bad <= most * count + _EPSILON:
        return None
    kinds = [f"{bad - unproven} invalid"] if bad > unproven else []
    if unproven:
        kinds.append(f"{unproven} unproven: nothing names evidence that the fault took effect")
    words = f"{bad} of {verdict_text.trials_words(count)} cannot be judged ({'; '.join(kinds)})"
    reason = f"{words}, and at most {verdict_text.percent(most)} may be so" if bad < count else words
    # More of the same experiment will be unproven too; and above a share of 0 nothing dilutes.
    dilute = None if unproven or most == 0 else max(1, math.ceil(bad / most - _EPSILON) - count)
    return reason, dilute


def _why_hopeless(trials: Sequence[TrialResult], slo: Slo) -> str:
    """What to do instead of more trials. Empty if more may help.

    That nothing names evidence is so in each trial of an experiment. An invalid one may be bad luck, so it takes
    so many, and none valid, that this is less likely than a wrong verdict if only the share allowed were invalid.
    """
    outcomes = [trial.recovery.outcome for trial in trials]
    if any(outcome.counts for outcome in outcomes):
        return ""
    if Outcome.UNPROVEN in outcomes:
        return (
            "more trials will not change that: name a probe as the evidence, in the experiment or with --evidence"
        )
    goal = slo.recovery
    if goal.invalid_share_max ** len(trials) > (1.0 - goal.confidence) / 2.0:
        return ""
    why = next((words for words in reversed([trial.recovery.reason for trial in trials]) if words), "")
    last = f" (the last: {why})" if why else ""
    return f"more trials will hardly change that: mend what makes them invalid{last}"
