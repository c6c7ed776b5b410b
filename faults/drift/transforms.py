"""Drift as pure functions of values and absolute positions: any way of cutting a stream gives the same.

After Gama, Zliobaite, Bifet, Pechenizkiy and Bouchachia, "A survey on concept drift adaptation" (ACM Computing
Surveys 2014): what changes is the distribution of the inputs (covariate), of the classes (prior), or the relation
between the two (concept); suddenly, gradually, or again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.data.cells import Where
from monkeyproof.faults.data.keyed import Floats, Index
from monkeyproof.faults.placed import uniform_at
from monkeyproof.faults.proxied import check_number, check_share

SHAPES = ("sudden", "gradual", "recurring")


def strength(shape: str, start_position: int, over_records: int, positions: NDArray[Any]) -> Floats:
    """How far a drift has come at each position, (n,) from 0 to 1; nowhere before ``start_position``.

    ``sudden``: all of it from there on. ``gradual``: more with every record, all of it after ``over_records``.
    ``recurring``: all of it for ``over_records``, none of it for as many, and so on.
    """
    since = positions.astype(np.float64) - float(start_position)
    how: Mapping[str, Callable[[], Floats]] = {
        "sudden": lambda: np.ones(len(since)),
        "gradual": lambda: np.minimum((since + 1) / over_records, 1.0),
        "recurring": lambda: 1.0 - np.floor(since / over_records) % 2,
    }
    return np.where(since >= 0, how[shape](), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drift:
    """What all have in common."""

    shape: str = "sudden"
    start_position: int = 0
    over_records: int = 1

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UsageError(f"shape: {self.shape!r} is none of {', '.join(SHAPES)}")
        for name, value, least in (
            ("start_position", self.start_position, 0),
            ("over_records", self.over_records, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{name}: {value!r} is not a whole number of at least {least}")

    def strength(self, positions: NDArray[Any]) -> Floats:
        return strength(self.shape, self.start_position, self.over_records, positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class CovariateShift(_Drift):
    """Inputs move: each of ``columns`` by its own of ``shifts``, in the column's unit."""

    name: ClassVar[str] = "covariate_shift"
    columns: tuple[int, ...]
    shifts: tuple[float, ...]

    def __post_init__(self) -> None:
        _Drift.__post_init__(self)
        if not self.columns or not len(self.columns) == len(self.shifts) == len(set(self.columns)):
            raise UsageError(
                f"columns, shifts: {self.columns}, {self.shifts}: one shift for each column is needed"
            )
        for column in self.columns:
            if isinstance(column, bool) or not isinstance(column, int) or column < 0:
                raise UsageError(f"columns: {column!r} is not the number of a column")
        for shift in self.shifts:
            check_number("shifts", shift)
        if not any(self.shifts):
            raise UsageError("shifts: all of them are 0, so nothing would move")

    def of(self, values: Floats, positions: NDArray[Any]) -> Floats:
        """(n, d) values with the shift; what is given stays as it is.

        Raises:
            UsageError: there is no such column.
        """
        if max(self.columns) >= values.shape[1]:
            raise UsageError(f"columns: there is no column {max(self.columns)}; there are {values.shape[1]}")
        moved = values.copy()
        moved[:, list(self.columns)] += np.outer(self.strength(positions), np.array(self.shifts, np.float64))
        return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorShift(_Drift):
    """The mix of classes changes: of the rows labelled ``label``, a ``share`` comes no more."""

    name: ClassVar[str] = "prior_shift"
    label: int
    share: float

    def __post_init__(self) -> None:
        _Drift.__post_init__(self)
        check_number("label", self.label)
        check_number("share", self.share)
        check_share("share", self.share)

    def kept(self, labels: Index, positions: NDArray[Any], seed: int) -> NDArray[np.bool_]:
        """(n,) which rows still come."""
        drawn = uniform_at(seed, self.name, positions) < self.share * self.strength(positions)
        found: NDArray[np.bool_] = ~(drawn & (labels == self.label))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptShift(_Drift):
    """What the inputs mean changes: where a column lies in a range, the labels 0 and 1 change places.

    ``share`` is of the rows in that range; with ``gradual`` it grows from none.
    """

    name: ClassVar[str] = "concept_shift"
    column: int
    at_least: float = -np.inf
    at_most: float = np.inf
    share: float = 1.0

    def __post_init__(self) -> None:
        _Drift.__post_init__(self)
        check_number("share", self.share)
        check_share("share", self.share)
        if isinstance(self.column, bool) or not isinstance(self.column, int) or self.column < 0:
            raise UsageError(f"column: {self.column!r} is not the number of a column")
        self._where()

    def _where(self) -> Where:
        return Where(str(self.column), self.at_least, self.at_most)

    def of(self, labels: Index, values: Floats, positions: NDArray[Any], seed: int) -> Index:
        """(n,) labels by the new concept; of other labels than 0 and 1 nothing is known.

        Raises:
            UsageError: there is no such column.
        """
        if self.column >= values.shape[1]:
            raise UsageError(f"column: there is no column {self.column}; there are {values.shape[1]}")
        drawn = uniform_at(seed, self.name, positions) < self.share * self.strength(positions)
        hit = drawn & self._where().holds(values[:, self.column]) & np.isin(labels, (0, 1))
        return np.where(hit, 1 - labels, labels)
