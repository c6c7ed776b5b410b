"""``report.md``: the facts of the report as text and tables, for pull requests and terminals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from monkeyproof.config.target_file import ProberSettings
from monkeyproof.reports import text as words
from monkeyproof.reports.formats import results_json
from monkeyproof.reports.model import facts, judgement
from monkeyproof.reports.model.facts import GroupFacts, TrialFacts
from monkeyproof.reports.model.verdict import CampaignVerdict, judge
from monkeyproof.reports.stats.summary import Summary, summarise
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
    "Within the deadline",
    "Absorbed",
    "Served wrong answers",
)


def write_markdown(campaign: Campaign, path: Path) -> Path:
    path.write_text(render(campaign), encoding="utf-8")
    return path


def render(campaign: Campaign) -> str:
    """The report as Markdown. What came from a target cannot become markup."""
    slo, prober = results_json.slo_of(campaign), results_json.prober_of(campaign)
    summary = summarise(campaign, slo)
    trials = facts.trial_facts(campaign)
    parts = [
        f"# monkeyproof: {plain(campaign.name)} against {plain(campaign.target)}",
        *_verdict(judge(campaign, slo)),
        *[f"**{plain(sentence)}**" for sentence in facts.headline(summary)],
        f"{words.count(len(trials), 'trial')} in {words.duration(campaign.duration_s)}, begun "
        f"{plain(words.moment(campaign.started_utc))}, seed {campaign.seed}. Steady means "
        f"{words.percent(slo.objective)} of answers right, answered and within "
        f"{words.milliseconds(slo.latency_ms)}, for {words.setting(slo.stable_for_s)}. The deadline to recover is "
        f"{words.setting(slo.recovery.within_s)}.",
        plain(judgement.clock(campaign)),
        *[f"> {plain(warning)}" for warning in facts.warnings(campaign, summary)],
        *_under_fault(summary),
        *_pairs(summary),
        *_shams(campaign),
        "## Every trial",
        _table(TRIAL_COLUMNS, (_trial_cells(row) for row in trials)),
        *_stories(trials),
        "## How these numbers are made",
        _how(campaign, prober),
        _list([*facts.facts_of(campaign.machine), *facts.facts_of(campaign.versions)]),
        "Rebuild this report with `monkeyproof report DIR`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _under_fault(summary: Summary) -> list[str]:
    rows = facts.group_facts(facts.under_fault(summary.groups))
    if not rows:  # Nothing but shams or storms.
        return []
    return ["## Time to recover while the fault was held", _table(GROUP_COLUMNS, map(_group_cells, rows))]


def _how(campaign: Campaign, prober: ProberSettings) -> str:
    return (
        f"A prober asks {prober.rate_per_s:g} times a second whatever the answers do; its own lateness was at "
        f"most {facts.lateness(campaign)} (p99 of the worst trial). Times count from t0, the earliest moment at "
        "which the fault can have begun. `> 15.0 s (censored)` means: not recovered while the fault was there, as "
        "far as it was watched. Censored trials stay in the median, p90 (Kaplan-Meier) and restricted mean; they "
        "are neither dropped nor averaged in. Recovered trials count with the upper end of their interval, "
        "absorbed ones as 0 s. Shares have exact (Clopper-Pearson) intervals, or limits that hold "
        "at every look if the campaign ends as soon as its verdict is decided; they count a trial censored "
        "before the deadline as not recovered. Invalid and unproven trials count for nothing; shams stand apart."
    )


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = words.clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(lambda match: "\\" + match[0], text)


def _verdict(verdict: CampaignVerdict) -> list[str]:
    word = verdict.decision.upper()
    lines = [
        f"- {line.word}: {plain(line.experiment)}, {plain(line.arm)}. {plain(line.reason)}"
        for line in judgement.lines_beside(verdict)
    ]
    return [f"**Verdict: {word}.** {plain(judgement.reason(verdict))}", "\n".join(lines)]


def _shams(campaign: Campaign) -> list[str]:
    rows = [
        [sham.arm, str(sham.count), str(sham.false_count), sham.acted] for sham in judgement.sham_facts(campaign)
    ]
    if not rows:
        return []
    return ["### Shams: nothing was broken", _table(judgement.SHAM_COLUMNS, rows)]


def _pairs(summary: Summary) -> list[str]:
    if not summary.pairs:
        return []
    rows = ([pair.experiment, pair.arm, *judgement.comparison_cells(pair)] for pair in summary.pairs)
    return [
        "### With and without a healer",
        _table(("Experiment", "Healer", *judgement.COMPARISON_COLUMNS), rows),
    ]


def _group_cells(row: GroupFacts) -> list[str]:
    return [
        row.group.experiment,
        judgement.healer_name(row.group.arm),
        ", ".join(f"{number} {word}" for _, word, number in row.outcomes),
        _with(row.median, row.median_interval)
        + (f", at the earliest {row.median_earliest}" if row.median_earliest else ""),
        _with(row.p90, row.p90_interval),
        _with(row.restricted_mean, row.restricted_mean_interval)
        + (f" up to {row.horizon}" if row.horizon else ""),
        _with(row.in_time, row.in_time_interval),
        _with(row.absorbed, row.absorbed_interval),
        _with(row.served_wrong, row.served_wrong_interval),
    ]


def _with(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def _trial_cells(row: TrialFacts) -> list[str]:
    trial = row.trial
    return [
        trial.experiment,
        judgement.healer_name(trial.arm),
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
        name = f"{trial.experiment}, {judgement.healer_name(trial.arm)}, seed {trial.seed}"
        told = [f"- **{plain(name)}**: {plain(trial.recovery.reason)}."]
        told += [f"  Ended before its time: {plain(trial.aborted)}."] if trial.aborted else []
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
