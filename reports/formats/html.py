"""``report.html``: one file that needs no network, for people.

The page forbids itself every request by a content security policy, so that nothing that a target said can
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
from monkeyproof.reports.formats import results_json
from monkeyproof.reports.model import facts, judgement, trial_timeline
from monkeyproof.reports.model.facts import TrialFacts
from monkeyproof.reports.model.verdict import judge
from monkeyproof.reports.stats.summary import Group, Summary, summarise
from monkeyproof.types import Campaign, Outcome, TrialResult

HTML_FILE = "report.html"
STRIP_WIDTH, STRIP_HEIGHT = 190.0, 30.0


@dataclass(frozen=True, slots=True)
class TrialStory:
    """All that the page tells of one trial."""

    facts: TrialFacts
    timeline: Markup
    problem: str
    """Why there is no timeline."""
    faults: tuple[trial_timeline.FaultStory, ...]
    steps: tuple[tuple[str, str, str], ...]
    """When, what, and in which words."""
    troubles: tuple[str, ...]
    counted: Sequence[tuple[str, str]]
    load: Sequence[tuple[str, str]]
    open: bool


def write_html(campaign: Campaign, folder: Path, path: Path) -> Path:
    """Write the page. ``folder`` is the campaign's, in which the trials' histories are."""
    path.write_text(render(campaign, folder), encoding="utf-8")
    return path


def render(campaign: Campaign, folder: Path) -> str:
    """The page as text."""
    slo = results_json.slo_of(campaign)
    summary, verdict = summarise(campaign, slo), judge(campaign, slo)
    groups = facts.under_fault(summary.groups)
    templates = environment()
    style = templates.get_template("colours.css").render() + templates.get_template("timeline.css").render()
    style += templates.get_template("report.css").render()
    script = templates.get_template("report.js").render()
    shown = facts.trial_facts(campaign)
    opened, limit = _worth_opening(shown), limit_for(len(shown))
    stories = [_story(row, folder, slo, limit, opened=row.anchor in opened) for row in shown]
    most_s = _scale_end_s(summary)
    return templates.get_template("report.html").render(
        campaign=campaign,
        slo=slo,
        prober=results_json.prober_of(campaign),
        headline=facts.headline(summary),
        warnings=facts.warnings(campaign, summary),
        verdict=verdict,
        decision=verdict.decision,
        verdict_reason=judgement.reason(verdict),
        verdicts=judgement.lines_beside(verdict),
        clock=judgement.clock(campaign),
        shams=judgement.sham_facts(campaign),
        sham_columns=judgement.SHAM_COLUMNS,
        groups=[(row, _strip(row.group, most_s)) for row in facts.group_facts(groups)],
        curves=_curves(groups),
        strip_axis=_strip_axis(most_s, slo),
        pairs=[(pair, judgement.comparison_cells(pair)) for pair in summary.pairs],
        paired_columns=judgement.COMPARISON_COLUMNS,
        trials=shown,
        chapters=_chapters(stories),
        outcomes=[(outcome, *words.OUTCOMES[outcome]) for outcome in Outcome],
        lateness=facts.lateness(campaign),
        machine=facts.facts_of(campaign.machine),
        versions=facts.facts_of(campaign.versions),
        healer_name=judgement.healer_name,
        words=words,
        style=Markup(style),
        script=Markup(script),
        style_hash=_digest(style),
        script_hash=_digest(script),
    )


def _story(row: TrialFacts, folder: Path, slo: Slo, limit: int, *, opened: bool) -> TrialStory:
    """A trial whose history is missing or damaged is told without a timeline, and the reason is printed."""
    trial = row.trial
    timeline, problem = Markup(""), ""
    faults: tuple[trial_timeline.FaultStory, ...] = ()
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
    return TrialStory(
        facts=row,
        timeline=timeline,
        problem=problem,
        faults=faults,
        steps=steps,
        troubles=troubles,
        counted=facts.counted(trial),
        load=facts.facts_of(trial.load),
        open=opened,
    )


def _step_words(step: trial_timeline.Step, trial: TrialResult) -> tuple[str, str, str]:
    origin_s = trial.recovery.t0_s or 0.0
    when = f"{step.start_s - origin_s:+.2f} s".replace("-", "−")
    if step.kind != "action":
        return when, f"{step.kind} {step.label}".strip(), step.text
    if step.end_s is None:
        return when, f"{step.label}, no end was recorded", step.text
    end = "done in" if step.ok else "failed after"
    return when, f"{step.label}, {end} {words.seconds(step.end_s - step.start_s)}", step.text


def _worth_opening(rows: Sequence[TrialFacts]) -> set[str]:
    """One trial of each experiment is open at first: the first in which a healer worked, else the first."""
    chosen: dict[str, TrialFacts] = {}
    for row in rows:
        known = chosen.setdefault(row.trial.experiment, row)
        if known.trial.recovery.outcome is not Outcome.HEALED and row.trial.recovery.outcome is Outcome.HEALED:
            chosen[row.trial.experiment] = row
    return {row.anchor for row in chosen.values()}


def _chapters(stories: Sequence[TrialStory]) -> list[tuple[str, str, list[TrialStory]]]:
    """The trials by experiment: its name, its title, and they."""
    names = dict.fromkeys(told.facts.trial.experiment for told in stories)
    by_name = {name: [told for told in stories if told.facts.trial.experiment == name] for name in names}
    return [(name, told[0].facts.trial.title, told) for name, told in by_name.items()]


def _curves(groups: Sequence[Group]) -> list[tuple[str, Markup]]:
    names = dict.fromkeys(group.experiment for group in groups if group.survival)
    return [(name, draw_curves([group for group in groups if group.experiment == name])) for name in names]


def _scale_end_s(summary: Summary) -> float:
    seen = [observed.time_s for group in summary.groups for observed in group.observations]
    deadlines = [group.deadline_s for group in summary.groups]
    return max([*seen, *deadlines, 1.0]) * 1.04


def _strip(group: Group, most_s: float) -> Markup:
    """Every trial as a mark: a dot where it recovered, an open arrow where it is only known to be later."""
    scale = svg.Scale(0.0, most_s, 6.0, STRIP_WIDTH - 8.0)
    middle = STRIP_HEIGHT / 2
    deadline = scale.x(group.deadline_s)
    shapes = [
        svg.line(scale.left, middle, scale.right, middle, "tl-grid"),
        svg.line(deadline, 2, deadline, STRIP_HEIGHT - 2, "tl-objective"),
    ]
    rows = svg.Rows(limit=3, gap=0.0)
    for seen in sorted(group.observations, key=lambda observed: observed.time_s):
        x = scale.x(seen.time_s)
        y = middle + (0, -8, 8)[rows.place(x - 4, x + 4) or 0]
        title = f"{'recovered after' if seen.recovered else 'not recovered within'} {words.seconds(seen.time_s)}"
        at = f"M{svg.number(x)},{svg.number(y)}"
        dot = at + "m-4,0a4,4 0 1 0 8,0a4,4 0 1 0 -8,0"
        arrow = at + "m-3,-4.5l8,4.5l-8,4.5z"
        shapes.append(svg.path(dot if seen.recovered else arrow, "dot" if seen.recovered else "arrow", title))
    says = f"{len(group.recovered_s)} recovered, {group.censored_count} censored"
    return Markup('<svg class="strip" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        svg.number(STRIP_WIDTH), svg.number(STRIP_HEIGHT), says, Markup("").join(shapes)
    )


def _strip_axis(most_s: float, slo: Slo) -> Markup:
    scale = svg.Scale(0.0, most_s, 6.0, STRIP_WIDTH - 8.0)
    shapes = [
        svg.text(scale.x(tick_s), 12, f"{tick_s:g}" + (" s" if not tick_s else ""), "tl-tick", "middle")
        for tick_s in scale.ticks_s(0.0, most=6)
    ]
    says = f"Scale in seconds; the dashed line is the deadline of {slo.recovery.within_s:g} s"
    return Markup('<svg class="strip" viewBox="0 0 {} 16" role="img" aria-label="{}">{}</svg>').format(
        svg.number(STRIP_WIDTH), says, Markup("").join(shapes)
    )


def _digest(text: str) -> str:
    """Of an inline style or script, for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
