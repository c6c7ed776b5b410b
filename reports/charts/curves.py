"""Kaplan-Meier curves as inline SVG: the share of trials not yet recovered, all arms of an experiment."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from monkeyproof.reports import text
from monkeyproof.reports.charts import svg
from monkeyproof.reports.model.names import healer_name
from monkeyproof.reports.stats.comparison import NO_HEALER
from monkeyproof.reports.stats.summary import TrialGroup
from monkeyproof.reports.stats.survival import Survival

WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 38.0, 350.0, 20.0, 160.0
HEALER_STYLES = 3
"""Colours for arms with a healer; more of them share the last."""


def draw_curves(groups: Sequence[TrialGroup]) -> Markup:
    """One figure for the arms of one experiment; those of which nothing is known are left out."""
    known = [(group, group.survival) for group in groups if group.survival is not None]
    if not known:
        return Markup("")
    deadline_s = known[0][0].deadline_s
    longest_s = max(seen.time_s for group, _ in known for seen in group.observations)
    scale = svg.TimeAxis(0.0, max(longest_s, deadline_s) * 1.04, LEFT, RIGHT)
    shapes = _axes(scale)
    css_classes = _css_classes([group.arm for group, _ in known])
    ends = []
    for (group, curve), css in zip(known, css_classes, strict=True):
        shapes += _curve(group, curve, scale, css)
        stop_s = min(curve.known_until_s, scale.to_s)
        ends.append((scale.x(stop_s), _y(curve.shares[-1]), healer_name(group.arm), css))
    deadline = scale.x(deadline_s)
    shapes.append(svg.line(deadline, TOP - 6, deadline, BOTTOM, "tl-objective", f"deadline {deadline_s:g} s"))
    anchor = "end" if deadline > (LEFT + RIGHT) / 2 else "start"
    beside = deadline - 4 if anchor == "end" else deadline + 4
    shapes.append(svg.text(beside, TOP - 8, f"deadline {deadline_s:g} s", "tl-small tl-halo", anchor))
    shapes += _labels(ends)
    caption = "Share of trials not yet recovered. " + "; ".join(_caption(group) for group, _ in known)
    return Markup('<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        svg.number(WIDTH), svg.number(HEIGHT), caption, Markup("").join(shapes)
    )


def _axes(scale: svg.TimeAxis) -> list[Markup]:
    shapes = []
    for share in (0.0, 0.5, 1.0):
        shapes.append(svg.line(LEFT, _y(share), RIGHT, _y(share), "tl-grid"))
        shapes.append(svg.text(LEFT - 5, _y(share) + 3.5, f"{share * 100:.0f} %", "tl-tick", "end"))
    for tick_s in scale.ticks_s(0.0, most=6):
        x = scale.x(tick_s)
        shapes.append(svg.line(x, BOTTOM, x, BOTTOM + 4, "tl-axis"))
        shapes.append(svg.text(x, BOTTOM + 16, f"{tick_s:g}" + (" s" if not tick_s else ""), "tl-tick", "middle"))
    return shapes


def _curve(group: TrialGroup, curve: Survival, scale: svg.TimeAxis, css: str) -> list[Markup]:
    """Band, steps, and a tick for every censored trial. A curve ends where nothing more is known of it."""
    stop_s = min(curve.known_until_s, scale.to_s)
    edges = [scale.x(at_s) for at_s in (0.0, *curve.times_s, stop_s)]
    heights = [_y(share) for share in (1.0, *curve.shares)]
    both = [math.isfinite(low) and math.isfinite(high) for low, high in zip(curve.lows, curve.highs, strict=True)]
    highs = [math.nan, *(_y(high) if ok else math.nan for high, ok in zip(curve.highs, both, strict=True))]
    lows = [math.nan, *(_y(low) if ok else math.nan for low, ok in zip(curve.lows, both, strict=True))]
    shapes = []
    if any(both):
        shapes.append(svg.path(svg.steps_path(edges, highs, lows), f"km-band {css}"))
    shapes.append(svg.path(svg.steps_path(edges, heights, None), f"km-line {css}", _caption(group)))
    for at_s in sorted({seen.time_s for seen in group.observations if not seen.recovered}):
        number = sum(seen.time_s == at_s and not seen.recovered for seen in group.observations)
        x, y = scale.x(at_s), _y(_share_at(curve, at_s))
        title = f"{text.count(number, 'trial')} not recovered within {text.seconds(at_s)}, then no longer watched"
        shapes.append(svg.line(x, y - 4, x, y + 4, f"km-tick {css}", title))
    return shapes


def _labels(ends: Sequence[tuple[float, float, str, str]]) -> list[Markup]:
    """The arms' names at the ends of their curves, lowest first; each at least a line above the one below."""
    shapes = []
    room = BOTTOM - 5.0
    for x, y, name, css in sorted(ends, key=lambda end: -end[1]):
        at = min(y - 5.0, room)
        room = at - 13.0
        label = text.short(name, 26)
        left = max(LEFT + 4.0, x - 4.0 - svg.text_width(label))
        shapes.append(svg.text(left, at, label, f"km-name tl-halo {css}"))
    return shapes


def _css_classes(arms: Sequence[str]) -> list[str]:
    healers = [arm for arm in arms if arm != NO_HEALER]
    return ["km-none" if arm == NO_HEALER else f"km-{min(healers.index(arm), HEALER_STYLES - 1)}" for arm in arms]


def _share_at(curve: Survival, at_s: float) -> float:
    return next(
        (share for when_s, share in zip(curve.times_s[::-1], curve.shares[::-1], strict=True) if when_s <= at_s),
        1.0,
    )


def _caption(group: TrialGroup) -> str:
    median = text.NOT_REACHED if group.median_s is None else text.seconds(group.median_s)
    return (
        f"{healer_name(group.arm)}: median {median}, {group.censored_count} of {len(group.observations)} censored"
    )


def _y(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share
