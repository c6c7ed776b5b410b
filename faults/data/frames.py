"""Pandas frames as tables. The index is carried along and never looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.data.arrays import ArraySheet, fits_numbers
from monkeyproof.faults.data.cells import OWN, CellFault
from monkeyproof.faults.data.keyed import Key, Rows
from monkeyproof.faults.data.matrix import Bools, Change, Journal, corrupt_matrix, hit_rows
from monkeyproof.faults.data.tables import Part, told_apart

_FIRST = np.zeros(1, np.int64)


class FrameSheet:
    """A DataFrame. Columns of numpy numbers are changed as numbers; where a type has a missing value of its own
    (nullable and Arrow-backed columns, text, categories, times), ``Missing`` works too."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self.names: Sequence[str] = told_apart(list(frame.columns))
        self.count = len(frame)
        self._whole: ArraySheet | None = None
        if len(set(frame.dtypes)) == 1 and _is_number(frame.dtypes.iloc[0]):
            self._whole = ArraySheet(frame.to_numpy(copy=False), self.names)
        self._new: dict[int, Any] = {}

    def fits(self, column: int, fault: CellFault) -> str:
        dtype = self._frame.dtypes.iloc[column]
        if _is_number(dtype):
            return fits_numbers(dtype, fault)
        if fault.keeps_finite:
            return f"{dtype} holds no numbers that can be changed"
        if isinstance(dtype, np.dtype) and dtype.kind not in "OMm":
            return f"{dtype} cannot hold a missing value"
        return ""

    def numbers(self, column: int) -> NDArray[Any]:
        if self._whole is not None:
            return self._whole.numbers(column)
        values = self._values(column)
        if _is_number(values.dtype):
            return np.asarray(values)
        try:
            found: NDArray[Any] = pd.Series(values).to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            raise UsageError(f"where: column {self.names[column]!r} holds no numbers") from None
        return found

    def apply(
        self, fault: CellFault, columns: Sequence[int], keys: Sequence[Key], rows: Rows, allowed: Bools | None
    ) -> Iterator[Part]:
        if self._whole is not None:
            yield from self._whole.apply(fault, columns, keys, rows, allowed)
            return
        for column, key in zip(columns, keys, strict=True):
            values = self._values(column)
            if _is_number(values.dtype):
                out = np.empty((self.count, 1), values.dtype)
                source = np.asarray(values).reshape(-1, 1)
                change = corrupt_matrix(out, source, fault, [key], _FIRST, rows, allowed)
                self._new[column] = out[:, 0]
            else:
                change, self._new[column] = self._take_away(fault, column, key, rows, allowed)
            yield Part(0, self.count, (column,), change)

    def restore(self, part: Part) -> None:
        if self._whole is not None:
            self._whole.restore(part)
            return
        column = part.columns[0]
        new = self._values(column).copy()
        new[part.change.journal.cells] = part.change.journal.old
        self._new[column] = new

    def table(self) -> pd.DataFrame:
        if self._whole is not None:
            found = pd.DataFrame(
                self._whole.table(), index=self._frame.index, columns=self._frame.columns, copy=False
            )
        else:
            found = self._frame.copy(deep=True)
            for column, values in self._new.items():
                found.isetitem(column, values)
        found.attrs = dict(self._frame.attrs)
        return found

    def _values(self, column: int) -> Any:
        """As they stand now: a numpy or an extension array."""
        if column in self._new:
            return self._new[column]
        series = self._frame.iloc[:, column]
        return series.to_numpy(copy=False) if _is_number(series.dtype) else series.array

    def _take_away(
        self, fault: CellFault, column: int, key: Key, rows: Rows, allowed: Bools | None
    ) -> tuple[Change, Any]:
        values = self._values(column)
        may = ~np.asarray(pd.isna(values), np.bool_)
        if allowed is not None:
            may &= allowed
        if fault.where is not None and fault.where.column == OWN:
            may &= fault.where.holds(self.numbers(column))
        mask = hit_rows(fault, key, rows, may)
        cells = np.flatnonzero(mask)
        new = values.copy()
        new[mask] = None if values.dtype == object else pd.NaT if values.dtype.kind in "Mm" else pd.NA
        return Change(np.packbits(mask[None], axis=1, bitorder="little"), Journal(1, cells, values[cells])), new


def _is_number(dtype: object) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "fiu" and dtype.itemsize <= 8
