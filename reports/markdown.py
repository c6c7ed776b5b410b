"""``report.md``: the facts of the report as text and tables, for pull requests and terminals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from monkeyproof.config import ProberSettings
from monkeyproof.reports import facts, results, words
from monkeyproof.reports.facts import GroupFacts, TrialFacts
from monkeyproof.reports.statistics import Summary, summarise
from monkeyproof.types import Campaign

MARKDOWN_FILE = "report.md"

_MARKUP = re.compile(r"([\\`*\[\]|~#])|(?<!\w)(_)|(_)(?!\w)")
"""What could begin markup. An underscore inside a word cannot."""

TRIAL_COLUMNS = (
    "Experiment",
    "Arm",
    "Seed",
    "Outcome",
    "TTD",
    "TTR",
    "First wrong answer",
    "Silent",
    "Bad",
    "Wrong",
    "How it was healed",
)
GROUP_COLUMNS = (
    "Experiment",
    "Arm",
    "Outcomes",
    "Median (KM)",
    "p90",
    "Restricted mean",
    "Mean of the recovered",
    "Within the deadline",
)


def write_markdown(campaign: Campaign, path: Path) -> Path:
    path.write_text(render(campaign), encoding="utf-8")
    return path


def render(campaign: Campaign) -> str:
    """The report as Markdown. What came from a target cannot become markup."""
    slo, prober = results.slo_of(campaign), results.prober_of(campaign)
    summary = summarise(campaign, slo)
    trials = facts.trial_facts(campaign)
    parts = [
        f"# monkeyproof: {plain(campaign.name)} against {plain(campaign.target)}",
        *[f"**{plain(sentence)}**" for sentence in facts.headline(summary)],
        f"{words.count(len(trials), 'trial')} in {words.duration(campaign.duration_s)}, begun "
        f"{plain(words.moment(campaign.started_utc))}, seed {campaign.seed}. Steady means "
        f"{words.percent(slo.objective)} of answers right, answered and within "
        f"{words.milliseconds(slo.latency_ms)}, for {words.setting(slo.stable_for_s)}. The deadline to recover is "
        f"{words.setting(slo.recovery.within_s)}.",
        *[f"> {plain(warning)}" for warning in facts.warnings(campaign, summary)],
        "## Time to recover while the fault was held",
        _table(GROUP_COLUMNS, (_group_cells(row) for row in facts.group_facts(summary.groups))),
        *_pairs(summary),
        "## Every trial",
        _table(TRIAL_COLUMNS, (_trial_cells(row) for row in trials)),
        *_stories(trials),
        "## How these numbers are made",
        _how(campaign, prober),
        _list([*facts.facts_of(campaign.machine), *facts.facts_of(campaign.versions)]),
        "Rebuild this report with `monkeyproof report DIR`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _how(campaign: Campaign, prober: ProberSettings) -> str:
    return (
        f"A prober asks {prober.rate_per_s:g} times a second whatever the answers do; its own lateness was at "
        f"most {facts.lateness(campaign)} (p99 of the worst trial). Times count from t0, the earliest moment at "
        "which the fault can have begun. `> 15.0 s (censored)` means: not recovered while the fault was there, as "
        "far as it was watched. Censored trials stay in the median, p90 (Kaplan-Meier) and restricted mean; they "
        "are neither dropped nor averaged in. Recovered trials count with the upper end of their interval, "
        "absorbed ones as 0 s. Shares have exact (Clopper-Pearson) intervals, and count a trial that was censored "
        "before the deadline as not recovered. Invalid trials count for nothing."
    )


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = words.clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(lambda match: "\\" + match[0], text)


def _pairs(summary: Summary) -> list[str]:
    if not summary.pairs:
        return []
    rows = ([pair.experiment, pair.arm, *facts.paired_facts(pair)] for pair in summary.pairs)
    return [
        "### The same seeds with and without a healer",
        _table(("Experiment", "Healer", *facts.PAIRED_COLUMNS), rows),
    ]


def _group_cells(row: GroupFacts) -> list[str]:
    return [
        row.group.experiment,
        facts.healer_name(row.group.arm),
        ", ".join(f"{number} {word}" for _, word, number in row.outcomes),
        f"{row.median} ({row.median_interval})" if row.median_interval else row.median,
        row.p90,
        f"{row.restricted_mean} up to {row.horizon}" if row.horizon else row.restricted_mean,
        f"{row.mean} ({row.mean_of})",
        f"{row.in_time} ({row.in_time_interval})" if row.in_time_interval else row.in_time,
    ]


def _trial_cells(row: TrialFacts) -> list[str]:
    trial = row.trial
    return [
        trial.experiment,
        facts.healer_name(trial.arm),
        str(trial.seed),
        row.outcome + (f" (expected {row.unexpected})" if row.unexpected else ""),
        row.ttd,
        row.ttr,
        row.first_wrong,
        row.silent,
        f"{trial.recovery.bad_count:,}",
        f"{trial.recovery.wrong_count:,}",
        row.how_healed,
    ]


def _stories(trials: Sequence[TrialFacts]) -> list[str]:
    """Why each outcome, and the proof that the fault was there."""
    lines = []
    for row in trials:
        trial = row.trial
        name = f"{trial.experiment}, {facts.healer_name(trial.arm)}, seed {trial.seed}"
        told = [f"- **{plain(name)}**: {plain(trial.recovery.reason)}."]
        told += [f"  Evidence: {plain(evidence)}." for evidence in trial.evidence]
        told += [f"  Escalated: {plain(said)}." for said in trial.escalations]
        told += [f"  Not reverted: {plain(what)}." for what in trial.not_reverted]
        lines.append("\n".join(told))
    return ["## Why, and the evidence", "\n".join(lines)] if lines else []


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _list(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {plain(key)}: {plain(value)}" for key, value in pairs)
