"""Pandas frames as tables. The index is kept and never used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.arrays import ArrayAdapter, bits_differ, fits_numbers
from monkeyproof.faults.corruption.cells import OWN, CellFault
from monkeyproof.faults.corruption.engines import NUMPY, Engine
from monkeyproof.faults.corruption.matrix import (
    Change,
    Journal,
    WholeColumn,
    change_texts,
    hit_rows,
)
from monkeyproof.faults.corruption.memory import Workspace
from monkeyproof.faults.corruption.random import Bools, Index, Key, Rows
from monkeyproof.faults.corruption.table_adapter import BlockChange, TableAdapter, unique_names
from monkeyproof.faults.corruption.text import TextFault

_FIRST = np.zeros(1, np.int64)


class FrameAdapter:
    """A DataFrame. Columns of numpy numbers are changed as numbers; where a type has a missing value of its own
    (nullable and Arrow-backed columns, text, categories, times), ``Missing`` works too."""

    def __init__(self, frame: pd.DataFrame, workspace: Workspace | None = None, engine: Engine = NUMPY) -> None:
        self._frame, self._engine = frame, engine
        self._workspace = Workspace() if workspace is None else workspace
        self.names: Sequence[str] = unique_names(list(frame.columns))
        self.count = len(frame)
        self._whole: ArrayAdapter | None = None
        if len(set(frame.dtypes)) == 1 and _is_number(frame.dtypes.iloc[0]):
            self._whole = ArrayAdapter(frame.to_numpy(copy=False), self.names, self._workspace, engine)
        self._new: dict[int, Any] = {}

    def fits(self, column: int, fault: CellFault) -> str:
        dtype = self._frame.dtypes.iloc[column]
        if _is_number(dtype):
            return fits_numbers(dtype, fault)
        if "text" in fault.works_on:
            return "" if _is_text(dtype) else f"{dtype} holds no text"
        if fault.works_on == "numbers":
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
    ) -> Iterator[BlockChange]:
        if self._whole is not None:
            yield from self._whole.apply(fault, columns, keys, rows, allowed)
            return
        for column, key in zip(columns, keys, strict=True):
            values = self._values(column)
            if _is_number(values.dtype):
                out = self._workspace.array((self.count, 1), values.dtype)
                source = np.asarray(values).reshape(-1, 1)
                change = self._engine.corrupt(
                    out, source, fault, [key], _FIRST, rows, allowed, workspace=self._workspace
                )
                self._new[column] = out[:, 0]
            else:
                change, self._new[column] = self._change_others(fault, column, key, rows, allowed)
            yield BlockChange(0, self.count, (column,), change)

    def restore(self, part: BlockChange) -> None:
        if self._whole is not None:
            self._whole.restore(part)
            return
        column, journal = part.columns[0], part.change.journal
        if isinstance(journal.old, WholeColumn):
            self._new[column] = journal.old.column
            return
        new = self._values(column).copy()
        new[journal.cells] = journal.old
        self._new[column] = new

    def labels(self, column: int) -> NDArray[Any]:
        return self.table().iloc[:, column].to_numpy(object)

    def type_of(self, column: int) -> str:
        return repr(self._frame.dtypes.iloc[column])

    def values_at(self, column: int, index: Index) -> Any:
        return self._whole.values_at(column, index) if self._whole is not None else self._values(column)[index]

    def assign(self, column: int, index: Index, values: Any) -> Bools:
        if self._whole is not None:
            return self._whole.assign(column, index, values)
        new = self._values(column).copy()
        old, new[index] = new[index], values
        self._new[column] = new
        if _is_number(new.dtype):
            return bits_differ(old, values)
        before, after = pd.Series(old).reset_index(drop=True), pd.Series(values).reset_index(drop=True)
        same = ((before == after).fillna(False) | (before.isna() & after.isna())).to_numpy(np.bool_)
        return ~same

    def table(self) -> pd.DataFrame:
        if self._whole is not None:
            found = pd.DataFrame(
                self._whole.table(), index=self._frame.index, columns=self._frame.columns, copy=False
            )
        else:
            found = self._frame.copy(deep=True)
            for column, values in self._new.items():
                # With an explicit type, since pandas would take objects that are all texts for its own text type.
                series = pd.Series(values, self._frame.index, values.dtype, copy=False)
                found.isetitem(column, series)  # type: ignore[arg-type]
        found.attrs = dict(self._frame.attrs)
        return found

    def take_rows(self, index: Index) -> FrameAdapter:
        return FrameAdapter(self.table().iloc[index], engine=self._engine)

    def appended(self, other: TableAdapter) -> FrameAdapter:
        return FrameAdapter(pd.concat([self.table(), other.table()]), engine=self._engine)

    def column(self, column: int) -> Any:
        return self.table().iloc[:, column]

    def without_column(self, column: int) -> FrameAdapter:
        frame = self.table()
        others = [other for other in range(frame.shape[1]) if other != column]
        return FrameAdapter(frame.iloc[:, others], engine=self._engine)

    def with_column(self, column: int, name: str, values: Any) -> FrameAdapter:
        frame = self.table()
        # Whatever the index: it is the rows' order that counts, also where labels come twice.
        frame.insert(column, name, pd.Series(values.array, frame.index, values.dtype), allow_duplicates=True)
        return FrameAdapter(frame, engine=self._engine)

    def as_text(self, values: Any) -> Any:
        return values.astype("str")

    def _values(self, column: int) -> Any:
        """As they stand now: a numpy or an extension array."""
        if column in self._new:
            return self._new[column]
        series = self._frame.iloc[:, column]
        return series.to_numpy(copy=False) if _is_number(series.dtype) else series.array

    def _change_others(
        self, fault: CellFault, column: int, key: Key, rows: Rows, allowed: Bools | None
    ) -> tuple[Change, Any]:
        values = self._values(column)
        may = ~np.asarray(pd.isna(values), np.bool_)
        if allowed is not None:
            may &= allowed
        if fault.where is not None and fault.where.column == OWN:
            may &= fault.where.holds(self.numbers(column))
        if isinstance(fault, TextFault):
            may &= np.array([isinstance(one, str) for one in values], np.bool_)
            cells, texts = change_texts(fault, key, rows, may, lambda hits: list(values[hits]))
            if isinstance(values, pd.Categorical):
                new = values.add_categories(sorted(set(texts) - set(values.categories)))
                new[cells] = texts
                return Change(Journal(1, cells, WholeColumn(values.copy()))), new
            new = values.copy()
            new[cells] = texts
        else:
            cells = np.flatnonzero(hit_rows(fault, key, rows, may))
            new = values.copy()
            new[cells] = None if values.dtype == object else pd.NaT if values.dtype.kind in "Mm" else pd.NA
        return Change(Journal(1, cells, values[cells])), new


def _is_text(dtype: Any) -> bool:
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.api.types.is_string_dtype(dtype.categories.dtype)
    return bool(pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype))


def _is_number(dtype: object) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "fiu" and dtype.itemsize <= 8
