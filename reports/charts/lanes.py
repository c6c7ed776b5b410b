"""The lanes under a timeline's two bands: kinds of bad answers, model version, faults, healer, phases.

Each draws itself from a given height down and returns its shapes and the height at which it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from monkeyproof.reports.charts import svg
from monkeyproof.reports.charts.bins import Bins, Counts
from monkeyproof.reports.charts.svg import TimeAxis
from monkeyproof.reports.model.trial_timeline import FaultSpan, HealerStep, TimeSpan
from monkeyproof.reports.text import clean, count, seconds, short

LABEL_X = 106.0
"""Right edge of the lanes' names."""

Drawn = tuple[list[Markup], float]


def strips(bins: Bins, scale: TimeAxis, y: float) -> Drawn:
    """One heat strip for each way in which an answer can be bad, and for degraded ones; totals at the right."""
    shapes: list[Markup] = []
    kinds = (
        ("wrong answers", bins.wrong, "tl-wrong"),
        ("late answers", bins.late, "tl-late"),
        ("no answer", bins.unanswered, "tl-unanswered"),
        ("fallback used", bins.degraded, "tl-degraded"),
    )
    for name, counts, css in kinds:
        shapes.append(svg.text(LABEL_X, y + 9, name, "tl-name", "end"))
        shapes.append(svg.rect(scale.left, y, scale.right - scale.left, 11, "tl-lane"))
        shapes += _strip(bins, counts, scale, y, css)
        total = int(counts.sum())
        shapes.append(svg.text(scale.right + 6, y + 9, f"{total:,}" if total else "0", "tl-total"))
        y += 15
    return shapes, y + 3


def _strip(bins: Bins, counts: Counts, scale: TimeAxis, y: float, css: str) -> list[Markup]:
    """Three strengths are enough to tell "a few" from "all", and let equal neighbours be one rectangle."""
    total = bins.known + bins.unknown
    levels = [
        min(3, int(3 * share / whole) + 1) if share else 0 for share, whole in zip(counts, total, strict=True)
    ]
    shapes: list[Markup] = []
    for level, places in groupby(range(len(bins)), key=lambda place: levels[place]):
        run = list(places)
        if level:
            left, right = _edges(bins, scale, run[0], run[-1])
            shapes.append(svg.rect(left, y, right - left, 11, f"{css} tl-level-{level}"))
    return shapes


def versions(bins: Bins, scale: TimeAxis, y: float) -> Drawn:
    """Which model version answered. Where several did within one step, each has a part of the height."""
    order = list(dict.fromkeys(version for found in bins.versions for version in found))
    shapes = [svg.text(LABEL_X, y + 11, "model version", "tl-name", "end")]
    shapes.append(svg.rect(scale.left, y, scale.right - scale.left, 14, "tl-lane"))
    if not order:
        shapes.append(svg.text(scale.left + 6, y + 11, "the target does not say", "tl-faint"))
    for found, places in groupby(range(len(bins)), key=lambda place: bins.versions[place]):
        run = list(places)
        left, right = _edges(bins, scale, run[0], run[-1])
        names = " and ".join(_version(version) for version in found)
        for part, version in enumerate(found):
            height = 14 / len(found)
            css = f"tl-version-{order.index(version) % 4}"
            shapes.append(svg.rect(left, y + part * height, right - left, height, css, f"answered by {names}"))
        if found and right - left > svg.text_width(names) + 8:
            shapes.append(svg.text(left + 4, y + 11, names, "tl-on-version"))
    return shapes, y + 21


def _version(version: str) -> str:
    return f"v{version}" if version.isdigit() else short(version, 16)


def fault_lanes(faults: Sequence[FaultSpan], scale: TimeAxis, y: float, hatch: str, origin_s: float) -> Drawn:
    """A row for each fault: hatched while it may have begun, solid from its evidence to its revert."""
    shapes = [svg.text(LABEL_X, y + 11, "fault" if len(faults) < 2 else "faults", "tl-name", "end")]
    if not faults:
        shapes.append(svg.text(scale.left + 6, y + 11, "none was injected", "tl-faint"))
        y += 18
    for fault in faults[:6]:
        shapes.append(_fault_bar(fault, scale, y, hatch, origin_s))
        y += 18
    if len(faults) > 6:
        shapes.append(svg.text(scale.left + 6, y + 11, f"and {count(len(faults) - 6, 'more fault')}", "tl-faint"))
        y += 18
    return shapes, y + 3


def _fault_bar(fault: FaultSpan, scale: TimeAxis, y: float, hatch: str, origin_s: float) -> Markup:
    start = scale.x(fault.intended_s)
    ended = scale.right if fault.reverted_s is None else scale.x(fault.reverted_s)
    if fault.effective_s is None:  # It may never have taken effect: hatched, and nothing else.
        proven, end, caption = max(start + 8, ended if fault.reverted_s else start), 0.0, "not proven"
    else:
        proven = scale.x(fault.effective_s)
        end, caption = (ended, "") if fault.held else (proven + 4, "one shot")
    if fault.effective_s is not None and fault.held and fault.reverted_s is None:
        caption = "never reverted"
    shapes = [svg.rect(start, y, max(3.0, proven - start), 14, "tl-maybe", fill=f"url(#{hatch})")]
    if fault.effective_s is not None:
        shapes.append(svg.rect(proven, y, max(2.0, end - proven), 14, "tl-fault-bar"))
    if caption == "never reverted":  # Open at the end: an arrow that leaves the drawing.
        shapes.append(svg.path(f"M{svg.number(end)},{svg.number(y)}l9,7l-9,7z", "tl-fault-bar"))
    label = short(f"{fault.name} on {fault.subject}" + (f" ({caption})" if caption else ""), 70)
    shapes.append(_fault_label(label, start, proven, max(end, proven), scale, y))
    return svg.group(shapes, _fault_title(fault, caption, origin_s))


def _fault_label(label: str, start: float, proven: float, end: float, scale: TimeAxis, y: float) -> Markup:
    """On the bar where it fits, else beside it."""
    wide = svg.text_width(label)
    if end - proven > wide + 10:
        return svg.text(proven + 5, y + 11, label, "tl-on-fault")
    if end + 6 + wide < scale.right:
        return svg.text(end + 6, y + 11, label, "tl-halo")
    if start - 6 - wide > scale.left:
        return svg.text(start - 6, y + 11, label, "tl-halo", "end")
    return svg.text(start + 6, y + 11, label, "tl-halo")


def _fault_title(fault: FaultSpan, caption: str, origin_s: float) -> str:
    effective = "never" if fault.effective_s is None else seconds(fault.effective_s - origin_s)
    ended = caption or f"reverted at {seconds((fault.reverted_s or 0.0) - origin_s)}"
    return (
        f"{fault.name} on {fault.subject}: intended at {seconds(fault.intended_s - origin_s)}, proven at "
        f"{effective}, {ended}. {fault.evidence} {fault.trouble}"
    )


_WORD = {"detected": "saw", "diagnosed": "blames", "action": "", "resolved": "resolved", "escalated": "escalated"}


def healer_lanes(steps: Sequence[HealerStep], arm: str, scale: TimeAxis, y: float, origin_s: float) -> Drawn:
    """The healer's steps: a marker each, actions as bars from acting to acted; labels never overlap."""
    shapes = [svg.text(LABEL_X, y + 11, "healer", "tl-name", "end")]
    if not steps:
        caption = "no healer ran in this arm" if arm == "none" else "did nothing"
        return [*shapes, svg.text(scale.left + 6, y + 11, caption, "tl-faint tl-halo")], y + 21
    rows = svg.LabelRows(limit=7)
    for step in steps:
        start = scale.x(step.start_s)
        end = scale.x(step.end_s) if step.end_s is not None else scale.right
        bar_end = max(end, start + 5) if step.kind == "action" else start + 5
        label = _step_label(step)
        wide = svg.text_width(label) + 4
        after = bar_end + wide <= scale.right + 40  # The right margin is free here: totals are in other lanes.
        left, right = (start - 5, bar_end + wide) if after else (start - wide - 9, bar_end)
        row = rows.place(left, right)
        if row is None:  # No room for the words: the marker stays, with its tooltip.
            row, label = rows.limit - 1, ""
        top = y + row * 17
        drawn = [_marker(step, start, bar_end, top)]
        if label:
            x = bar_end + 4 if after else start - 8
            drawn.append(svg.text(x, top + 11, label, "tl-halo", "start" if after else "end"))
        shapes.append(svg.group(drawn, _step_title(step, origin_s)))
    return shapes, y + len(rows.ends) * 17 + 4


def _step_label(step: HealerStep) -> str:
    label = short(f"{_WORD[step.kind]} {step.label}".strip(), 34)
    if step.kind != "action" or step.ok:
        return label
    return label + (" – failed" if step.ok is False else " – no end seen")


def _step_title(step: HealerStep, origin_s: float) -> str:
    when = f"{seconds(step.start_s - origin_s)}"
    if step.kind == "action" and step.end_s is not None:
        when += f" to {seconds(step.end_s - origin_s)}"
    return f"{when}: {step.kind} {step.label}. {step.text}"


def _marker(step: HealerStep, start: float, end: float, top: float) -> Markup:
    """Shapes differ as well as colours."""
    x, y = svg.number(start), svg.number(top + 7)
    match step.kind:
        case "action":
            return svg.rect(start, top + 2, end - start, 10, "tl-failed" if step.ok is False else "tl-action")
        case "detected":
            return svg.path(f"M{x},{y}m-4.5,0a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0", "tl-detected")
        case "diagnosed":
            return svg.path(f"M{x},{y}m0,-5.5l5,5.5l-5,5.5l-5,-5.5z", "tl-diagnosed")
        case "resolved":
            return svg.path(f"M{x},{y}m-4.5,0l3.5,4l6,-8", "tl-resolved")
        case _:
            return svg.path(f"M{x},{y}m0,-6l6,11h-12z", "tl-escalated")


def absence_lane(absences: Sequence[TimeSpan], scale: TimeAxis, y: float, origin_s: float) -> Drawn:
    """When the service took no connection; no lane at all where it always did."""
    if not absences:
        return [], y
    shapes = [svg.text(LABEL_X, y + 9, "no connection", "tl-name", "end")]
    shapes.append(svg.rect(scale.left, y, scale.right - scale.left, 11, "tl-lane"))
    for absence in absences:
        left = scale.x(absence.start_s)
        right = scale.x(absence.end_s) if absence.end_s is not None else scale.right
        until = seconds(absence.end_s - origin_s) if absence.end_s is not None else "the end"
        caption = f"no connection from {seconds(absence.start_s - origin_s)} to {until}: {clean(absence.name)}"
        shapes.append(svg.rect(left, y, max(2.0, right - left), 11, "tl-unanswered tl-level-3", caption))
    return shapes, y + 18


def phase_lane(phases: Sequence[TimeSpan], scale: TimeAxis, y: float) -> Drawn:
    shapes = [svg.text(LABEL_X, y + 10, "phase", "tl-name", "end")]
    for place, phase in enumerate(phases):
        left = scale.x(phase.start_s)
        right = scale.x(phase.end_s) if phase.end_s is not None else scale.right
        name = clean(phase.name).replace("_", " ")
        shapes.append(svg.rect(left, y, right - left, 13, f"tl-phase-{place % 2}", name))
        if right - left > svg.text_width(name) + 6:
            shapes.append(svg.text((left + right) / 2, y + 10, name, "tl-small", "middle"))
    return shapes, y + 15


def _edges(bins: Bins, scale: TimeAxis, first: int, last: int) -> tuple[float, float]:
    return scale.x(bins.starts_s[first]), scale.x(bins.starts_s[last] + bins.width_s)
