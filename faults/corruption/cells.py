"""Faults of single values: which cells they hit, and what becomes of those. Frozen values; ``corrupt`` applies
them.

Each cell is hit by itself with probability ``share``: missing completely at random (MCAR), and the like for other
faults. With ``where`` only rows count in which a column's value lies in a range: of another column this is missing
at random (MAR), of the fault's own it is missing not at random (MNAR), after Rubin, "Inference and missing data"
(Biometrika 1976). The range is given in the column's own unit, never as a quantile of the batch, because what a
batch holds depends on how the rows were cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.checks import check_above_zero, check_number, check_range, check_share
from monkeyproof.faults.corruption.random import Draws, Floats

OWN = ""


@dataclass(frozen=True, slots=True)
class Where:
    """Rows in which ``at_least <= value <= at_most`` holds for a column. Missing values never do."""

    column: str = OWN
    """"" is the column that the fault is about to change."""
    at_least: float = -math.inf
    at_most: float = math.inf

    def __post_init__(self) -> None:
        for name, value in (("at_least", self.at_least), ("at_most", self.at_most)):
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                raise UsageError(f"where: {name}: {value!r} is not a number")
        if self.at_least > self.at_most:
            raise UsageError(f"where: at_least, {self.at_least}, is above at_most, {self.at_most}")

    def holds(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """For each value, whether it lies in the range."""
        found: NDArray[np.bool_] = (values >= self.at_least) & (values <= self.at_most)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFault:
    """Base of the faults of single values."""

    name: ClassVar[str]
    works_on: ClassVar[str] = "numbers"
    """``numbers``, of which those that are not finite are left alone, and none is made; ``text``; either
    (``text or numbers``); or ``anything`` that can go missing."""
    is_sure: ClassVar[bool] = False
    """Whether every number of 64 bits that is hit becomes another one, so that no comparison is needed."""

    share: float
    """Probability that a cell is hit."""
    columns: tuple[str, ...] = ()
    """Names; none: every column that the fault can change. Of numpy arrays: "0", "1", ..."""
    where: Where | None = None

    def __post_init__(self) -> None:
        check_number("share", self.share)
        check_share("share", self.share)
        if isinstance(self.columns, str) or not all(isinstance(one, str) for one in self.columns):
            raise UsageError(f"columns: {self.columns!r} is not a tuple of names")
        object.__setattr__(self, "columns", tuple(self.columns))

    def new(self, old: Floats, draws: Draws) -> Floats:
        """What the cells become. ``old`` is finite; where the two are the same, nothing was changed."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing(CellFault):
    """The value is missing: NaN where the column is of floats, null where it can hold nulls."""

    name: ClassVar[str] = "missing"
    is_sure: ClassVar[bool] = True
    works_on: ClassVar[str] = "anything"

    def new(self, old: Floats, draws: Draws) -> Floats:  # noqa: ARG002
        return np.full(len(old), np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale(CellFault):
    """Multiply by a factor from U(low, high); the classic is U(-10, 10) on a tenth of the values.

    Every value that is hit changes: where a factor changes nothing (of 0, or by 1) or leads out of the finite
    numbers, an offset from U(low, high) is added instead (1 if that is 0); a value too large for that changes its
    sign.
    """

    name: ClassVar[str] = "scale"
    is_sure: ClassVar[bool] = True
    low: float = -10.0
    high: float = 10.0

    def __post_init__(self) -> None:
        CellFault.__post_init__(self)
        check_range(self.low, self.high)

    def new(self, old: Floats, draws: Draws) -> Floats:
        found = draws.between(self.low, self.high, 1)
        found *= old
        # The sum first: mostly it shows that there is nothing to correct.
        if not np.isfinite(found.sum()) or (found == old).any():
            unfit = np.flatnonzero(~np.isfinite(found) | (found == old))
            offset = draws.between(self.low, self.high, 2)[unfit]
            replaced = old[unfit] + np.where(offset == 0, 1.0, offset)
            stuck = ~np.isfinite(replaced) | (replaced == old[unfit])
            replaced[stuck] = -old[unfit][stuck]
            found[unfit] = replaced
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(CellFault):
    """Add Gaussian noise of standard deviation ``sd``, in the column's unit; or relative to the value itself."""

    name: ClassVar[str] = "noise"
    sd: float
    relative: bool = False

    def __post_init__(self) -> None:
        CellFault.__post_init__(self)
        check_above_zero("sd", self.sd)

    def new(self, old: Floats, draws: Draws) -> Floats:
        found = draws.normal(1)
        found *= self.sd
        if self.relative:
            found *= old
        found += old
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier(CellFault):
    """Move the value far out: by U(low, high) times ``unit``, up or down.

    With ``unit`` the column's standard deviation, ``low`` and ``high`` are in standard deviations.
    """

    name: ClassVar[str] = "outlier"
    unit: float
    low: float = 5.0
    high: float = 10.0

    def __post_init__(self) -> None:
        CellFault.__post_init__(self)
        check_above_zero("unit", self.unit)
        check_above_zero("low", self.low)
        check_range(self.low, self.high)

    def new(self, old: Floats, draws: Draws) -> Floats:
        found = draws.between(self.low, self.high, 1)
        found *= self.unit
        np.negative(found, out=found, where=draws.uniform(2) < 0.5)
        found += old
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SignFlip(CellFault):
    """The value changes its sign."""

    name: ClassVar[str] = "sign_flip"

    def new(self, old: Floats, draws: Draws) -> Floats:  # noqa: ARG002
        return -old


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitChange(CellFault):
    """The value comes in another unit: ``value * factor + offset``.

    Metres as millimetres are ``factor=1000``; Celsius as Fahrenheit ``factor=1.8, offset=32``.
    """

    name: ClassVar[str] = "unit_change"
    factor: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        CellFault.__post_init__(self)
        check_number("factor", self.factor)
        check_number("offset", self.offset)
        if self.factor == 1 and self.offset == 0:
            raise UsageError("factor, offset: times 1 plus 0 changes nothing")

    def new(self, old: Floats, draws: Draws) -> Floats:  # noqa: ARG002
        return old * self.factor + self.offset
