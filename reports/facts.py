"""What the readable formats say, in words and once, so that report.html and report.md cannot differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monkeyproof.reports import words
from monkeyproof.reports.statistics import NO_HEALER, Group, Paired, Share, Summary
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
    p90: str
    restricted_mean: str
    horizon: str
    mean: str
    mean_of: str
    in_time: str
    in_time_interval: str


def healer_name(arm: str) -> str:
    return "no healer" if arm == NO_HEALER else words.clean(arm)


def trial_facts(campaign: Campaign) -> list[TrialFacts]:
    return [_trial(trial, number) for number, trial in enumerate(campaign.trials, start=1)]


def group_facts(groups: tuple[Group, ...]) -> list[GroupFacts]:
    return [_group(group) for group in groups]


def headline(summary: Summary) -> list[str]:
    """What happened, a sentence for each arm; healers first."""
    arms = sorted(summary.arms, key=lambda group: group.arm == NO_HEALER)
    return [_sentence(arm, summary.groups) for arm in arms] or ["No trial was run."]


def warnings(campaign: Campaign, summary: Summary) -> list[str]:
    """What a reader must know before trusting the numbers."""
    said: list[str] = []
    stuck = [trial for trial in campaign.trials if trial.not_reverted]
    if stuck:
        left = sorted({words.clean(what) for trial in stuck for what in trial.not_reverted})
        said.append(
            f"{words.count(len(stuck), 'trial')} left something broken: {'; '.join(left)}. "
            "Run 'monkeyproof revert'."
        )
    invalid = sum(trial.recovery.outcome is Outcome.INVALID for trial in campaign.trials)
    if invalid:
        said.append(
            f"{invalid} of {words.count(len(campaign.trials), 'trial')} could not be judged and "
            f"{'counts' if invalid == 1 else 'count'} for nothing; the reasons stand with the trials."
        )
    surprises = [trial for trial in campaign.trials if trial.as_expected is False]
    if surprises:
        named = [f"{trial.experiment} ({healer_name(trial.arm)}, seed {trial.seed})" for trial in surprises]
        more = [f"{len(named) - 3} more"] if len(named) > 4 else named[3:]
        said.append(
            f"{words.count(len(surprises), 'trial')} ended otherwise than the experiment expects: "
            f"{words.listing(named[:3] + more)}."
        )
    early = sum(group.censored_early_count for group in summary.groups)
    if early:
        said.append(
            f"{words.count(early, 'trial')} stopped being watched under the fault before the deadline; "
            f"{'it counts' if early == 1 else 'they count'} as not recovered in time."
        )
    return said


def paired_facts(pair: Paired) -> list[str]:
    """Cells of a row of the table of pairs."""
    sooner = f"{words.seconds(abs(pair.sooner_s))} {'sooner' if pair.sooner_s > 0 else 'later'}"
    if abs(pair.sooner_s) < 0.005:
        sooner = "no difference"
    return [
        f"{pair.arm_count} of {pair.pairs_count}",
        f"{pair.reference_count} of {pair.pairs_count}",
        str(pair.only_arm_count),
        str(pair.only_reference_count),
        f"{sooner} (means up to {words.seconds(pair.horizon_s)})",
    ]


PAIRED_COLUMNS = (
    "Recovered with it",
    "Recovered with no healer",
    "Only with it",
    "Only without",
    "Right answers back",
)


def lateness(campaign: Campaign) -> str:
    """The worst of the trials: how far off the clock behind all numbers may be."""
    return words.milliseconds(max((trial.recovery.lateness_p99_ms for trial in campaign.trials), default=None))


def facts_of(mapping: Mapping[str, object]) -> list[tuple[str, str]]:
    """A mapping from a file (the machine, the versions, a load's statistics), for printing."""
    return [(words.clean(str(key)).replace("_", " "), _value(value)) for key, value in mapping.items()]


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
        ("Resilience loss", f"{words.seconds(found.resilience_loss_s)} of full outage"),
        ("Fault began within", _width(trial)),
        ("Prober late by (p99)", words.milliseconds(found.lateness_p99_ms)),
    ]


def _trial(trial: TrialResult, number: int) -> TrialFacts:
    outcome, meaning = words.OUTCOMES[trial.recovery.outcome]
    expected = words.listing([words.OUTCOMES[outcome][0] for outcome in trial.expected]).replace(" and ", " or ")
    return TrialFacts(
        trial=trial,
        anchor=f"trial-{number}",
        outcome=outcome,
        meaning=meaning,
        unexpected=expected if trial.as_expected is False else "",
        ttd=words.time_to_detect(trial),
        ttr=words.time_to_recover(trial.recovery),
        first_wrong=words.time_to_first_wrong(trial.recovery),
        silent=words.silent_time(trial.recovery),
        how_healed=words.how_healed(trial),
    )


def _group(group: Group) -> GroupFacts:
    return GroupFacts(
        group=group,
        outcomes=tuple((outcome, words.OUTCOMES[outcome][0], number) for outcome, number in group.counts.items()),
        median=_quantile(group, group.median_s),
        median_interval=_interval(group),
        p90=_quantile(group, group.p90_s),
        restricted_mean=words.seconds(group.restricted_mean_s),
        horizon=words.seconds(group.horizon_s) if group.survival else "",
        mean="none recovered"
        if group.survival and not group.recovered_s
        else words.seconds(group.mean_recovered_s),
        mean_of=f"n = {len(group.recovered_s)}, {group.censored_count} censored",
        in_time=_share(group.in_time),
        in_time_interval=_share_interval(group.in_time),
    )


def _quantile(group: Group, value_s: float | None) -> str:
    if group.survival is None:
        return words.UNKNOWN
    return words.NOT_REACHED if value_s is None else words.seconds(value_s)


def _interval(group: Group) -> str:
    """Few trials bound a median on one side or not at all; an open side is said, not hidden."""
    if group.survival is None:
        return ""
    low_s, high_s = group.survival.quantile_interval_s(0.5)
    if not low_s and high_s is None:
        return "no bounds"
    low = words.seconds(low_s or 0.0)
    return f"{low} or more" if high_s is None else f"{low.removesuffix(' s')}–{words.seconds(high_s)}"


def _share(share: Share | None) -> str:
    if share is None:
        return words.UNKNOWN
    return f"{share.successes} of {share.count} = {words.percent(share.successes / share.count)}"


def _share_interval(share: Share | None) -> str:
    if share is None:
        return ""
    return f"{words.percent(share.low).removesuffix(' %')}–{words.percent(share.high)}"


def _sentence(arm: Group, groups: tuple[Group, ...]) -> str:
    subject = f"With {healer_name(arm.arm)}"
    judged = len(arm.observations)
    if arm.survival is None:
        return f"{subject}, no trial could be judged."
    trials = words.count(judged, "trial")
    if arm.median_s is None:
        said = f"right answers did not come back in most of {trials} while the fault was held"
    elif arm.median_s == 0:
        said = f"most of {trials} absorbed the fault without one bad answer"
    else:
        of = f"median of {trials} of all experiments, {arm.censored_count} censored"
        said = f"right answers were back {words.seconds(arm.median_s)} after the fault began ({of})"
    mine = [group for group in groups if group.arm == arm.arm and group.observations]
    whole = sum(group.censored_count == 0 for group in mine)
    return (
        f"{subject}, {said}. In {whole} of {words.count(len(mine), 'experiment')}, every trial recovered "
        "while the fault was held."
    )


def _width(trial: TrialResult) -> str:
    found = trial.recovery
    if found.t0_s is None or found.effective_s is None:
        return words.UNKNOWN
    return words.seconds(found.effective_s - found.t0_s)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(child)}" for key, child in value.items())
    return words.UNKNOWN if value is None else words.clean(str(value))
