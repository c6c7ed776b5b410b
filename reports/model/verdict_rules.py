"""The rules behind the verdict: one experiment under one arm, its trials, storms or shams, against the SLO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from monkeyproof.config.target_file import Slo
from monkeyproof.reports.model import verdict_text
from monkeyproof.reports.stats.comparison import NO_HEALER
from monkeyproof.reports.stats.proportions import Proportion, more_all_good, more_until_decided, share_of
from monkeyproof.reports.stats.survival import in_time
from monkeyproof.types import Outcome, TrialResult

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
    """False: a reference arm (no healer beside arms with one), or shams to which no limit applies. Reports show
    it, and it is no part of the campaign's verdict."""
    in_time: Proportion | None = None
    """Recovered within the deadline; undecided trials count as not recovered. Its low limit decides a pass."""
    in_time_at_most: Proportion | None = None
    """The same; undecided trials count as recovered. Its high limit decides a fail."""
    trials_count: int = 0
    """Valid ones."""
    invalid_count: int = 0
    """Invalid and unproven ones."""
    undecided_count: int = 0
    """Valid trials that were watched for less than the deadline and had not recovered; or that recovered at an
    instant that may be before or after the deadline."""
    over_limit_count: int = 0
    """Trials that broke a hard limit."""
    more_at_least: int | None = None
    """Inconclusive: with this many more trials, all valid and in time, it would pass. None: no number is known."""
    more_expected: int | None = None
    """Inconclusive: about this many more would decide, if the share stays as seen. None: none up to 10,000."""
    hopeless: bool = False
    """Inconclusive, and more trials of the same will not decide it: the experiment has to change first."""


def judge_trials(trials: Sequence[TrialResult], slo: Slo, *, sequential: bool) -> Verdict:
    """Judge the trials of one experiment under one arm: hard limits, then validity, then the share in time."""
    goal = slo.recovery
    valid = _valid(trials)
    found = [in_time(trial.recovery, goal.within_s) for trial in valid]
    good, undecided, count = found.count(True), found.count(None), len(found)
    base = replace(
        _undecided_verdict(trials, valid),
        in_time=share_of(good, count, goal.confidence, sequential=sequential),
        in_time_at_most=share_of(good + undecided, count, goal.confidence, sequential=sequential),
        undecided_count=undecided,
    )
    if broken := _over_limits(base, valid, slo):
        return broken
    more = more_all_good(good, count, goal.share, goal.confidence, sequential=sequential)
    if unusable := _too_many_invalid(trials, slo):
        return _not_usable(base, trials, slo, unusable, more)
    return _by_share(base, valid, slo, more, sequential=sequential)


def judge_storms(trials: Sequence[TrialResult], slo: Slo) -> Verdict:
    """Judge the storms of one plan under one arm: after each, the target has to come back when the last fault is
    reverted.

    The SLO asks for no share here: a seed that fails is a failure.
    """
    valid = _valid(trials)
    failed = [trial for trial in valid if trial.recovery.outcome is Outcome.NOT_RECOVERED]
    count = len(valid)
    base = _undecided_verdict(trials, valid)
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


def judge_shams(trials: Sequence[TrialResult], slo: Slo) -> Verdict:
    """Judge all shams of one arm: nothing was broken, so every remedy in them is a false heal."""
    valid = _valid(trials)
    count, healed = len(valid), [trial for trial in valid if trial.false_heals]
    wrong = _over_wrong_answers(valid, slo)
    shams = "1 sham" if count == 1 else f"{count} shams"
    seen = f"a healer acted in {len(healed)} of {shams}"
    unlimited = f"{seen}; the SLO sets no limit on that (false_heals)"
    limit = slo.false_heals
    base = replace(
        _undecided_verdict(trials, valid),
        reason=f"{shams} with no healer, beside those with one" if trials[0].arm == NO_HEALER else unlimited,
        judged=limit is not None or slo.wrong_answers is not None,
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
        return replace(base, decision=Decision.PASS, reason=f"{seen}; {verdict_text.allowed(limit)}")
    if base.judged:
        return replace(base, decision=Decision.PASS, reason=f"none of {shams} served too many wrong answers")
    return base


def judge_without_trials(experiment: str, arm: str, slo: Slo, *, sequential: bool) -> Verdict:
    """The verdict on an experiment that was planned and of which there is no trial."""
    goal = slo.recovery
    more = more_all_good(0, 0, goal.share, goal.confidence, sequential=sequential)
    return Verdict(experiment, arm, Decision.INCONCLUSIVE, "no trial of it was run", more_at_least=more)


def _undecided_verdict(trials: Sequence[TrialResult], valid: Sequence[TrialResult]) -> Verdict:
    """What every rule starts from: inconclusive, with the counts of trials."""
    return Verdict(
        experiment=trials[0].experiment,
        arm=trials[0].arm,
        decision=Decision.INCONCLUSIVE,
        reason="",
        trials_count=len(valid),
        invalid_count=len(trials) - len(valid),
    )


def _over_limits(base: Verdict, valid: Sequence[TrialResult], slo: Slo) -> Verdict | None:
    """The verdict if a hard limit is broken, else None."""
    over = _over_wrong_answers(valid, slo)
    base = replace(base, over_limit_count=len(over))
    if over:
        return replace(base, decision=Decision.FAIL, reason=verdict_text.wrong_answers(over, len(valid), slo))
    healed = [trial for trial in valid if trial.false_heals]
    if slo.false_heals is None or len(healed) <= slo.false_heals.at_most:
        return None
    acted = f"a healer acted in {len(healed)} of {verdict_text.trials_words(len(valid))} ({_remedies_of(healed)})"
    reason = f"{acted} although the fault did no harm; {verdict_text.allowed(slo.false_heals)}"
    return replace(base, decision=Decision.FAIL, reason=reason, over_limit_count=len(healed))


def _not_usable(
    base: Verdict, trials: Sequence[TrialResult], slo: Slo, unusable: tuple[str, int | None], more: int | None
) -> Verdict:
    """The verdict where too many trials are invalid."""
    reason, dilute = unusable
    needed = None if more is None or dilute is None else max(more, dilute)
    if hopeless := _why_hopeless(trials, slo):
        return replace(base, reason=f"{reason}; {hopeless}", hopeless=True)
    advice = "" if needed is None else f"; {needed} more, all valid and in time, would pass"
    return replace(base, reason=reason + advice, more_at_least=needed)


def _by_share(
    base: Verdict, valid: Sequence[TrialResult], slo: Slo, more: int | None, *, sequential: bool
) -> Verdict:
    """The verdict by the confidence limits of the share of trials that recovered in time."""
    goal, certain, possible = slo.recovery, base.in_time, base.in_time_at_most
    assert certain is not None
    assert possible is not None
    good, count = certain.successes, base.trials_count
    asked = f"{verdict_text.percent(goal.share)} are asked for"
    seen = f"{good} of {count} recovered within {goal.within_s:g} s" + verdict_text.undecided(valid, goal.within_s)
    sure = f"with {verdict_text.percent(goal.confidence)} confidence" + (" at every look" if sequential else "")
    low, high = verdict_text.percent(certain.low, goal.share), verdict_text.percent(possible.high, goal.share)
    if certain.low >= goal.share:
        return replace(base, decision=Decision.PASS, reason=f"{seen}: at least {low} {sure}; {asked}")
    if possible.high < goal.share:
        return replace(base, decision=Decision.FAIL, reason=f"{seen}: at most {high} {sure}; {asked}")
    decided = more_until_decided(
        good, possible.successes, count, goal.share, goal.confidence, sequential=sequential
    )
    known = f"at least {low} do" if possible.high == 1.0 else f"{low} to {high} do"
    shown = "nothing" if (certain.low, possible.high) == (0.0, 1.0) else f"only that {known}, {sure}"
    reason = f"{seen}, which shows {shown}; {asked}; {verdict_text.more_needed(more, decided)}"
    return replace(base, reason=reason, more_at_least=more, more_expected=decided)


def _valid(trials: Sequence[TrialResult]) -> list[TrialResult]:
    return [trial for trial in trials if trial.recovery.outcome.counts]


def _remedies_of(trials: Sequence[TrialResult]) -> str:
    return ", ".join(dict.fromkeys(remedy for trial in trials for remedy in trial.false_heals))


def _over_wrong_answers(valid: Sequence[TrialResult], slo: Slo) -> list[TrialResult]:
    limit = slo.wrong_answers
    return [] if limit is None else [trial for trial in valid if trial.recovery.wrong_count > limit.at_most]


def _too_many_invalid(trials: Sequence[TrialResult], slo: Slo) -> tuple[str, int | None] | None:
    """Why there are too few valid trials, and how many more valid ones would be enough. None: there are enough."""
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
    """What to do instead of running more trials. Empty if more may help.

    An experiment that names no evidence is unproven in every trial. An invalid trial may be bad luck, so the rule
    waits until so many invalid trials, with no valid one, are less likely than a wrong verdict, if only the share
    that the SLO allows were invalid.
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
    return f"more trials will hardly change that: repair what makes them invalid{last}"
