"""What happened in a campaign, in a few sentences; and what a reader must know before trusting its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from monkeyproof.reports import text
from monkeyproof.reports.model.clock import clock_warnings
from monkeyproof.reports.model.names import healer_name
from monkeyproof.reports.model.trial_rows import deviates
from monkeyproof.reports.stats.comparison import NO_HEALER
from monkeyproof.reports.stats.summary import Statistics, TrialGroup
from monkeyproof.types import Campaign, Outcome, TrialResult


def headline(statistics: Statistics) -> list[str]:
    """A sentence for each arm, healers first; then one for each group of storms."""
    arms = sorted(statistics.arms, key=lambda group: group.arm == NO_HEALER)
    sentences = [_arm_sentence(arm, statistics.groups) for arm in arms]
    sentences += [_storm_sentence(group) for group in statistics.groups if group.storm]
    return sentences or ["Nothing was broken." if statistics.groups else "No trial was run."]


def warnings(campaign: Campaign, statistics: Statistics) -> list[str]:
    """Sentences on trials that ended early, count for nothing, or deviate; and on the clock."""
    return [
        *_left_broken(campaign),
        *_cut_short(campaign),
        *_not_counted(campaign, Outcome.INVALID, "cannot be judged, counts for neither side"),
        *_not_counted(campaign, Outcome.UNPROVEN, text.OUTCOMES[Outcome.UNPROVEN][1]),
        *_deviations(campaign),
        *_false_heals(campaign),
        *_censored_early(statistics),
        *clock_warnings(campaign),
    ]


def _left_broken(campaign: Campaign) -> list[str]:
    stuck = [trial for trial in campaign.trials if trial.not_reverted]
    if not stuck:
        return []
    left = sorted({text.clean(what) for trial in stuck for what in trial.not_reverted})
    found = [f"{text.count(len(stuck), 'trial')} left something broken: {'; '.join(left)}."]
    if campaign.aborted:  # The verdict gives this reason only if it has no worse one.
        found.append(f"The campaign ended before its time ({text.clean(campaign.aborted)}).")
    return found


def _cut_short(campaign: Campaign) -> list[str]:
    cut = sum(bool(trial.aborted) for trial in campaign.trials)
    return [f"{text.count(cut, 'trial')} ended before {'its' if cut == 1 else 'their'} time."] if cut else []


def _deviations(campaign: Campaign) -> list[str]:
    found = [trial for trial in campaign.trials if deviates(trial)]
    if not found:
        return []
    many = text.count(len(found), "trial")
    return [f"{many} ended otherwise than the experiment expects: {_named(found)}."]


def _false_heals(campaign: Campaign) -> list[str]:
    found = [trial for trial in campaign.trials if trial.false_heals and not trial.sham]
    if not found:
        return []
    return [f"False heal: a healer acted although the fault did no harm: {_named(found)}."]


def _censored_early(statistics: Statistics) -> list[str]:
    early = sum(group.censored_early_count for group in statistics.groups)
    if not early:
        return []
    count = "it counts" if early == 1 else "they count"
    trials = text.count(early, "trial")
    return [
        f"{trials} stopped being watched under the fault before the deadline; {count} as not recovered in time."
    ]


def _arm_sentence(arm: TrialGroup, groups: tuple[TrialGroup, ...]) -> str:
    subject = f"With {healer_name(arm.arm)}"
    judged = len(arm.observations)
    if arm.survival is None:
        return f"{subject}, no trial could be judged."
    trials = text.count(judged, "trial")
    mine = [
        group
        for group in groups
        if group.arm == arm.arm and group.observations and not (group.sham or group.storm)
    ]
    recovered = f"{judged - arm.censored_count} of {trials}"
    if arm.median_s is None and len(mine) == 1:
        return f"{subject}, right answers came back in {recovered} while the fault was held."
    if arm.median_s is None:
        typical = f"right answers did not come back in most of {trials} while the fault was held"
    elif arm.median_s == 0:
        typical = f"{arm.counts.get(Outcome.ABSORBED, 0)} of {trials} absorbed the fault without one bad answer"
    else:
        of = f"median of {trials}{' of all experiments' if len(mine) > 1 else ''}, {arm.censored_count} censored"
        typical = f"right answers were back {text.seconds(arm.median_s)} after the fault began ({of})"
    if len(mine) == 1:
        return f"{subject}, {typical}. {recovered} recovered while the fault was held."
    whole = sum(group.censored_count == 0 for group in mine)
    return (
        f"{subject}, {typical}. In {whole} of {text.count(len(mine), 'experiment')}, every trial recovered "
        "while the fault was held."
    )


def _storm_sentence(group: TrialGroup) -> str:
    judged = [trial for trial in group.trials if trial.recovery.outcome.counts]
    survived = sum(trial.recovery.outcome is not Outcome.NOT_RECOVERED for trial in judged)
    came = f"the target came back after {survived} of {text.count(len(judged), 'storm')}"
    return f"With {healer_name(group.arm)}, {came if judged else 'no storm could be judged'}."


def _named(trials: Sequence[TrialResult]) -> str:
    named = [f"{trial.experiment} ({healer_name(trial.arm)}, seed {trial.seed})" for trial in trials]
    more = [f"{len(named) - 3} more"] if len(named) > 4 else named[3:]
    return text.listing(named[:3] + more)


def _not_counted(campaign: Campaign, outcome: Outcome, why: str) -> list[str]:
    number = sum(trial.recovery.outcome is outcome for trial in campaign.trials)
    if not number:
        return []
    of = text.count(len(campaign.trials), "trial")
    name = text.OUTCOMES[outcome][0].capitalize()
    return [f"{name} ({why}): {number} of {of}. The reasons are listed with the trials."]
