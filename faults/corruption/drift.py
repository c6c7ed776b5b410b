"""Drift: data that change over time, that is, from row to row. All are functions of values and absolute rows.

The terms are those of Gama, Zliobaite, Bifet, Pechenizkiy and Bouchachia, "A survey on concept drift adaptation"
(ACM Computing Surveys 46(4), 2014): sudden; incremental, here ``Ramp``; recurring. Inputs that move are covariate
shift, labels that become more or less frequent are prior shift, and answers that change for the same inputs are
concept drift. Streams of records take the same courses: monkeyproof.faults.proxy.records.drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.cells import CellFault
from monkeyproof.faults.corruption.checks import check_number, check_rows
from monkeyproof.faults.corruption.random import Draws, Floats, Index, Key, Rows, Words, draws_at
from monkeyproof.faults.corruption.rows import WindowedRows
from monkeyproof.faults.corruption.text import LabelNoise


@dataclass(frozen=True, slots=True)
class Sudden:
    """All of the drift from one row on."""

    at_row: int

    def __post_init__(self) -> None:
        check_rows("at_row", self.at_row, 0)

    def strength(self, rows: Words) -> Floats:
        """For absolute rows: 0 is none of the drift, 1 all of it."""
        return (rows >= np.uint64(self.at_row)).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Ramp:
    """More of the drift with every row, from one row to another, and all of it from there on."""

    from_row: int
    """The last one with none of it; -1 where the first row of all has some already."""
    to_row: int
    """The first one with all of it."""

    def __post_init__(self) -> None:
        check_rows("from_row", self.from_row, -1)
        check_rows("to_row", self.to_row, self.from_row + 1)

    def strength(self, rows: Words) -> Floats:
        """For absolute rows: 0 is none of the drift, 1 all of it."""
        begun = rows.astype(np.int64) - self.from_row
        return np.clip(begun / float(self.to_row - self.from_row), 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Recurring:
    """In the first ``on_rows`` of every ``period_rows``: a weekend, a season."""

    period_rows: int
    on_rows: int
    from_row: int = 0

    def __post_init__(self) -> None:
        check_rows("from_row", self.from_row, 0)
        check_rows("on_rows", self.on_rows, 1)
        check_rows("period_rows", self.period_rows, self.on_rows + 1)

    def strength(self, rows: Words) -> Floats:
        """For absolute rows: 0 is none of the drift, 1 all of it."""
        since = np.maximum(rows, np.uint64(self.from_row)) - np.uint64(self.from_row)
        on = (since % np.uint64(self.period_rows) < np.uint64(self.on_rows)) & (rows >= np.uint64(self.from_row))
        return on.astype(np.float64)


Course = Sudden | Ramp | Recurring


@dataclass(frozen=True, slots=True, kw_only=True)
class CovariateShift(CellFault):
    """Inputs move, the answers to the same inputs stay: ``value * times + by``, by as much as the course says.

    On a ramp, halfway, a value has moved half the way.
    """

    name: ClassVar[str] = "covariate_shift"
    course: Course
    times: float = 1.0
    by: float = 0.0

    def __post_init__(self) -> None:
        CellFault.__post_init__(self)
        _check_course(self.course)
        check_number("times", self.times)
        check_number("by", self.by)
        if self.times == 1 and self.by == 0:
            raise UsageError("times, by: times 1 plus 0 changes nothing")

    def new(self, old: Floats, draws: Draws) -> Floats:
        strength = self.course.strength(draws.positions())
        return old + strength * (old * (self.times - 1) + self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenignDrift(CovariateShift):
    """Inputs move that the answer does not depend on: a healer that acts on it is wrong.

    Only a person who knows the model knows these columns, so they have to be named.
    """

    name: ClassVar[str] = "benign_drift"

    def __post_init__(self) -> None:
        CovariateShift.__post_init__(self)
        if not self.columns:
            raise UsageError("columns: name the columns that the answer does not depend on")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptDrift(LabelNoise):
    """The same inputs have another answer: each label becomes the next of ``classes``, the last one the first.

    With ``where``, in a part of the input space only. On a ramp, halfway, half the rows follow the new concept.
    """

    name: ClassVar[str] = "concept_drift"
    course: Course

    def __post_init__(self) -> None:
        LabelNoise.__post_init__(self)
        _check_course(self.course)

    def _steps(self, draws: Draws) -> Index:
        follows = draws.uniform(1) < self.course.strength(draws.positions())
        return follows.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorShift(WindowedRows):
    """Some labels become more frequent: rows are drawn anew, with repetition, from among those of their window, a
    label's rows ``weights[label]`` times as often as before; 1 for labels that are not named.

    ``share`` is of rows that are drawn anew, where the course is at its height.
    """

    name: ClassVar[str] = "prior_shift"
    column: str
    weights: Mapping[Any, float]
    course: Course

    def __post_init__(self) -> None:
        WindowedRows.__post_init__(self)
        _check_course(self.course)
        for label, weight in self.weights.items():
            check_number(f"weights: {label}", weight)
            if weight < 0:
                raise UsageError(f"weights: {label}: {weight} is below 0")
        if not any(weight != 1 for weight in self.weights.values()):
            raise UsageError("weights: all are 1, which changes nothing")

    def index_by(self, labels: NDArray[Any], rows: Rows, key: Key) -> Index:
        """Which row of the batch stands at each place afterwards. ``labels``: (n,)."""
        whole, found = self.whole_windows(rows), np.arange(rows.count)
        hits = self.hits(rows, key)
        hits = hits[hits < whole]
        draws = draws_at(key, rows, hits)
        drawn = draws.uniform(1)
        keep = draws.uniform(2) < self.course.strength(rows.at(hits))
        hits, drawn = hits[keep], drawn[keep]
        weights = np.array([float(self.weights.get(label, 1.0)) for label in labels[:whole].tolist()])
        # Sums begin anew in each window, so that they are the same wherever the batch begins.
        sums = np.cumsum(weights.reshape(-1, self.window_rows), axis=1)
        for window in np.unique(hits // self.window_rows):
            here = slice(*np.searchsorted(hits, [window * self.window_rows, (window + 1) * self.window_rows]))
            total = sums[window, -1]
            if total > 0:
                place = np.searchsorted(sums[window], drawn[here] * total, side="right")
                found[hits[here]] = window * self.window_rows + np.minimum(place, self.window_rows - 1)
        return found


def _check_course(course: object) -> None:
    if not isinstance(course, Sudden | Ramp | Recurring):
        raise UsageError(f"course: {course!r} is none of Sudden, Ramp and Recurring")
