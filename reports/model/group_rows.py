"""Rows of the summary table, in words: one experiment under one arm; and the shams of one arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monkeyproof.reports import text
from monkeyproof.reports.model.names import healer_name
from monkeyproof.reports.stats.comparison import NO_HEALER
from monkeyproof.reports.stats.proportions import Proportion
from monkeyproof.reports.stats.summary import TrialGroup
from monkeyproof.reports.stats.survival import Estimate
from monkeyproof.types import Campaign, Outcome, TrialResult

SHAM_COLUMNS = ("Arm", "Shams", "With a false heal", "What the healer did")


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One experiment under one arm. All cells are text for people; the numbers are in ``group``."""

    group: TrialGroup
    outcomes: tuple[tuple[Outcome, str, int], ...]
    """Each outcome that occurred, its word, and in how many trials."""
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


@dataclass(frozen=True, slots=True)
class ShamRow:
    """What healers did in the shams of one arm, where nothing was broken."""

    arm: str
    count: int
    false_count: int
    """Shams with a false heal."""
    acted: str
    """The remedies that a healer began, or that it began none."""


def group_rows(groups: Sequence[TrialGroup]) -> tuple[GroupRow, ...]:
    return tuple(_group_row(group) for group in groups)


def under_fault(groups: Sequence[TrialGroup]) -> tuple[TrialGroup, ...]:
    """The groups without shams and storms, which tell nothing about recovery under a fault."""
    return tuple(group for group in groups if not (group.sham or group.storm))


def sham_rows(campaign: Campaign) -> tuple[ShamRow, ...]:
    """Shams by arm. They are never among the trials that headlines and proportions are about."""
    by_arm: dict[str, list[TrialResult]] = {}
    for trial in campaign.trials:
        if trial.sham:
            by_arm.setdefault(trial.arm, []).append(trial)
    return tuple(_sham_row(arm, trials) for arm, trials in by_arm.items())


def _group_row(group: TrialGroup) -> GroupRow:
    median, median_interval = _with_interval(group.median, group)
    p90, p90_interval = _with_interval(group.p90, group)
    mean, mean_interval = _with_interval(group.restricted_mean, group)
    in_time, in_time_interval = _with_interval(group.in_time, group)
    absorbed, absorbed_interval = _with_interval(group.absorbed, group)
    served_wrong, served_wrong_interval = _with_interval(group.served_wrong, group)
    earliest = "" if group.median_earliest_s is None else text.seconds(group.median_earliest_s)
    return GroupRow(
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


def _with_interval(found: Estimate | Proportion | None, group: TrialGroup) -> tuple[str, str]:
    """A number and its interval. Few trials bound a time on one side or neither; an open side is named."""
    if found is None or group.survival is None:
        return text.UNKNOWN, ""
    if isinstance(found, Proportion):
        value = f"{found.successes} of {found.count} = {text.percent(found.successes / found.count)}"
        return value, f"{text.percent(found.low).removesuffix(' %')}–{text.percent(found.high)}"
    value = text.NOT_REACHED if found.value_s is None else text.seconds(found.value_s)
    if not found.low_s and found.high_s is None:
        return value, "no interval"
    low = text.seconds(found.low_s or 0.0)
    if found.high_s is None:
        return value, f"{low} or more"
    return value, f"{low.removesuffix(' s')}–{text.seconds(found.high_s)}"


def _sham_row(arm: str, trials: list[TrialResult]) -> ShamRow:
    remedies = (remedy for trial in trials for remedy in trial.false_heals)
    acted = list(dict.fromkeys(text.clean(remedy).replace("_", " ") for remedy in remedies))
    more = [f"{len(acted) - 4} more"] if len(acted) > 5 else acted[4:]
    return ShamRow(
        arm=healer_name(arm),
        count=len(trials),
        false_count=sum(bool(trial.false_heals) for trial in trials),
        acted=text.listing(acted[:4] + more) or ("there is none" if arm == NO_HEALER else "nothing"),
    )
