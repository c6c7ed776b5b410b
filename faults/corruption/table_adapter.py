"""What a table of any kind has to be able to do, so that faults can work on it; and the notes of what they did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from monkeyproof.faults.corruption.cells import CellFault
from monkeyproof.faults.corruption.matrix import Change
from monkeyproof.faults.corruption.random import Bools, Index, Key, Rows
from monkeyproof.faults.corruption.rows import RowFault
from monkeyproof.faults.corruption.schema import ExtraColumn, LostColumn, SchemaFault, TextColumn
from monkeyproof.faults.corruption.swaps import SwapFault


@dataclass(frozen=True, slots=True)
class Part:
    """What a fault did to some columns of some of the rows."""

    start: int
    """The first of the rows, counted from the batch's first."""
    count: int
    columns: tuple[int, ...]
    change: Change

    def mask(self) -> Bools:
        """(rows, columns) of this part."""
        return self.change.mask(self.count, self.columns)


@dataclass(frozen=True, slots=True)
class Applied:
    """One fault's work on a table."""

    fault: CellFault
    parts: tuple[Part, ...]

    @property
    def cells_count(self) -> int:
        return sum(part.change.cells_count for part in self.parts)


@dataclass(frozen=True, slots=True)
class Moved:
    """One fault's work on a table's rows."""

    fault: RowFault
    index: Index
    """Which row stood before the fault at each place after it."""
    given_count: int
    lost: TableAdapter
    """Rows that are not there any more, in their order."""

    def back(self, sheet: TableAdapter) -> TableAdapter:
        place = np.full(self.given_count, -1, np.int64)
        place[self.index[::-1]] = np.arange(len(self.index))[::-1]
        gone = np.flatnonzero(place < 0)
        place[gone] = len(self.index) + np.arange(len(gone))
        return sheet.followed_by(self.lost).taken(place)


@dataclass(frozen=True, slots=True)
class Reshaped:
    """One fault's work on a table's columns."""

    fault: SchemaFault
    at: int
    """Which column it was about, or became one."""
    column: Any
    """The column as it was; None where there was none."""

    def back(self, sheet: TableAdapter) -> TableAdapter:
        if not isinstance(self.fault, LostColumn):
            sheet = sheet.without(self.at)
        return sheet if self.column is None else sheet.with_column(self.at, self.fault.column, self.column)

    def masked(self, mask: Bools) -> Bools:
        """What came as text, or from nowhere, is wrong in every row."""
        if isinstance(self.fault, LostColumn):
            return np.delete(mask, self.at, axis=1)
        if isinstance(self.fault, ExtraColumn):
            return np.insert(mask, self.at, values=True, axis=1)
        if isinstance(self.fault, TextColumn):
            mask[:, self.at] = True
        return mask


@dataclass(frozen=True, slots=True)
class Exchanged:
    """One fault's work on values that stand in the wrong place."""

    fault: SwapFault
    columns: tuple[int, ...]
    rows: tuple[Index, ...]
    """For each column: which of its rows have another row's or column's value."""
    old: tuple[Any, ...]
    """For each column: what stood there."""
    differs: tuple[Bools, ...]
    """For each column: where it is not the same as what stands there now."""


class TableAdapter(Protocol):
    """A copy of a table that faults work on, and that is a table of the same kind again at the end."""

    @property
    def names(self) -> Sequence[str]:
        """Of the columns; the n-th of the same name is told apart by its number."""

    @property
    def count(self) -> int: ...

    def fits(self, column: int, fault: CellFault) -> str:
        """Why a fault cannot change a column; "" if it can."""

    def numbers(self, column: int) -> NDArray[Any]:
        """A column's values for ``where``: numbers, NaN for missing ones."""

    def apply(
        self, fault: CellFault, columns: Sequence[int], keys: Sequence[Key], rows: Rows, allowed: Bools | None
    ) -> Iterator[Part]:
        """Change the columns."""

    def restore(self, part: Part) -> None:
        """Put back what a part changed; the parts' latest first."""

    def labels(self, column: int) -> NDArray[Any]:
        """A column's values as they would be compared with a label."""

    def type_of(self, column: int) -> str: ...

    def values_at(self, column: int, index: Index) -> Any:
        """A column's values in some rows, to be put somewhere."""

    def put(self, column: int, index: Index, values: Any) -> Bools:
        """Put values, of a column of the same type, into some rows of a column; tells which are other ones."""

    def table(self) -> Any: ...

    def taken(self, index: Index) -> TableAdapter:
        """A sheet of some rows, in any order, also twice."""

    def followed_by(self, other: TableAdapter) -> TableAdapter:
        """A sheet of the rows of this one and of another of the same columns."""

    def column(self, column: int) -> Any:
        """One column, as its kind of table has it."""

    def without(self, column: int) -> TableAdapter: ...

    def with_column(self, column: int, name: str, values: Any) -> TableAdapter:
        """A sheet with one column more, at a place."""

    def as_text(self, values: Any) -> Any:
        """A column's values as text; missing ones stay missing."""


def told_apart(names: Sequence[object]) -> list[str]:
    """Names as text; of several that are the same, the second is ``name#2``, and so on."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[str(name)] += 1
        found.append(str(name) if seen[str(name)] == 1 else f"{name}#{seen[str(name)]}")
    return found
