"""Numpy arrays as tables: columns are called "0", "1", and so on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.cells import CellFault
from monkeyproof.faults.corruption.engines import NUMPY, Engine
from monkeyproof.faults.corruption.memory import Workspace
from monkeyproof.faults.corruption.random import Bools, Index, Key, Rows
from monkeyproof.faults.corruption.table_adapter import BlockChange, TableAdapter

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Of a table: some rows of some columns."""

    start: int
    count: int
    columns: tuple[int, ...]
    workspace: Workspace


class ArrayAdapter:
    """An array (n,) or (n, d) of numbers."""

    def __init__(
        self, array: Array, names: Sequence[str] = (), out: Array | Workspace | None = None, engine: Engine = NUMPY
    ) -> None:
        if array.ndim not in (1, 2):
            raise UsageError(f"an array of shape {array.shape} is no table: (n,) or (n, d) is needed")
        if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
            raise UsageError(f"an array of {array.dtype} holds no numbers that can be corrupted")
        self._given, self._engine = array, engine
        source: Array = array.reshape(-1, 1) if array.ndim == 1 else array
        self._source: Array | None = source
        self._by_column = source.flags.f_contiguous and not source.flags.c_contiguous
        self._workspace = out if isinstance(out, Workspace) else Workspace()
        copy = _copy_of(array, out)
        self._out: Array = copy.reshape(-1, 1) if copy.ndim == 1 else copy
        self.names: Sequence[str] = names or [str(column) for column in range(self._out.shape[1])]
        self.count = len(array)

    def fits(self, column: int, fault: CellFault) -> str:  # noqa: ARG002
        return fits_numbers(self._out.dtype, fault)

    def numbers(self, column: int) -> Array:
        return (self._out if self._source is None else self._source)[:, column]

    def apply(
        self, fault: CellFault, columns: Sequence[int], keys: Sequence[Key], rows: Rows, allowed: Bools | None
    ) -> Iterator[BlockChange]:
        source, self._source = self._source, None
        if self._by_column and source is not None:
            untouched = [column for column in range(self._out.shape[1]) if column not in columns]
            self._out[:, untouched] = source[:, untouched]

        key_for = dict(zip(columns, keys, strict=True))

        def work(piece: RowBlock) -> BlockChange:
            here = slice(piece.start, piece.start + piece.count)
            out, part = self._out[here], None if source is None else source[here]
            index = np.array(piece.columns, np.int64)
            if self._by_column:
                out, part = (
                    out[:, index[0]].reshape(-1, 1),
                    None if part is None else part[:, index[0]].reshape(-1, 1),
                )
                index = np.zeros(1, np.int64)
            change = self._engine.corrupt(
                out,
                part,
                fault,
                [key_for[column] for column in piece.columns],
                index,
                rows.part(piece.start, piece.count),
                None if allowed is None else allowed[here],
                workspace=piece.workspace,
            )
            return BlockChange(piece.start, piece.count, piece.columns, change)

        yield from self._engine.map(work, self._row_blocks(columns))

    def _row_blocks(self, columns: Sequence[int]) -> list[RowBlock]:
        """What is done at once, by one thread each."""
        if self._by_column:
            return [RowBlock(0, self.count, (column,), self._workspace.part(column)) for column in columns]
        cuts = self._engine.cuts(self.count, self._out.shape[1])
        pairs = enumerate(itertools.pairwise(cuts))
        return [RowBlock(start, end - start, tuple(columns), self._workspace.part(n)) for n, (start, end) in pairs]

    def restore(self, part: BlockChange) -> None:
        out, journal = self._copied()[part.start : part.start + part.count], part.change.journal
        if journal.width == 1:
            out[journal.cells, part.columns[0]] = journal.old
        else:
            journal.restore(out)

    def labels(self, column: int) -> Array:
        return self._copied()[:, column]

    def type_of(self, column: int) -> str:  # noqa: ARG002
        return str(self._out.dtype)

    def values_at(self, column: int, index: Index) -> Array:
        found: Array = self._copied()[index, column]
        return found

    def assign(self, column: int, index: Index, values: Array) -> Bools:
        out = self._copied()
        differs = bits_differ(out[index, column], values)
        out[index, column] = values
        return differs

    def table(self) -> Array:
        out = self._copied()
        return out.reshape(self._given.shape) if self._given.ndim == 1 else out

    def take_rows(self, index: Index) -> ArrayAdapter:
        return ArrayAdapter(self.table()[index], self.names, engine=self._engine)

    def appended(self, other: TableAdapter) -> ArrayAdapter:
        return ArrayAdapter(np.concatenate([self.table(), other.table()]), self.names, engine=self._engine)

    def column(self, column: int) -> Array:
        return self.table().reshape(self.count, -1)[:, column].copy()

    def without_column(self, column: int) -> ArrayAdapter:
        if self._given.ndim == 1:
            raise UsageError("an array (n,) is one column, which cannot be lost")
        return ArrayAdapter(np.delete(self.table(), column, axis=1), engine=self._engine)

    def with_column(self, column: int, name: str, values: Array) -> ArrayAdapter:
        if name != str(column):
            raise UsageError("columns of a numpy array are called by their numbers, so none has another name")
        return ArrayAdapter(np.insert(self.table(), column, values, axis=1), engine=self._engine)

    def as_text(self, values: Array) -> Array:  # noqa: ARG002
        raise UsageError(
            "a numpy array holds numbers of one type; give a frame to have one of its columns as text"
        )

    def _copied(self) -> Array:
        if self._source is not None:
            np.copyto(self._out, self._source)
            self._source = None
        return self._out


def _copy_of(array: Array, out: Array | Workspace | None) -> Array:
    if isinstance(out, Workspace):
        return out.array(array.shape, array.dtype, "F" if array.flags.fnc else "C")
    if out is None:
        return np.empty_like(array, order="A")
    if out.shape != array.shape or out.dtype != array.dtype or not out.flags.writeable:
        raise UsageError(f"out: a writable array of {array.dtype}, {array.shape}, is needed")
    order, right = ("F", out.flags.f_contiguous) if array.flags.fnc else ("C", out.flags.c_contiguous)
    if not right or np.may_share_memory(out, array):
        raise UsageError(f"out: it has to lie in memory in one piece, in {order} order, and apart from the table")
    return out


def bits_differ(one: Array, other: Array) -> Bools:
    """Which of some numbers are not the same, bit by bit."""
    bits = np.dtype(f"u{one.dtype.itemsize}")
    found: Bools = one.view(bits) != other.view(bits)
    return found


def fits_numbers(dtype: np.dtype[Any], fault: CellFault) -> str:
    """Why a fault cannot change numbers of a type; "" if it can."""
    if dtype.kind not in "fiu":
        return f"{dtype} holds no numbers"
    if fault.works_on == "text":
        return f"{dtype} holds no text"
    if fault.works_on == "anything" and dtype.kind != "f":
        return f"{dtype} cannot hold a missing value"
    return ""
