"""The interface through which faults change a table of any kind, and the records of what each fault changed."""

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
class BlockChange:
    """What a fault changed in some columns of a block of rows."""

    start: int
    """First row of the block, counted from the batch's first."""
    count: int
    columns: tuple[int, ...]
    change: Change

    def mask(self) -> Bools:
        """(rows, columns) of this part."""
        return self.change.mask(self.count, self.columns)


@dataclass(frozen=True, slots=True)
class CellsChanged:
    """What one fault of single values changed."""

    fault: CellFault
    parts: tuple[BlockChange, ...]

    @property
    def cells_count(self) -> int:
        return sum(part.change.cells_count for part in self.parts)


@dataclass(frozen=True, slots=True)
class RowsMoved:
    """What one fault of whole rows changed."""

    fault: RowFault
    index: Index
    """For each place after the fault, the row that stands there, by its place before."""
    given_count: int
    lost: TableAdapter
    """Rows that are lost, in their order."""

    def restored(self, adapter: TableAdapter) -> TableAdapter:
        place = np.full(self.given_count, -1, np.int64)
        place[self.index[::-1]] = np.arange(len(self.index))[::-1]
        gone = np.flatnonzero(place < 0)
        place[gone] = len(self.index) + np.arange(len(gone))
        return adapter.appended(self.lost).take_rows(place)


@dataclass(frozen=True, slots=True)
class SchemaChanged:
    """What one fault of a schema changed."""

    fault: SchemaFault
    at: int
    """Index of the column that changed or was added."""
    column: Any
    """The column as it was; None where there was none."""

    def restored(self, adapter: TableAdapter) -> TableAdapter:
        if not isinstance(self.fault, LostColumn):
            adapter = adapter.without_column(self.at)
        return adapter if self.column is None else adapter.with_column(self.at, self.fault.column, self.column)

    def masked(self, mask: Bools) -> Bools:
        """A mask for the new columns: a column of text, or an added one, is wrong in every row."""
        if isinstance(self.fault, LostColumn):
            return np.delete(mask, self.at, axis=1)
        if isinstance(self.fault, ExtraColumn):
            return np.insert(mask, self.at, values=True, axis=1)
        if isinstance(self.fault, TextColumn):
            mask[:, self.at] = True
        return mask


@dataclass(frozen=True, slots=True)
class ValuesSwapped:
    """What one fault that swaps values changed."""

    fault: SwapFault
    columns: tuple[int, ...]
    rows: tuple[Index, ...]
    """For each column: which of its rows have another row's or column's value."""
    old: tuple[Any, ...]
    """For each column: the old values of these rows."""
    differs: tuple[Bools, ...]
    """For each column: which of these values differ from the new ones."""


class TableAdapter(Protocol):
    """A copy of a table that faults work on, and that is a table of the same kind again at the end."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the columns; a number distinguishes columns with the same name."""

    @property
    def count(self) -> int: ...

    def fits(self, column: int, fault: CellFault) -> str:
        """Why a fault cannot change a column; "" if it can."""

    def numbers(self, column: int) -> NDArray[Any]:
        """A column's values for ``where``: numbers, NaN for missing ones."""

    def apply(
        self, fault: CellFault, columns: Sequence[int], keys: Sequence[Key], rows: Rows, allowed: Bools | None
    ) -> Iterator[BlockChange]:
        """Change the columns."""

    def restore(self, part: BlockChange) -> None:
        """Restore what a part changed; the latest part first."""

    def labels(self, column: int) -> NDArray[Any]:
        """A column's values as they would be compared with a label."""

    def type_of(self, column: int) -> str: ...

    def values_at(self, column: int, index: Index) -> Any:
        """A column's values in some rows, as ``assign`` takes them."""

    def assign(self, column: int, index: Index, values: Any) -> Bools:
        """Assign values of a column of the same type to some rows of a column; returns which values differ."""

    def table(self) -> Any: ...

    def take_rows(self, index: Index) -> TableAdapter:
        """An adapter of some rows, in any order, also twice."""

    def appended(self, other: TableAdapter) -> TableAdapter:
        """An adapter of the rows of this one and of another with the same columns."""

    def column(self, column: int) -> Any:
        """One column, as its kind of table has it."""

    def without_column(self, column: int) -> TableAdapter: ...

    def with_column(self, column: int, name: str, values: Any) -> TableAdapter:
        """An adapter with an additional column at an index."""

    def as_text(self, values: Any) -> Any:
        """A column's values as text; missing ones stay missing."""


def unique_names(names: Sequence[object]) -> list[str]:
    """Names as text; of several that are the same, the second is ``name#2``, and so on."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[str(name)] += 1
        found.append(str(name) if seen[str(name)] == 1 else f"{name}#{seen[str(name)]}")
    return found
