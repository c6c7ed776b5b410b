"""Corrupts tables of any kind: numpy arrays, pandas frames, Arrow record batches and tables.

It changes copies, never the caller's table; column types, order, index and metadata stay as they were.

A cell is identified by its row's absolute position and its column's name, so cut a table as you like, in any
order, in any number of processes: with the right ``first_row`` or ``positions`` the bytes are the same. A pandas
index plays no part, so one with duplicates does no harm. Missing values stay missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.cells import OWN, CellFault
from monkeyproof.faults.corruption.drift import PriorShift
from monkeyproof.faults.corruption.engines import NUMPY, Engine, EngineName, engine_of
from monkeyproof.faults.corruption.memory import Workspace
from monkeyproof.faults.corruption.random import Bools, Rows, key_of, rows_from
from monkeyproof.faults.corruption.rows import RowFault
from monkeyproof.faults.corruption.schema import ExtraColumn, RenamedColumn, SchemaFault, TextColumn
from monkeyproof.faults.corruption.swaps import SwapFault, SwappedColumns, SwappedValues
from monkeyproof.faults.corruption.table_adapter import (
    CellsChanged,
    RowsMoved,
    SchemaChanged,
    TableAdapter,
    ValuesSwapped,
)

T = TypeVar("T")
Fault = CellFault | RowFault | SchemaFault | SwapFault


Work = CellsChanged | RowsMoved | SchemaChanged | ValuesSwapped


@dataclass(frozen=True, slots=True)
class Corrupted(Generic[T]):
    """A corrupted copy, the truth about what is wrong with it, and the way back."""

    table: T
    applied: tuple[Work, ...]
    """In the order of the faults."""
    columns: tuple[str, ...]
    positions: Rows
    """Of the table's rows: where each one came from."""
    given_width: int
    """How many columns there were before."""

    def mask(self) -> Bools:
        """(rows, columns): which cells of the table are wrong, by any of the faults of values or of columns."""
        counts = [one.given_count for one in self.applied if isinstance(one, RowsMoved)]
        found = np.zeros((counts[0] if counts else self.positions.count, self.given_width), np.bool_)
        for one in self.applied:
            if isinstance(one, RowsMoved):
                found = found[one.index]
                continue
            if isinstance(one, SchemaChanged):
                found = one.masked(found)
                continue
            if isinstance(one, ValuesSwapped):
                for column, rows, differs in zip(one.columns, one.rows, one.differs, strict=True):
                    found[rows[differs], column] = True
                continue
            for part in one.parts:
                found[part.start : part.start + part.count, list(part.columns)] |= part.mask()
        return found

    def restored(self) -> T:
        """The table as it was, to the last bit, also of NaNs and zeros."""
        adapter = adapter_of(self.table)
        for one in reversed(self.applied):
            if isinstance(one, RowsMoved | SchemaChanged):
                adapter = one.restored(adapter)
                continue
            if isinstance(one, ValuesSwapped):
                for column, rows, old in zip(one.columns, one.rows, one.old, strict=True):
                    adapter.assign(column, rows, old)
                continue
            for part in reversed(one.parts):
                adapter.restore(part)
        found: T = adapter.table()
        return found


def corrupt(
    table: T,
    faults: Fault | Sequence[Fault],
    *,
    seed: int,
    first_row: int = 0,
    positions: object = None,
    out: NDArray[Any] | Workspace | None = None,
    engine: EngineName = "numpy",
) -> Corrupted[T]:
    """A corrupted copy of a table.

    Args:
        table: numpy array (n,) or (n, d) of numbers, pandas DataFrame, Arrow RecordBatch or Table.
        faults: one, or several that work one after another, each on what the one before it left.
        seed: any integer. The same seed, fault, column name and row position always give the same.
        first_row: absolute position of the first row; the others follow it.
        positions: instead of ``first_row``, the absolute position of every row, (n,) integers.
        out: memory for the result: a ``Workspace``, to be used again for batch after batch, because fresh memory
            often takes longer than the corruption. Or, for numpy arrays, an array for the copy alone: of the same
            shape and type, and not the table itself.
        engine: ``numba`` (an extra) for large tables: the same bytes, on all cores, after seconds of compiling.

    Raises:
        UsageError: a column is missing, or the fault cannot change it; ``positions``, ``table`` or ``engine`` is
            wrong.
    """
    every = [faults] if isinstance(faults, Fault) else list(faults)
    if isinstance(out, Workspace):
        out.begin()
    adapter = adapter_of(table, out, engine_of(engine))
    rows = rows_from(adapter.count, first_row, positions)
    applied: list[Work] = []
    given_width = len(adapter.names)
    seen = Counter[str]()
    for fault in every:
        # Distinct from others of its kind, and independent of faults of other kinds.
        label = f"{fault.name}#{seen[fault.name]}"
        seen[fault.name] += 1
        if isinstance(fault, RowFault):
            key = key_of(seed, label, "")
            if isinstance(fault, PriorShift):
                index = fault.index_by(adapter.labels(_column(fault, fault.column, adapter)), rows, key)
            else:
                index = fault.index(rows, key)
            lost = adapter.take_rows(np.setdiff1d(np.arange(adapter.count), index))
            applied.append(RowsMoved(fault, index, adapter.count, lost))
            adapter, rows = adapter.take_rows(index), rows.take_rows(index)
            continue
        if isinstance(fault, SchemaFault):
            reshaped, adapter = _reshape(fault, adapter)
            applied.append(reshaped)
            continue
        if isinstance(fault, SwapFault):
            applied.append(_swap_values(fault, adapter, rows, seed, label))
            continue
        columns = _columns_for(fault, adapter)
        keys = [key_of(seed, label, adapter.names[column]) for column in columns]
        applied.append(
            CellsChanged(fault, tuple(adapter.apply(fault, columns, keys, rows, _allowed(fault, adapter))))
        )
    return Corrupted(adapter.table(), tuple(applied), tuple(adapter.names), rows, given_width)


def adapter_of(table: object, out: NDArray[Any] | Workspace | None = None, engine: Engine = NUMPY) -> TableAdapter:
    """An adapter with a copy of a table; cells are copied when they are first needed.

    Raises:
        UsageError: ``table`` is no table of a known kind.
    """
    if isinstance(table, np.ndarray):
        from monkeyproof.faults.corruption.arrays import ArrayAdapter

        return ArrayAdapter(table, out=out, engine=engine)
    if isinstance(out, np.ndarray):
        raise UsageError("out: only the copy of a numpy array can be put into one; a Workspace takes any")
    kind = type(table).__module__.partition(".")[0]
    if kind == "pandas":
        import pandas

        if isinstance(table, pandas.DataFrame):
            from monkeyproof.faults.corruption.frames import FrameAdapter

            return FrameAdapter(table, out, engine)
    if kind == "pyarrow":
        import pyarrow

        if isinstance(table, pyarrow.RecordBatch | pyarrow.Table):
            from monkeyproof.faults.corruption.arrow import ArrowAdapter

            return ArrowAdapter(table, out, engine)
    raise UsageError(
        f"a {type(table).__name__} is no table: give a numpy array, a pandas DataFrame, or an Arrow RecordBatch "
        "or Table"
    )


def _reshape(fault: SchemaFault, adapter: TableAdapter) -> tuple[SchemaChanged, TableAdapter]:
    new = fault.to if isinstance(fault, RenamedColumn) else fault.column
    if isinstance(fault, ExtraColumn | RenamedColumn) and new in adapter.names:
        raise UsageError(f"{fault.name}: there is a column {new!r} already")
    if isinstance(fault, ExtraColumn):
        width = len(adapter.names)
        like = adapter.column(_column(fault, fault.like, adapter))
        return SchemaChanged(fault, width, None), adapter.with_column(width, fault.column, like)
    at = _column(fault, fault.column, adapter)
    values = adapter.column(at)
    left = adapter.without_column(at)
    if isinstance(fault, RenamedColumn):
        left = left.with_column(at, fault.to, values)
    elif isinstance(fault, TextColumn):
        left = left.with_column(at, fault.column, adapter.as_text(values))
    return SchemaChanged(fault, at, values), left


def _swap_values(fault: SwapFault, adapter: TableAdapter, rows: Rows, seed: int, label: str) -> ValuesSwapped:
    columns = tuple(_column(fault, name, adapter) for name in fault.columns)
    if isinstance(fault, SwappedColumns):
        hits = fault.hits(rows, key_of(seed, label, ""))
        if adapter.type_of(columns[0]) != adapter.type_of(columns[1]):
            kinds = " and ".join(adapter.type_of(column) for column in columns)
            raise UsageError(f"{fault.name}: columns of one type can be swapped, not {kinds}")
        indices, sources = [(hits, hits)] * 2, columns[::-1]
    elif isinstance(fault, SwappedValues):
        found = [fault.index(rows, key_of(seed, label, adapter.names[column])) for column in columns]
        moved = [np.flatnonzero(index != np.arange(rows.count)) for index in found]
        indices, sources = [(to, index[to]) for to, index in zip(moved, found, strict=True)], columns
    else:
        raise TypeError(f"{fault.name} is no fault that swaps")
    old = [adapter.values_at(column, to) for column, (to, _) in zip(columns, indices, strict=True)]
    new = [adapter.values_at(column, come_from) for column, (_, come_from) in zip(sources, indices, strict=True)]
    places = [to for to, _ in indices]
    differs = [adapter.assign(*one) for one in zip(columns, places, new, strict=True)]
    return ValuesSwapped(fault, columns, tuple(places), tuple(old), tuple(differs))


def _columns_for(fault: CellFault, adapter: TableAdapter) -> list[int]:
    if not fault.columns:
        found = [column for column in range(len(adapter.names)) if not adapter.fits(column, fault)]
        if not found:
            why = "; ".join(dict.fromkeys(adapter.fits(column, fault) for column in range(len(adapter.names))))
            raise UsageError(f"{fault.name}: there is no column that it can change ({why or 'there is none'})")
        return found
    found = [_column(fault, name, adapter) for name in fault.columns]
    for column in found:
        if why := adapter.fits(column, fault):
            raise UsageError(f"{fault.name}: it cannot change column {adapter.names[column]!r}: {why}")
    return found


def _column(fault: Fault, name: str, adapter: TableAdapter) -> int:
    if name not in adapter.names:
        raise UsageError(f"{fault.name}: there is no column {name!r}; there are {', '.join(adapter.names)}")
    return list(adapter.names).index(name)


def _allowed(fault: CellFault, adapter: TableAdapter) -> Bools | None:
    if fault.where is None or fault.where.column == OWN:
        return None
    return fault.where.holds(adapter.numbers(_column(fault, fault.where.column, adapter)))
