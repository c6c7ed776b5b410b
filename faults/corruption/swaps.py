"""Right values in the wrong place: in another column, or in another row of their column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.cell_selection import CellSelection
from monkeyproof.faults.corruption.checks import check_number, check_share
from monkeyproof.faults.corruption.random import Index, Key, Rows
from monkeyproof.faults.corruption.rows import SwappedRows


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapFault:
    """Base of the faults that swap values."""

    name: ClassVar[str]

    share: float
    """Probability that a value is hit."""
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        check_number("share", self.share)
        check_share("share", self.share)
        if isinstance(self.columns, str) or not all(isinstance(one, str) for one in self.columns):
            raise UsageError(f"columns: {self.columns!r} is not a tuple of names")
        object.__setattr__(self, "columns", tuple(self.columns))
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise UsageError(f"columns: {self.columns!r} are not one or more different columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class SwappedColumns(SwapFault):
    """In rows that are hit, two columns of one type have each other's values; all rows are with ``share=1``."""

    name: ClassVar[str] = "swapped_columns"

    def __post_init__(self) -> None:
        SwapFault.__post_init__(self)
        if len(self.columns) != 2:
            raise UsageError(f"columns: {self.columns!r} are not two")

    def hits(self, rows: Rows, key: Key) -> Index:
        """Which rows of the batch are hit."""
        return np.flatnonzero(CellSelection([key], self.share, rows).mask(0, rows.count)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SwappedValues(SwapFault):
    """In each of the columns, the values that are hit change places with one another; the rest of a row stays.

    Within windows of ``window_rows`` rows, as all faults that move rows: see monkeyproof.faults.corruption.rows.
    """

    name: ClassVar[str] = "swapped_values"
    window_rows: int

    def __post_init__(self) -> None:
        SwapFault.__post_init__(self)
        self._rows()

    def index(self, rows: Rows, key: Key) -> Index:
        """Which row's value of a column stands in each row afterwards."""
        return self._rows().index(rows, key)

    def _rows(self) -> SwappedRows:
        return SwappedRows(share=self.share, window_rows=self.window_rows)
