"""Small pieces of SVG. Whatever text enters is escaped by markupsafe and rid of control characters.

No chart library: the report has to be one small file that needs no network, and a library's runtime alone is
larger than sixty of these drawings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from monkeyproof.reports.text import clean

CHARACTER_PX = 6.0
"""Mean width of a character at the drawing's 11 px. Labels are placed by this estimate."""


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Maps seconds to pixels."""

    from_s: float
    to_s: float
    left: float
    right: float

    def x(self, at_s: float) -> float:
        """The place of an instant; what lies outside is put on the edge."""
        share = (at_s - self.from_s) / (self.to_s - self.from_s)
        return self.left + (self.right - self.left) * min(1.0, max(0.0, share))

    def ticks_s(self, origin_s: float, most: int = 14) -> list[float]:
        """Round instants, counted from ``origin_s``, that divide the scale into at most ``most`` parts."""
        span_s = self.to_s - self.from_s
        steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200)
        step_s = next((step for step in steps if span_s / step <= most), span_s / most)
        first = math.ceil((self.from_s - origin_s) / step_s)
        last = math.floor((self.to_s - origin_s) / step_s)
        return [number * step_s for number in range(first, last + 1)]


@dataclass(slots=True)
class LabelRows:
    """Puts labels that would overlap into different rows; the topmost free one is taken."""

    limit: int
    gap: float = 6.0
    ends: list[list[tuple[float, float]]] = field(default_factory=list)

    def place(self, left: float, right: float) -> int | None:
        """The row in which ``[left, right]`` is free. None: there is no room in any."""
        for number, taken in enumerate(self.ends):
            if all(right + self.gap <= start or left >= end + self.gap for start, end in taken):
                taken.append((left, right))
                return number
        if len(self.ends) >= self.limit:
            return None
        self.ends.append([(left, right)])
        return len(self.ends) - 1


def rect(x: float, y: float, width: float, height: float, css: str, title: str = "", **more: object) -> Markup:
    attributes = _attributes(x=x, y=y, width=max(0.0, width), height=height, **more)
    return _element("rect", css, attributes, title)


def line(x1: float, y1: float, x2: float, y2: float, css: str, title: str = "") -> Markup:
    return _element("line", css, _attributes(x1=x1, y1=y1, x2=x2, y2=y2), title)


def path(commands: str, css: str, title: str = "") -> Markup:
    return _element("path", css, _attributes(d=commands), title)


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start", title: str = "") -> Markup:
    attributes = _attributes(x=x, y=y) + (Markup(' text-anchor="{}"').format(anchor) if anchor != "start" else "")
    return Markup('<text class="tl-text {}"{}>{}{}</text>').format(css, attributes, _title(title), clean(content))


def group(shapes: Iterable[Markup], title: str = "") -> Markup:
    return Markup("<g>{}{}</g>").format(_title(title), Markup("").join(shapes))


def steps_path(edges: Sequence[float], heights: Sequence[float], floor: float | Sequence[float] | None) -> str:
    """A staircase: each value holds from one edge to the next; NaN leaves a gap. With a floor it is an area."""
    commands: list[str] = []
    for first, last in _runs(heights):
        parts = [f"M{number(edges[first])},{number(heights[first])}"]
        parts += _stairs(edges, heights, range(first, last))
        if floor is not None:
            floors = [floor] * len(heights) if isinstance(floor, (int, float)) else floor
            parts.append(f"V{number(floors[last - 1])}")
            parts += _stairs_back(edges, floors, first, last)
            parts.append("Z")
        commands.append("".join(parts))
    return "".join(commands)


def number(value: float) -> str:
    """At most one decimal: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


def text_width(content: str) -> float:
    return len(content) * CHARACTER_PX


def _stairs(edges: Sequence[float], heights: Sequence[float], places: range) -> list[str]:
    rises = [place for place in places[1:] if number(heights[place]) != number(heights[place - 1])]
    parts = [f"H{number(edges[place])}V{number(heights[place])}" for place in rises]
    return [*parts, f"H{number(edges[places.stop])}"]


def _stairs_back(edges: Sequence[float], floors: Sequence[float], first: int, last: int) -> list[str]:
    back = range(last - 2, first - 1, -1)
    rises = [place for place in back if number(floors[place]) != number(floors[place + 1])]
    parts = [f"H{number(edges[place + 1])}V{number(floors[place])}" for place in rises]
    return [*parts, f"H{number(edges[first])}"]


def _runs(values: Sequence[float]) -> list[tuple[int, int]]:
    """Half-open ranges of consecutive finite values."""
    found: list[tuple[int, int]] = []
    start: int | None = None
    for place, value in enumerate(values):
        if math.isfinite(value):
            start = place if start is None else start
        elif start is not None:
            found.append((start, place))
            start = None
    if start is not None:
        found.append((start, len(values)))
    return found


def _element(name: str, css: str, attributes: Markup, title: str) -> Markup:
    if not title:
        return Markup('<{} class="{}"{}/>').format(Markup(name), css, attributes)
    return Markup('<{0} class="{1}"{2}>{3}</{0}>').format(Markup(name), css, attributes, _title(title))


def _attributes(**values: object) -> Markup:
    shown = ((name, number(value) if isinstance(value, (int, float)) else value) for name, value in values.items())
    return Markup("").join(Markup(' {}="{}"').format(Markup(name), value) for name, value in shown)


def _title(title: str) -> Markup:
    return Markup("<title>{}</title>").format(clean(title)) if title else Markup("")
