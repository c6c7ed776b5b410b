"""Drift of a stream of JSON records, as the parameters of a toxic: shapes that begin at a position of the stream.

Courses, and what they do to values and labels, are those of monkeyproof.faults.data.
monkeyproof.faults.proxy.records.faults applies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.cells import Where
from monkeyproof.faults.corruption.drift import (
    ConceptDrift,
    Course,
    CovariateShift,
    Ramp,
    Recurring,
    Sudden,
)
from monkeyproof.faults.corruption.random import Index, Words, uniform_at
from monkeyproof.faults.proxy.records.shapes import check_column
from monkeyproof.faults.support.checks import check_number, check_rows, check_share

_COURSES: Mapping[str, Callable[[int, int], Course]] = {
    "sudden": lambda start, over: Sudden(start),  # noqa: ARG005
    "gradual": lambda start, over: Ramp(start - 1, start - 1 + over),
    "recurring": lambda start, over: Recurring(period_rows=2 * over, on_rows=over, from_row=start),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDrift:
    """What all have in common: nothing before ``start_position``, and from there on, by ``shape``

    - ``sudden``: all of it;
    - ``gradual``: more with every record, and all of it after ``over_records``;
    - ``recurring``: all of it for ``over_records``, none of it for as many, and so on.
    """

    shape: str = "sudden"
    start_position: int = 0
    over_records: int = 1

    def __post_init__(self) -> None:
        if self.shape not in _COURSES:
            raise UsageError(f"shape: {self.shape!r} is none of {', '.join(_COURSES)}")
        check_rows("start_position", self.start_position, 0)
        check_rows("over_records", self.over_records, 1)
        self.course()

    def course(self) -> Course:
        return _COURSES[self.shape](self.start_position, self.over_records)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingFeatures(StreamDrift):
    """``CovariateShift`` of features: each of ``columns`` by its own of ``shifts``, in the column's unit."""

    name: ClassVar[str] = "covariate_shift"
    columns: tuple[int, ...]
    shifts: tuple[float, ...]

    def __post_init__(self) -> None:
        StreamDrift.__post_init__(self)
        if not self.columns or not len(self.columns) == len(self.shifts) == len(set(self.columns)):
            raise UsageError(
                f"columns, shifts: {self.columns}, {self.shifts}: one shift for each column is needed"
            )
        for column in self.columns:
            check_column("columns", column)
        for shift in self.shifts:
            check_number("shifts", shift)
        if not any(self.shifts):
            raise UsageError("shifts: all of them are 0, so nothing would move")

    def moves(self) -> Sequence[CovariateShift]:
        """One for each column that moves."""
        return [
            CovariateShift(share=1, columns=(str(column),), by=shift, course=self.course())
            for column, shift in zip(self.columns, self.shifts, strict=True)
            if shift
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RarerLabel(StreamDrift):
    """Prior shift as a stream can have it: of the records labelled ``label``, a ``share`` comes no more.

    The data engine's ``PriorShift`` draws rows anew in windows, and so would have to hold records back.
    """

    name: ClassVar[str] = "prior_shift"
    label: int
    share: float

    def __post_init__(self) -> None:
        StreamDrift.__post_init__(self)
        check_number("label", self.label)
        check_number("share", self.share)
        check_share("share", self.share)

    def kept(self, labels: Index, positions: Words, seed: int) -> NDArray[np.bool_]:
        """(n,) which records still come."""
        drawn = uniform_at(seed, self.name, positions) < self.share * self.course().strength(positions)
        found: NDArray[np.bool_] = ~(drawn & (labels == self.label))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedMeaning(StreamDrift):
    """``ConceptDrift`` of labels: where a feature lies in a range, 0 and 1 change places.

    ``share`` is of the records in that range; with ``gradual`` it grows from none.
    """

    name: ClassVar[str] = "concept_shift"
    column: int
    at_least: float = -np.inf
    at_most: float = np.inf
    share: float = 1.0

    def __post_init__(self) -> None:
        StreamDrift.__post_init__(self)
        check_column("column", self.column)
        self.labels()

    def labels(self) -> ConceptDrift:
        return ConceptDrift(
            share=self.share,
            columns=("label",),
            classes=(0, 1),
            where=Where(str(self.column), self.at_least, self.at_most),
            course=self.course(),
        )
