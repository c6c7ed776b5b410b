"""``report.html``: one file that needs no network, for people.

The page forbids itself every request by a content security policy, so that no text from a target can
load, run or send anything, even if the escaping were to fail.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from monkeyproof.config.target_file import Slo
from monkeyproof.errors import UsageError
from monkeyproof.record.history import READINGS_FILE, History
from monkeyproof.record.readings import Readings
from monkeyproof.reports import text as words
from monkeyproof.reports.charts import svg
from monkeyproof.reports.charts.bins import bin_readings, limit_for
from monkeyproof.reports.charts.curves import draw_curves
from monkeyproof.reports.charts.timeline import draw_history, environment
from monkeyproof.reports.format_table import report_format
from monkeyproof.reports.model import trial_timeline
from monkeyproof.reports.model.comparison_rows import COMPARISON_COLUMNS
from monkeyproof.reports.model.group_rows import SHAM_COLUMNS
from monkeyproof.reports.model.names import healer_name
from monkeyproof.reports.model.report import Report
from monkeyproof.reports.model.trial_rows import TrialRow, trial_figures
from monkeyproof.reports.stats.summary import Statistics, TrialGroup
from monkeyproof.types import Outcome, TrialResult

STRIP_WIDTH, STRIP_HEIGHT = 190.0, 30.0


@dataclass(frozen=True, slots=True)
class TrialSection:
    """The part of the page about one trial."""

    row: TrialRow
    timeline: Markup
    problem: str
    """Why there is no timeline."""
    faults: tuple[trial_timeline.FaultSpan, ...]
    steps: tuple[tuple[str, str, str], ...]
    """When, what, and in which words."""
    troubles: tuple[str, ...]
    figures: Sequence[tuple[str, str]]
    load: Sequence[tuple[str, str]]
    open: bool


@report_format("report.html", name="html")
def render(report: Report) -> str:
    """The page as text."""
    templates = environment()
    style = templates.get_template("colours.css").render() + templates.get_template("timeline.css").render()
    style += templates.get_template("report.css").render()
    script = templates.get_template("report.js").render()
    opened, limit = _worth_opening(report.trials), limit_for(len(report.trials))
    sections = [
        _section(row, report.folder, report.slo, limit, opened=row.anchor in opened) for row in report.trials
    ]
    most_s = _scale_end_s(report.statistics)
    return templates.get_template("report.html").render(
        report=report,
        campaign=report.campaign,
        slo=report.slo,
        prober=report.prober,
        decision=report.verdict.decision,
        sham_columns=SHAM_COLUMNS,
        groups=[(row, _strip(row.group, most_s)) for row in report.groups],
        curves=_curves([row.group for row in report.groups]),
        strip_axis=_strip_axis(most_s, report.slo),
        comparison_columns=COMPARISON_COLUMNS,
        chapters=_chapters(sections),
        outcomes=[(outcome, *words.OUTCOMES[outcome]) for outcome in Outcome],
        machine=words.pairs_of(report.campaign.machine),
        versions=words.pairs_of(report.campaign.versions),
        healer_name=healer_name,
        words=words,
        style=Markup(style),
        script=Markup(script),
        style_hash=_digest(style),
        script_hash=_digest(script),
    )


def _section(row: TrialRow, folder: Path, slo: Slo, limit: int, *, opened: bool) -> TrialSection:
    """A trial's part of the page. If its history is damaged, the reason takes the place of the timeline."""
    trial = row.trial
    timeline, problem = Markup(""), ""
    faults: tuple[trial_timeline.FaultSpan, ...] = ()
    steps: tuple[tuple[str, str, str], ...] = ()
    troubles: tuple[str, ...] = ()
    try:
        history = History.read(folder / trial.folder)
        faults, troubles = trial_timeline.faults(history), trial_timeline.troubles(history)
        steps = tuple(_step_words(step, trial) for step in trial_timeline.steps(history))
        readings = Readings.read(folder / trial.folder / READINGS_FILE)
        bins = bin_readings(readings, trial.recovery.t0_s or 0.0, limit)
        if bins is None:
            problem = "not one reading was taken"
        else:
            timeline = draw_history(trial, history, bins, slo)
    except UsageError as error:
        problem = str(error)
    return TrialSection(
        row=row,
        timeline=timeline,
        problem=problem,
        faults=faults,
        steps=steps,
        troubles=troubles,
        figures=trial_figures(trial),
        load=words.pairs_of(trial.load),
        open=opened,
    )


def _step_words(step: trial_timeline.HealerStep, trial: TrialResult) -> tuple[str, str, str]:
    origin_s = trial.recovery.t0_s or 0.0
    when = f"{step.start_s - origin_s:+.2f} s".replace("-", "−")
    if step.kind != "action":
        return when, f"{step.kind} {step.label}".strip(), step.text
    if step.end_s is None:
        return when, f"{step.label}, no end was recorded", step.text
    end = "done in" if step.ok else "failed after"
    return when, f"{step.label}, {end} {words.seconds(step.end_s - step.start_s)}", step.text


def _worth_opening(rows: Sequence[TrialRow]) -> set[str]:
    """One trial of each experiment is open at first: the first in which a healer worked, else the first."""
    chosen: dict[str, TrialRow] = {}
    for row in rows:
        known = chosen.setdefault(row.trial.experiment, row)
        if known.trial.recovery.outcome is not Outcome.HEALED and row.trial.recovery.outcome is Outcome.HEALED:
            chosen[row.trial.experiment] = row
    return {row.anchor for row in chosen.values()}


def _chapters(sections: Sequence[TrialSection]) -> list[tuple[str, str, list[TrialSection]]]:
    """The trials by experiment: its name, its title, and the sections of its trials."""
    by_name: dict[str, list[TrialSection]] = {}
    for section in sections:
        by_name.setdefault(section.row.trial.experiment, []).append(section)
    return [(name, found[0].row.trial.title, found) for name, found in by_name.items()]


def _curves(groups: Sequence[TrialGroup]) -> list[tuple[str, Markup]]:
    names = dict.fromkeys(group.experiment for group in groups if group.survival)
    return [(name, draw_curves([group for group in groups if group.experiment == name])) for name in names]


def _scale_end_s(statistics: Statistics) -> float:
    seen = [observed.time_s for group in statistics.groups for observed in group.observations]
    deadlines = [group.deadline_s for group in statistics.groups]
    return max([*seen, *deadlines, 1.0]) * 1.04


def _strip(group: TrialGroup, most_s: float) -> Markup:
    """Every trial as a mark: a dot where it recovered, an open arrow where it is only known to be later."""
    scale = svg.TimeAxis(0.0, most_s, 6.0, STRIP_WIDTH - 8.0)
    middle = STRIP_HEIGHT / 2
    deadline = scale.x(group.deadline_s)
    shapes = [
        svg.line(scale.left, middle, scale.right, middle, "tl-grid"),
        svg.line(deadline, 2, deadline, STRIP_HEIGHT - 2, "tl-objective"),
    ]
    rows = svg.LabelRows(limit=3, gap=0.0)
    for seen in sorted(group.observations, key=lambda observed: observed.time_s):
        x = scale.x(seen.time_s)
        y = middle + (0, -8, 8)[rows.place(x - 4, x + 4) or 0]
        title = f"{'recovered after' if seen.recovered else 'not recovered within'} {words.seconds(seen.time_s)}"
        at = f"M{svg.number(x)},{svg.number(y)}"
        dot = at + "m-4,0a4,4 0 1 0 8,0a4,4 0 1 0 -8,0"
        arrow = at + "m-3,-4.5l8,4.5l-8,4.5z"
        shapes.append(svg.path(dot if seen.recovered else arrow, "dot" if seen.recovered else "arrow", title))
    caption = f"{len(group.recovered_s)} recovered, {group.censored_count} censored"
    return Markup('<svg class="strip" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        svg.number(STRIP_WIDTH), svg.number(STRIP_HEIGHT), caption, Markup("").join(shapes)
    )


def _strip_axis(most_s: float, slo: Slo) -> Markup:
    scale = svg.TimeAxis(0.0, most_s, 6.0, STRIP_WIDTH - 8.0)
    shapes = [
        svg.text(scale.x(tick_s), 12, f"{tick_s:g}" + (" s" if not tick_s else ""), "tl-tick", "middle")
        for tick_s in scale.ticks_s(0.0, most=6)
    ]
    caption = f"Scale in seconds; the dashed line is the deadline of {slo.recovery.within_s:g} s"
    return Markup('<svg class="strip" viewBox="0 0 {} 16" role="img" aria-label="{}">{}</svg>').format(
        svg.number(STRIP_WIDTH), caption, Markup("").join(shapes)
    )


def _digest(text: str) -> str:
    """Of an inline style or script, for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
