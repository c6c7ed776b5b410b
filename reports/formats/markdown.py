"""``report.md``: the facts of the report as text and tables, for pull requests and terminals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from monkeyproof.reports import text as words
from monkeyproof.reports.format_table import report_format
from monkeyproof.reports.model.comparison_rows import COMPARISON_COLUMNS, ComparisonRow
from monkeyproof.reports.model.group_rows import SHAM_COLUMNS, GroupRow, ShamRow
from monkeyproof.reports.model.names import healer_name
from monkeyproof.reports.model.report import Report
from monkeyproof.reports.model.trial_rows import TrialRow

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


@report_format("report.md", name="markdown")
def render(report: Report) -> str:
    """The report as Markdown. Text from a target cannot become markup."""
    campaign, slo = report.campaign, report.slo
    parts = [
        f"# monkeyproof: {plain(campaign.name)} against {plain(campaign.target)}",
        *_verdict(report),
        *[f"**{plain(sentence)}**" for sentence in report.headline],
        f"{words.count(len(report.trials), 'trial')} in {words.duration(campaign.duration_s)}, begun "
        f"{plain(words.moment(campaign.started_utc))}, seed {campaign.seed}. Steady means "
        f"{words.percent(slo.objective)} of answers right, answered and within "
        f"{words.milliseconds(slo.latency_ms)}, for {words.setting(slo.stable_for_s)}. The deadline to recover is "
        f"{words.setting(slo.recovery.within_s)}.",
        plain(report.clock),
        *[f"> {plain(warning)}" for warning in report.warnings],
        *_under_fault(report.groups),
        *_comparisons(report.comparisons),
        *_shams(report.shams),
        "## Every trial",
        _table(TRIAL_COLUMNS, (_trial_cells(row) for row in report.trials)),
        *_explanations(report.trials),
        "## How these numbers are made",
        _method(report),
        _list([*words.pairs_of(campaign.machine), *words.pairs_of(campaign.versions)]),
        "Rebuild this report with `monkeyproof report DIR`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _under_fault(rows: Sequence[GroupRow]) -> list[str]:
    if not rows:  # Nothing but shams or storms.
        return []
    return ["## Time to recover while the fault was held", _table(GROUP_COLUMNS, map(_group_cells, rows))]


def _method(report: Report) -> str:
    return (
        f"A prober asks {report.prober.rate_per_s:g} times a second whatever the answers do; its own lateness was "
        f"at most {report.lateness} (p99 of the worst trial). Times count from t0, the earliest moment at "
        "which the fault can have begun. `> 15.0 s (censored)` means: not recovered while the fault was there, as "
        "far as it was watched. Censored trials stay in the median, p90 (Kaplan-Meier) and restricted mean; they "
        "are neither dropped nor averaged in. Recovered trials count with the upper end of their interval, "
        "absorbed ones as 0 s. Shares have exact (Clopper-Pearson) intervals, or limits that hold "
        "at every look if the campaign ends as soon as its verdict is decided; they count a trial censored "
        "before the deadline as not recovered. Invalid and unproven trials count for nothing; shams have a table "
        "of their own."
    )


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = words.clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(lambda match: "\\" + match[0], text)


def _verdict(report: Report) -> list[str]:
    word = report.verdict.decision.upper()
    lines = [
        f"- {row.word}: {plain(row.experiment)}, {plain(row.arm)}. {plain(row.reason)}"
        for row in report.verdict_rows_beside
    ]
    return [f"**Verdict: {word}.** {plain(report.verdict_reason)}", "\n".join(lines)]


def _shams(rows: Sequence[ShamRow]) -> list[str]:
    if not rows:
        return []
    cells = [[row.arm, str(row.count), str(row.false_count), row.acted] for row in rows]
    return ["### Shams: nothing was broken", _table(SHAM_COLUMNS, cells)]


def _comparisons(rows: Sequence[ComparisonRow]) -> list[str]:
    if not rows:
        return []
    cells = ([row.comparison.experiment, row.comparison.arm, *row.cells] for row in rows)
    return ["### With and without a healer", _table(("Experiment", "Healer", *COMPARISON_COLUMNS), cells)]


def _group_cells(row: GroupRow) -> list[str]:
    return [
        row.group.experiment,
        healer_name(row.group.arm),
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


def _trial_cells(row: TrialRow) -> list[str]:
    trial = row.trial
    return [
        trial.experiment,
        healer_name(trial.arm),
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


def _explanations(trials: Sequence[TrialRow]) -> list[str]:
    """Why each outcome, and the proof that the fault took effect."""
    items = []
    for row in trials:
        trial = row.trial
        name = f"{trial.experiment}, {healer_name(trial.arm)}, seed {trial.seed}"
        lines = [f"- **{plain(name)}**: {plain(trial.recovery.reason)}."]
        lines += [f"  Ended before its time: {plain(trial.aborted)}."] if trial.aborted else []
        lines += [f"  Evidence: {plain(evidence)}." for evidence in trial.evidence]
        lines += [f"  Escalated: {plain(summary)}." for summary in trial.escalations]
        lines += [f"  Not reverted: {plain(what)}." for what in trial.not_reverted]
        items.append("\n".join(lines))
    return ["## Why, and the evidence", "\n".join(items)] if items else []


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _list(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {plain(key)}: {plain(value)}" for key, value in pairs)
