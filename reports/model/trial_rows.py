"""Rows of the table of trials, in words: every format prints the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monkeyproof.reports import text
from monkeyproof.types import Campaign, Outcome, TrialResult


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial. All cells are text for people; the numbers are in ``trial``."""

    trial: TrialResult
    anchor: str
    """Names the trial within one report, for links: ``trial-3``."""
    outcome: str
    meaning: str
    """What the outcome means, in a few words."""
    unexpected: str
    """The outcomes that the experiment expects; empty if the trial ended so, or if the experiment expects none."""
    ttd: str
    """Time to detect."""
    ttr: str
    """Time to recover: an interval, a bound, zero, or "could not tell"."""
    first_wrong: str
    silent: str
    how_healed: str


def trial_rows(campaign: Campaign) -> tuple[TrialRow, ...]:
    """The rows, ordered by experiment with storms and shams last; within one, in the order in which trials ran."""
    rows = [_row(trial, number) for number, trial in enumerate(campaign.trials, start=1)]
    first = {row.trial.experiment: number for number, row in reversed(list(enumerate(rows)))}
    return tuple(sorted(rows, key=lambda row: (row.trial.sham, row.trial.storm, first[row.trial.experiment])))


def deviates(trial: TrialResult) -> bool:
    """Whether the trial ended otherwise than its experiment expects. A trial that cannot be judged does not."""
    return trial.as_expected is False and trial.recovery.outcome.counts


def trial_figures(trial: TrialResult) -> Sequence[tuple[str, str]]:
    """The figures of a trial that have no column in the table, each with its name."""
    found = trial.recovery
    return [
        ("Answers asked for", f"{found.readings_count:,}"),
        ("Bad", f"{found.bad_count:,}"),
        ("Wrong", f"{found.wrong_count:,}"),
        ("By a fallback", f"{found.degraded_count:,}"),
        ("Unknown", f"{found.unknown_count:,}"),
        ("Relapses after recovery", str(found.relapses)),
        ("Resilience loss", f"{text.seconds(found.resilience_loss_s)} of full outage"),
        ("Fault began within", _fault_start_width(trial)),
        ("First bad answer known after", _first_bad_delay(trial)),
        ("Prober late by (p99)", text.milliseconds(found.lateness_p99_ms)),
    ]


def _row(trial: TrialResult, number: int) -> TrialRow:
    outcome, meaning = text.OUTCOMES[trial.recovery.outcome]
    if trial.sham:
        steady = trial.recovery.outcome is Outcome.ABSORBED
        outcome, meaning = ("sham, steady" if steady else f"sham, {outcome}"), f"nothing was broken; {meaning}"
    if trial.storm:
        outcome, meaning = text.STORMS[trial.recovery.outcome]
    expected = text.listing([text.OUTCOMES[outcome][0] for outcome in trial.expected]).replace(" and ", " or ")
    return TrialRow(
        trial=trial,
        anchor=f"trial-{number}",
        outcome=outcome,
        meaning=meaning,
        unexpected=expected if deviates(trial) else "",
        ttd="nothing broken" if trial.sham and trial.recovery.ttd_s is None else text.time_to_detect(trial),
        ttr="nothing broken" if trial.sham else text.time_to_come_back(trial),
        first_wrong=text.time_to_first_wrong(trial.recovery),
        silent=text.silent_time(trial.recovery),
        how_healed=text.how_healed(trial),
    )


def _fault_start_width(trial: TrialResult) -> str:
    found = trial.recovery
    if found.t0_s is None or found.effective_s is None:
        return text.UNKNOWN
    return text.seconds(found.effective_s - found.t0_s)


def _first_bad_delay(trial: TrialResult) -> str:
    """How long the first bad answer took to be known as bad: for a hang, a threshold."""
    found = trial.recovery
    if found.impact_s is None:
        return "none bad" if found.outcome is Outcome.ABSORBED else text.UNKNOWN
    if found.impact_seen_s is None:
        return text.UNKNOWN
    return text.milliseconds(1000 * (found.impact_seen_s - found.impact_s))
