"""What the readable formats say, in words and once, so that report.html and report.md cannot differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monkeyproof.reports import text
from monkeyproof.reports.model import judgement
from monkeyproof.reports.model.judgement import healer_name
from monkeyproof.reports.stats.comparison import NO_HEALER
from monkeyproof.reports.stats.proportions import Share
from monkeyproof.reports.stats.summary import Group, Summary
from monkeyproof.reports.stats.survival import Estimate
from monkeyproof.types import Campaign, Outcome, TrialResult


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """A row of the table of trials."""

    trial: TrialResult
    anchor: str
    outcome: str
    meaning: str
    unexpected: str
    """What the experiment expects instead; empty if this is what it expects, or if it expects nothing."""
    ttd: str
    ttr: str
    first_wrong: str
    silent: str
    how_healed: str


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A row of the summary: one experiment under one arm."""

    group: Group
    outcomes: tuple[tuple[Outcome, str, int], ...]
    median: str
    median_interval: str
    median_earliest: str
    """The median if every trial had recovered at the lower end of its interval; empty if the same."""
    p90: str
    p90_interval: str
    restricted_mean: str
    restricted_mean_interval: str
    horizon: str
    in_time: str
    in_time_interval: str
    absorbed: str
    absorbed_interval: str
    served_wrong: str
    served_wrong_interval: str


def trial_facts(campaign: Campaign) -> list[TrialFacts]:
    """Experiment by experiment, storms and shams last; the trials of each in the order in which they ran."""
    rows = [_trial(trial, number) for number, trial in enumerate(campaign.trials, start=1)]
    first = {row.trial.experiment: number for number, row in reversed(list(enumerate(rows)))}
    return sorted(rows, key=lambda row: (row.trial.sham, row.trial.storm, first[row.trial.experiment]))


def group_facts(groups: tuple[Group, ...]) -> list[GroupFacts]:
    return [_group(group) for group in groups]


def under_fault(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """Without shams and storms, which say nothing of recovery under a fault."""
    return tuple(group for group in groups if not (group.sham or group.storm))


def headline(summary: Summary) -> list[str]:
    """What happened, a sentence for each arm; healers first."""
    arms = sorted(summary.arms, key=lambda group: group.arm == NO_HEALER)
    said = [_sentence(arm, summary.groups) for arm in arms]
    said += [_of_storms(group) for group in summary.groups if group.storm]
    return said or ["Nothing was broken." if summary.groups else "No trial was run."]


def _of_storms(group: Group) -> str:
    judged = [trial for trial in group.trials if trial.recovery.outcome.counts]
    survived = sum(trial.recovery.outcome is not Outcome.NOT_RECOVERED for trial in judged)
    came = f"the target came back after {survived} of {text.count(len(judged), 'storm')}"
    return f"With {healer_name(group.arm)}, {came if judged else 'no storm could be judged'}."


def warnings(campaign: Campaign, summary: Summary) -> list[str]:
    """What a reader must know before trusting the numbers."""
    said: list[str] = []
    stuck = [trial for trial in campaign.trials if trial.not_reverted]
    if stuck:
        left = sorted({text.clean(what) for trial in stuck for what in trial.not_reverted})
        said.append(f"{text.count(len(stuck), 'trial')} left something broken: {'; '.join(left)}.")
        if campaign.aborted:  # The verdict says it unless it has worse to say.
            said.append(f"The campaign ended before its time ({text.clean(campaign.aborted)}).")
    cut = sum(bool(trial.aborted) for trial in campaign.trials)
    if cut:
        said.append(f"{text.count(cut, 'trial')} ended before {'its' if cut == 1 else 'their'} time.")
    said += _not_counted(campaign, Outcome.INVALID, "cannot be judged, counts for neither side")
    said += _not_counted(campaign, Outcome.UNPROVEN, text.OUTCOMES[Outcome.UNPROVEN][1])
    surprises = [trial for trial in campaign.trials if _is_surprise(trial)]
    if surprises:
        many = text.count(len(surprises), "trial")
        said.append(f"{many} ended otherwise than the experiment expects: {_named(surprises)}.")
    needless = [trial for trial in campaign.trials if trial.false_heals and not trial.sham]
    if needless:
        said.append(f"A healer acted although nobody was harmed: {_named(needless)}.")
    early = sum(group.censored_early_count for group in summary.groups)
    if early:
        said.append(
            f"{text.count(early, 'trial')} stopped being watched under the fault before the deadline; "
            f"{'it counts' if early == 1 else 'they count'} as not recovered in time."
        )
    return said + judgement.clock_warnings(campaign)


def _named(trials: Sequence[TrialResult]) -> str:
    named = [f"{trial.experiment} ({healer_name(trial.arm)}, seed {trial.seed})" for trial in trials]
    more = [f"{len(named) - 3} more"] if len(named) > 4 else named[3:]
    return text.listing(named[:3] + more)


def _not_counted(campaign: Campaign, outcome: Outcome, why: str) -> list[str]:
    number = sum(trial.recovery.outcome is outcome for trial in campaign.trials)
    if not number:
        return []
    of = text.count(len(campaign.trials), "trial")
    return [
        f"{text.OUTCOMES[outcome][0].capitalize()} ({why}): {number} of {of}. The reasons stand with the trials."
    ]


def _is_surprise(trial: TrialResult) -> bool:
    """An end other than the experiment expects. What cannot be judged has none."""
    return trial.as_expected is False and trial.recovery.outcome.counts


def lateness(campaign: Campaign) -> str:
    """The worst of the trials: how far off the clock behind all numbers may be."""
    return text.milliseconds(max((trial.recovery.lateness_p99_ms for trial in campaign.trials), default=None))


def facts_of(mapping: Mapping[str, object]) -> list[tuple[str, str]]:
    """A mapping from a file (the machine, the versions, a load's statistics), for printing."""
    return [(text.clean(str(key)).replace("_", " "), _value(value)) for key, value in mapping.items()]


def counted(trial: TrialResult) -> list[tuple[str, str]]:
    """The remaining numbers of a trial."""
    found = trial.recovery
    return [
        ("Answers asked for", f"{found.readings_count:,}"),
        ("Bad", f"{found.bad_count:,}"),
        ("Wrong", f"{found.wrong_count:,}"),
        ("By a fallback", f"{found.degraded_count:,}"),
        ("Unknown", f"{found.unknown_count:,}"),
        ("Relapses after recovery", str(found.relapses)),
        ("Resilience loss", f"{text.seconds(found.resilience_loss_s)} of full outage"),
        ("Fault began within", _width(trial)),
        ("First bad answer known after", _seen(trial)),
        ("Prober late by (p99)", text.milliseconds(found.lateness_p99_ms)),
    ]


def _trial(trial: TrialResult, number: int) -> TrialFacts:
    outcome, meaning = text.OUTCOMES[trial.recovery.outcome]
    if trial.sham:
        steady = trial.recovery.outcome is Outcome.ABSORBED
        outcome, meaning = ("sham, steady" if steady else f"sham, {outcome}"), f"nothing was broken; {meaning}"
    if trial.storm:
        outcome, meaning = text.STORMS[trial.recovery.outcome]
    expected = text.listing([text.OUTCOMES[outcome][0] for outcome in trial.expected]).replace(" and ", " or ")
    return TrialFacts(
        trial=trial,
        anchor=f"trial-{number}",
        outcome=outcome,
        meaning=meaning,
        unexpected=expected if _is_surprise(trial) else "",
        ttd="nothing broken" if trial.sham and trial.recovery.ttd_s is None else text.time_to_detect(trial),
        ttr="nothing broken" if trial.sham else text.time_to_come_back(trial),
        first_wrong=text.time_to_first_wrong(trial.recovery),
        silent=text.silent_time(trial.recovery),
        how_healed=text.how_healed(trial),
    )


def _group(group: Group) -> GroupFacts:
    median, median_interval = _told(group.median, group)
    p90, p90_interval = _told(group.p90, group)
    mean, mean_interval = _told(group.restricted_mean, group)
    in_time, in_time_interval = _told(group.in_time, group)
    absorbed, absorbed_interval = _told(group.absorbed, group)
    served_wrong, served_wrong_interval = _told(group.served_wrong, group)
    earliest = "" if group.median_earliest_s is None else text.seconds(group.median_earliest_s)
    return GroupFacts(
        group=group,
        outcomes=tuple((outcome, text.OUTCOMES[outcome][0], number) for outcome, number in group.counts.items()),
        median=median,
        median_interval=median_interval,
        median_earliest="" if earliest == median else earliest,
        p90=p90,
        p90_interval=p90_interval,
        restricted_mean=mean,
        restricted_mean_interval=mean_interval,
        horizon=text.seconds(group.horizon_s) if group.survival else "",
        in_time=in_time,
        in_time_interval=in_time_interval,
        absorbed=absorbed,
        absorbed_interval=absorbed_interval,
        served_wrong=served_wrong,
        served_wrong_interval=served_wrong_interval,
    )


def _told(found: Estimate | Share | None, group: Group) -> tuple[str, str]:
    """A number and its interval. Few trials bound a time on one side or not at all; an open side is said."""
    if found is None or group.survival is None:
        return text.UNKNOWN, ""
    if isinstance(found, Share):
        value = f"{found.successes} of {found.count} = {text.percent(found.successes / found.count)}"
        return value, f"{text.percent(found.low).removesuffix(' %')}–{text.percent(found.high)}"
    value = text.NOT_REACHED if found.value_s is None else text.seconds(found.value_s)
    if not found.low_s and found.high_s is None:
        return value, "no interval"
    low = text.seconds(found.low_s or 0.0)
    if found.high_s is None:
        return value, f"{low} or more"
    return value, f"{low.removesuffix(' s')}–{text.seconds(found.high_s)}"


def _sentence(arm: Group, groups: tuple[Group, ...]) -> str:
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
        said = f"right answers did not come back in most of {trials} while the fault was held"
    elif arm.median_s == 0:
        said = f"{arm.counts.get(Outcome.ABSORBED, 0)} of {trials} absorbed the fault without one bad answer"
    else:
        of = f"median of {trials}{' of all experiments' if len(mine) > 1 else ''}, {arm.censored_count} censored"
        said = f"right answers were back {text.seconds(arm.median_s)} after the fault began ({of})"
    if len(mine) == 1:
        return f"{subject}, {said}. {recovered} recovered while the fault was held."
    whole = sum(group.censored_count == 0 for group in mine)
    return (
        f"{subject}, {said}. In {whole} of {text.count(len(mine), 'experiment')}, every trial recovered "
        "while the fault was held."
    )


def _width(trial: TrialResult) -> str:
    found = trial.recovery
    if found.t0_s is None or found.effective_s is None:
        return text.UNKNOWN
    return text.seconds(found.effective_s - found.t0_s)


def _seen(trial: TrialResult) -> str:
    """How long the users' first bad answer took to be known as bad: for a hang, a threshold."""
    found = trial.recovery
    if found.impact_s is None:
        return "none bad" if found.outcome is Outcome.ABSORBED else text.UNKNOWN
    if found.impact_seen_s is None:
        return text.UNKNOWN
    return text.milliseconds(1000 * (found.impact_seen_s - found.impact_s))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(child)}" for key, child in value.items())
    return text.UNKNOWN if value is None else text.clean(str(value))
