"""Draws one trial: its users' answers, its faults and the healer's actions, over one axis of time."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from monkeyproof.config.target_file import Slo
from monkeyproof.errors import UsageError
from monkeyproof.record.history import READINGS_FILE, History
from monkeyproof.record.readings import Readings
from monkeyproof.reports.charts import lanes, svg
from monkeyproof.reports.charts.bins import Bins, bin_readings
from monkeyproof.reports.charts.svg import TimeAxis
from monkeyproof.reports.model import trial_timeline
from monkeyproof.reports.text import OUTCOMES, clean, milliseconds, percent, seconds, span
from monkeyproof.types import Outcome, Recovery, TrialResult

WIDTH, LEFT, RIGHT = 1000.0, 114.0, 944.0
GOOD_HEIGHT, LATENCY_HEIGHT = 84.0, 62.0
TEMPLATES = Path(__file__).parents[1] / "templates"


@cache
def environment() -> jinja2.Environment:
    """Templates of the reports. All that they print is escaped, and rid of control characters."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )


def draw(trial: TrialResult, folder: Path, slo: Slo, *, standalone: bool = False) -> Markup:
    """The timeline of a trial as SVG. ``folder`` is the campaign's.

    Args:
        standalone: Carry the colours along, so that the drawing can live outside the report.

    Raises:
        UsageError: the trial's history cannot be read, or holds no readings.
    """
    history = History.read(folder / trial.folder)
    bins = bin_readings(Readings.read(folder / trial.folder / READINGS_FILE), trial.recovery.t0_s or 0.0)
    if bins is None:
        raise UsageError(f"{folder / trial.folder / READINGS_FILE}: not one reading is in it")
    return draw_history(trial, history, bins, slo, standalone=standalone)


def draw_history(
    trial: TrialResult, history: History, bins: Bins, slo: Slo, *, standalone: bool = False
) -> Markup:
    """The same, from a history and readings that the caller has read."""
    recovery = trial.recovery
    origin_s = recovery.t0_s or 0.0
    to_s = float(bins.starts_s[-1]) + bins.width_s
    scale = TimeAxis(float(bins.starts_s[0]), max(to_s, recovery.end_s or 0.0), LEFT, RIGHT)
    key = f"{trial.experiment}-{trial.arm}-{trial.seed}-{trial.index}"
    hatch = "hatch-" + "".join(letter if letter.isalnum() else "-" for letter in key if letter.isascii())

    faults = trial_timeline.faults(history)
    marks, y = _marks(recovery, faults, scale)
    bands_top = y
    good, y = _good_band(bins, slo, scale, y, hatch)
    latency, y = _latency_band(bins, slo, scale, y + 14)
    strips, strips_end = lanes.strips(bins, scale, y + 12)
    version, y = lanes.versions(bins, scale, strips_end)
    absences, y = lanes.absence_lane(trial_timeline.absences(history), scale, y, origin_s)
    fault_rows, y = lanes.fault_lanes(faults, scale, y, hatch, origin_s)
    healer, y = lanes.healer_lanes(trial_timeline.steps(history), trial.arm, scale, y, origin_s)
    phases, y = lanes.phase_lane(trial_timeline.phases(history), scale, y)
    axis, height = _axis(scale, origin_s, y, since_fault=recovery.t0_s is not None)

    behind = _fault_shade(faults, scale, bands_top, y, hatch)
    hover = _hover(bins, slo, scale, bands_top, strips_end, origin_s)
    again = _recovered_band(recovery, scale, bands_top, y)
    marked = _mark_lines(recovery, scale, bands_top, y)
    shapes = [*good, *latency, *behind, *strips, *version, *absences, *again, *marked]
    shapes += [*fault_rows, *healer, *phases, *axis, *marks, *hover]
    return Markup(
        environment()
        .get_template("timeline.svg")
        .render(
            shapes=Markup("\n").join(shapes),
            hatch=hatch,
            width=int(WIDTH),
            height=math.ceil(height),
            label=_sentence(trial),
            standalone=standalone,
        )
    )


def _sentence(trial: TrialResult) -> str:
    word = OUTCOMES[trial.recovery.outcome][0]
    return f"Timeline of {trial.experiment}, arm {trial.arm}, seed {trial.seed}: {word}. {trial.recovery.reason}"


def _good_band(bins: Bins, slo: Slo, scale: TimeAxis, y: float, hatch: str) -> lanes.Drawn:
    """Good answers from below, bad ones on top of them; where nothing is known, the hatching shows through."""
    bottom = y + GOOD_HEIGHT
    total = bins.known + bins.unknown
    nothing = np.where(total == 0, np.nan, 0.0)
    whole = np.maximum(total, 1)
    edges = _edges(bins, scale)
    known = bottom - GOOD_HEIGHT * bins.known / whole + nothing
    good = bottom - GOOD_HEIGHT * bins.good / whole + nothing
    objective = bottom - GOOD_HEIGHT * slo.objective
    shapes = [
        svg.rect(LEFT, y, RIGHT - LEFT, GOOD_HEIGHT, "tl-unknown", fill=f"url(#{hatch}-u)"),
        svg.path(svg.steps_path(edges, known.tolist(), bottom), "tl-bad-area"),
        svg.path(svg.steps_path(edges, good.tolist(), bottom), "tl-good-area"),
        svg.path(svg.steps_path(edges, good.tolist(), None), "tl-good-line"),
        svg.line(LEFT, objective, RIGHT, objective, "tl-objective"),
        svg.text(lanes.LABEL_X, y + 34, "good answers", "tl-name tl-strong", "end"),
        svg.text(lanes.LABEL_X, y + 48, f"per {seconds(bins.width_s)}", "tl-faint", "end"),
        svg.text(RIGHT + 6, objective + 4, percent(slo.objective), "tl-total"),
        svg.text(RIGHT + 6, bottom - GOOD_HEIGHT / 2 + 4, "50 %", "tl-faint"),
        svg.text(RIGHT + 6, bottom + 1, "0 %", "tl-faint"),
        svg.line(LEFT, bottom - GOOD_HEIGHT / 2, RIGHT, bottom - GOOD_HEIGHT / 2, "tl-grid"),
        svg.line(LEFT, bottom, RIGHT, bottom, "tl-axis"),
    ]
    return shapes, bottom


def _latency_band(bins: Bins, slo: Slo, scale: TimeAxis, y: float) -> lanes.Drawn:
    """Median and maximum on a logarithmic scale, from 1 ms: a median of 3 ms and a time-out both show."""
    bottom = y + LATENCY_HEIGHT
    highest = max([2 * slo.latency_ms, *bins.max_ms[np.isfinite(bins.max_ms)].tolist()])
    decades = max(1, math.ceil(math.log10(highest) - 0.05))

    def height(value_ms: NDArray[np.float64]) -> list[float]:
        logarithm: NDArray[np.float64] = np.log10(np.maximum(value_ms, 1.0))
        return [bottom - LATENCY_HEIGHT * min(share, 1.0) for share in (logarithm / decades).tolist()]

    shapes = [svg.text(lanes.LABEL_X, y + 22, "latency", "tl-name tl-strong", "end")]
    shapes.append(svg.text(lanes.LABEL_X, y + 36, "median, maximum", "tl-faint", "end"))
    edges = _edges(bins, scale)
    p50, highs = height(bins.p50_ms), height(bins.max_ms)
    objective = height(np.array([slo.latency_ms]))[0]
    for decade in range(decades + 1):
        at = bottom - LATENCY_HEIGHT * decade / decades
        shapes.append(svg.line(LEFT, at, RIGHT, at, "tl-axis" if decade == 0 else "tl-grid"))
        if abs(at - objective) > 13:  # The objective has its own label there.
            name = f"{10**decade} ms" if decade < 3 else f"{10 ** (decade - 3)} s"
            shapes.append(svg.text(RIGHT + 6, at + 4, name, "tl-faint"))
    shapes.append(svg.path(svg.steps_path(edges, highs, p50), "tl-latency-area"))
    shapes.append(svg.path(svg.steps_path(edges, p50, None), "tl-latency-line"))
    shapes.append(svg.line(LEFT, objective, RIGHT, objective, "tl-objective"))
    shapes.append(svg.text(RIGHT + 6, objective + 4, milliseconds(slo.latency_ms), "tl-total"))
    return shapes, bottom


def _marks(recovery: Recovery, faults: tuple[trial_timeline.FaultSpan, ...], scale: TimeAxis) -> lanes.Drawn:
    """Names of the instants that matter, above the bands, in as many rows as they need."""
    origin_s = recovery.t0_s or 0.0
    found: list[tuple[float, str, str]] = []
    if recovery.t0_s is not None:
        found.append((recovery.t0_s, "t0: fault begins", "tl-mark-fault"))
    if recovery.impact_s is not None:
        found.append(
            (recovery.impact_s, f"first bad answer +{seconds(recovery.impact_s - origin_s)}", "tl-mark-bad")
        )
    if recovery.recovered is not None:
        caption = "right again" if recovery.outcome.under_fault else "right again, after the revert,"
        when = span(recovery.recovered.since(origin_s))
        found.append((recovery.recovered.high_s, f"{caption} +{when}", "tl-mark-recovered"))
    reverted_s = recovery.reverted_s or max((fault.reverted_s or 0.0 for fault in faults), default=0.0)
    if reverted_s:
        found.append((reverted_s, "fault reverted", "tl-mark-fault"))
    rows = svg.LabelRows(limit=4, gap=10.0)
    placed: list[tuple[int, float, str, str, bool]] = []
    for at_s, label, css in found:
        x, wide = scale.x(at_s), svg.text_width(label) + 6
        after = x + wide <= WIDTH - 4
        row = rows.place(x, x + wide) if after else rows.place(x - wide, x)
        placed.append((row if row is not None else 3, x, label, css, after))
    bottom = 6.0 + 15 * max(1, len(rows.ends))
    pins = [svg.line(x, 4.0 + 15 * row, x, bottom, f"tl-mark {css}") for row, x, _, css, _ in placed]
    names = [
        svg.text(x + 4 if after else x - 4, 14.0 + 15 * row, label, f"tl-halo {css}", "start" if after else "end")
        for row, x, label, css, after in placed
    ]
    return [*pins, *names], bottom


def _mark_lines(recovery: Recovery, scale: TimeAxis, top: float, bottom: float) -> list[Markup]:
    instants = (
        (recovery.t0_s, "tl-mark-fault", "t0: the earliest start of the fault"),
        (recovery.impact_s, "tl-mark-bad", "first bad answer"),
        (recovery.reverted_s, "tl-mark-fault", "the fault was reverted"),
    )
    return [
        svg.line(scale.x(at_s), top, scale.x(at_s), bottom, f"tl-mark {css}", title)
        for at_s, css, title in instants
        if at_s is not None
    ]


def _fault_shade(
    faults: tuple[trial_timeline.FaultSpan, ...], scale: TimeAxis, top: float, bottom: float, hatch: str
) -> list[Markup]:
    """Behind everything: hatched while the fault may have begun, tinted while it is proven to be there."""
    proven = [fault for fault in faults if fault.effective_s is not None]
    if not proven:
        return []
    begins = scale.x(min(fault.intended_s for fault in proven))
    surely = scale.x(min(fault.effective_s or fault.intended_s for fault in proven))
    shapes = [svg.rect(begins, top, max(1.5, surely - begins), bottom - top, "tl-maybe", fill=f"url(#{hatch})")]
    held = [fault for fault in proven if fault.held]
    if held:
        ends = max(scale.right if fault.reverted_s is None else scale.x(fault.reverted_s) for fault in held)
        shapes.append(svg.rect(surely, top, ends - surely, bottom - top, "tl-fault-shade"))
    return shapes


def _recovered_band(recovery: Recovery, scale: TimeAxis, top: float, bottom: float) -> list[Markup]:
    if recovery.recovered is None or recovery.outcome is Outcome.ABSORBED:
        return []
    low, high = scale.x(recovery.recovered.low_s), scale.x(recovery.recovered.high_s)
    low = min(low, high - 2)
    title = f"right again {span(recovery.recovered.since(recovery.t0_s or 0.0))} after t0"
    return [svg.rect(low, top, high - low, bottom - top, "tl-recovered", title)]


def _axis(scale: TimeAxis, origin_s: float, y: float, *, since_fault: bool) -> lanes.Drawn:
    shapes = [svg.line(scale.left, y + 2, scale.right, y + 2, "tl-axis")]
    for tick_s in scale.ticks_s(origin_s):
        x = scale.x(origin_s + tick_s)
        shapes.append(svg.line(x, y + 2, x, y + 6, "tl-axis"))
        shapes.append(svg.text(x, y + 18, f"{tick_s:g}".replace("-", "−"), "tl-tick", "middle"))
    caption = "seconds since t0" if since_fault else "seconds"
    shapes.append(svg.text(lanes.LABEL_X, y + 18, caption, "tl-faint", "end"))
    return shapes, y + 24


def _hover(bins: Bins, slo: Slo, scale: TimeAxis, top: float, bottom: float, origin_s: float) -> list[Markup]:
    """Invisible, on top: what a pointer reads. Quiet neighbours share one, so that the file stays small."""
    quiet = (bins.bad == 0) & (bins.unknown == 0) & (bins.degraded == 0)
    quiet &= (bins.known > 0) & ~(bins.max_ms > slo.latency_ms)
    shapes: list[Markup] = []
    place = 0
    while place < len(bins):
        last = place
        while quiet[place] and last + 1 < len(bins) and quiet[last + 1]:
            last += 1
        left, right = scale.x(bins.starts_s[place]), scale.x(bins.starts_s[last] + bins.width_s)
        title = _hover_title(bins, place, last, origin_s)
        shapes.append(svg.rect(left, top, right - left, bottom - top, "tl-hover", title))
        place = last + 1
    return shapes


def _hover_title(bins: Bins, first: int, last: int, origin_s: float) -> str:
    shown = slice(first, last + 1)
    known, unknown = int(bins.known[shown].sum()), int(bins.unknown[shown].sum())
    parts = [f"{int(bins.good[shown].sum())} of {known} good" if known else "nothing is known"]
    counted = (
        ("wrong", bins.wrong),
        ("late", bins.late),
        ("unanswered", bins.unanswered),
        ("by fallback", bins.degraded),
    )
    parts += [f"{int(values[shown].sum())} {name}" for name, values in counted if values[shown].any()]
    if unknown and known:
        parts.append(f"{unknown} unknown")
    if np.isfinite(bins.max_ms[shown]).any():
        median_ms, max_ms = float(np.nanmedian(bins.p50_ms[shown])), float(np.nanmax(bins.max_ms[shown]))
        parts.append(f"median {milliseconds(median_ms)}, max {milliseconds(max_ms)}")
    start_s, end_s = bins.starts_s[first] - origin_s, bins.starts_s[last] + bins.width_s - origin_s
    return f"{start_s:.2f} to {end_s:.2f} s: " + ", ".join(parts)


def _edges(bins: Bins, scale: TimeAxis) -> list[float]:
    return [scale.x(start_s) for start_s in (*bins.starts_s.tolist(), float(bins.starts_s[-1]) + bins.width_s)]
