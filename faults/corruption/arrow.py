"""Arrow record batches and tables. What a fault does not touch stays in the memory of the table given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.arrays import fits_numbers
from monkeyproof.faults.corruption.cells import OWN, CellFault
from monkeyproof.faults.corruption.engines import NUMPY, Engine
from monkeyproof.faults.corruption.matrix import (
    Bits,
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
_NOWHERE = np.empty(0, np.int64)


class ArrowAdapter:
    """A RecordBatch or a Table. ``Missing`` works on every type: it clears a value's validity bit and leaves the
    value in memory untouched. Other faults work on floats and integers."""

    def __init__(
        self, table: pa.RecordBatch | pa.Table, workspace: Workspace | None = None, engine: Engine = NUMPY
    ) -> None:
        self._given, self._engine = table, engine
        self._workspace = Workspace() if workspace is None else workspace
        self._schema = table.schema
        self.names: Sequence[str] = unique_names(table.schema.names)
        self.count: int = table.num_rows
        batches = [table] if isinstance(table, pa.RecordBatch) else table.to_batches()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])[:-1].tolist()
        self._batches: list[list[pa.Array]] = [list(batch.columns) for batch in batches]

    def fits(self, column: int, fault: CellFault) -> str:
        field = self._schema.field(column)
        if fault.works_on == "anything":
            return "" if field.nullable else "its schema says that it is never null"
        if "text" in fault.works_on and _is_text(field.type):
            return ""
        if fault.works_on == "text":
            return f"{field.type} holds no text"
        return fits_numbers(_numpy_type(field.type), fault)

    def numbers(self, column: int) -> NDArray[Any]:
        parts = [_numbers(batch[column], self.names[column]) for batch in self._batches]
        return np.concatenate(parts) if parts else np.empty(0)

    def apply(
        self, fault: CellFault, columns: Sequence[int], keys: Sequence[Key], rows: Rows, allowed: Bools | None
    ) -> Iterator[BlockChange]:
        for start, batch in zip(self._starts, self._batches, strict=True):
            for column, key in zip(columns, keys, strict=True):
                array = batch[column]
                here = rows.part(start, len(array))
                may = _present(array)
                if allowed is not None:
                    part = allowed[start : start + len(array)]
                    may = part if may is None else may & part
                if isinstance(fault, TextFault) and _is_text(array.type):
                    change, batch[column] = _change_text(array, fault, key, here, may)
                elif fault.works_on != "anything":
                    change, batch[column] = self._change_numbers(array, fault, key, here, may)
                else:
                    if fault.where is not None and fault.where.column == OWN:
                        held = fault.where.holds(_numbers(array, self.names[column]))
                        may = held if may is None else may & held
                    change, batch[column] = _remove_values(array, fault, key, here, may)
                yield BlockChange(start, len(array), (column,), change)

    def restore(self, part: BlockChange) -> None:
        batch = self._batches[self._starts.index(part.start)]
        array = batch[part.columns[0]]
        journal = part.change.journal
        if journal.old is None:
            present = _present(array)
            if present is not None:
                batch[part.columns[0]] = _with_validity(array, part.mask()[:, 0] | present)
        elif isinstance(journal.old, WholeColumn):
            batch[part.columns[0]] = journal.old.column
        else:
            values = _values_of(array).copy()
            values[journal.cells] = journal.old
            batch[part.columns[0]] = _with_values(array, values)

    def labels(self, column: int) -> NDArray[Any]:
        values: list[Any] = self.table().column(column).to_pylist()
        return np.array([*values, None], object)[:-1]

    def type_of(self, column: int) -> str:
        return str(self._schema.field(column).type)

    def values_at(self, column: int, index: Index) -> pa.Array:
        found = self.table().column(column).take(pa.array(index))
        found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
        return found.dictionary_decode() if pa.types.is_dictionary(found.type) else found

    def assign(self, column: int, index: Index, values: pa.Array) -> Bools:
        old = self.values_at(column, index)
        for start, batch in zip(self._starts, self._batches, strict=True):
            here = np.flatnonzero((index >= start) & (index < start + len(batch[column])))
            batch[column] = _replaced(batch[column], index[here] - start, values.take(pa.array(here)))
        same = pa.compute.fill_null(pa.compute.equal(old, values), False)
        both = pa.compute.and_(pa.compute.is_null(old), pa.compute.is_null(values))
        found: Bools = ~pa.compute.or_(same, both).to_numpy(zero_copy_only=False)
        return found

    def table(self) -> pa.RecordBatch | pa.Table:
        batches = [pa.RecordBatch.from_arrays(arrays, schema=self._schema) for arrays in self._batches]
        if isinstance(self._given, pa.RecordBatch):
            return batches[0]
        return pa.Table.from_batches(batches, schema=self._schema)

    def take_rows(self, index: Index) -> ArrowAdapter:
        return ArrowAdapter(self.table().take(pa.array(index)), engine=self._engine)

    def appended(self, other: TableAdapter) -> ArrowAdapter:
        mine, others = self.table(), other.table()
        if isinstance(mine, pa.Table):
            return ArrowAdapter(pa.concat_tables([mine, others]).combine_chunks(), engine=self._engine)
        return ArrowAdapter(pa.concat_batches([mine, others]), engine=self._engine)

    def column(self, column: int) -> tuple[pa.Field, Any]:
        return self._schema.field(column), self.table().column(column)

    def without_column(self, column: int) -> ArrowAdapter:
        return ArrowAdapter(self.table().remove_column(column), engine=self._engine)

    def with_column(self, column: int, name: str, values: tuple[pa.Field, Any]) -> ArrowAdapter:
        field, array = values
        return ArrowAdapter(self.table().add_column(column, field.with_name(name), array), engine=self._engine)

    def as_text(self, values: tuple[pa.Field, Any]) -> tuple[pa.Field, Any]:
        field, array = values
        try:
            text = pa.compute.cast(array, pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UsageError(f"text_column: {field.type} has no form as text") from None
        return field.with_type(pa.string()), text

    def _change_numbers(
        self, array: pa.Array, fault: CellFault, key: Key, rows: Rows, may: Bools | None
    ) -> tuple[Change, pa.Array]:
        values = _values_of(array)
        out = self._workspace.array((len(values), 1), values.dtype)
        source = values.reshape(-1, 1)
        change = self._engine.corrupt(out, source, fault, [key], _FIRST, rows, may, workspace=self._workspace)
        return change, _with_values(array, out[:, 0])


def _remove_values(
    array: pa.Array, fault: CellFault, key: Key, rows: Rows, may: Bools | None
) -> tuple[Change, pa.Array]:
    mask = hit_rows(fault, key, rows, may)
    bits = np.packbits(mask, bitorder="little")
    if not _is_flat(array.type):
        new = pa.compute.if_else(pa.array(mask), pa.scalar(None, array.type), array)
        return Change(Journal(1, _NOWHERE, WholeColumn(array)), bits), new
    present = _present(array)
    change = Change(Journal(1, _NOWHERE, None), bits)
    if present is None and array.offset == 0 and not pa.types.is_dictionary(array.type):
        return change, _with_bits(array, ~bits)
    return change, _with_validity(array, ~mask if present is None else present & ~mask)


def _change_text(
    array: pa.Array, fault: TextFault, key: Key, rows: Rows, may: Bools | None
) -> tuple[Change, pa.Array]:
    def texts_at(hits: Index) -> list[str]:
        found: list[str] = array.take(pa.array(hits)).to_pylist()
        return found

    there = np.ones(len(array), np.bool_) if may is None else may
    cells, texts = change_texts(fault, key, rows, there, texts_at)
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    return Change(Journal(1, cells, WholeColumn(array))), _replaced(array, cells, pa.array(texts, kind))


def _replaced(array: pa.Array, index: Index, values: pa.Array) -> pa.Array:
    """With other values in some places; those of a dictionary are given as themselves."""
    plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    place = np.arange(len(array))
    place[index] = len(array) + np.arange(len(index))
    new = pa.concat_arrays([plain, values]).take(pa.array(place))
    return new if plain is array else new.dictionary_encode().cast(array.type)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_flat(kind: pa.DataType) -> bool:
    """Whether bits for what is there can be exchanged, and all else be left where it is."""
    if pa.types.is_dictionary(kind):
        return True
    flat = (pa.types.is_primitive, pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
    return any(is_it(kind) for is_it in (*flat, pa.types.is_large_binary, pa.types.is_decimal))


def _numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return found
    return np.dtype(object)


def _values_of(array: pa.Array) -> NDArray[Any]:
    """The values themselves, also where the array says that there are none; a view, read-only."""
    kind = _numpy_type(array.type)
    buffer = array.buffers()[1]
    if buffer is None:
        return np.empty(0, kind)
    return np.frombuffer(buffer, kind, count=len(array), offset=array.offset * kind.itemsize)


def _present(array: pa.Array) -> Bools | None:
    """Which values are there; None: all of them."""
    if array.null_count == 0:
        return None
    found: Bools = array.is_valid().to_numpy(zero_copy_only=False)
    return found


def _numbers(array: pa.Array, name: str) -> NDArray[Any]:
    try:
        found: NDArray[Any] = pa.compute.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UsageError(f"where: column {name!r} holds no numbers") from None
    return found


def _with_validity(array: pa.Array, valid: Bools) -> pa.Array:
    """The same values in the same memory, with other bits for whether they are there."""
    if pa.types.is_dictionary(array.type):
        indices = _with_validity(array.indices, valid)
        return pa.DictionaryArray.from_arrays(indices, array.dictionary, ordered=array.type.ordered)
    return _with_bits(
        array, np.packbits(np.concatenate([np.zeros(array.offset, np.bool_), valid]), bitorder="little")
    )


def _with_bits(array: pa.Array, bits: Bits) -> pa.Array:
    buffers = [pa.py_buffer(bits), *array.buffers()[1 : array.type.num_buffers]]
    return pa.Array.from_buffers(array.type, len(array), buffers, offset=array.offset)


def _with_values(array: pa.Array, values: NDArray[Any]) -> pa.Array:
    present = _present(array)
    bits = None if present is None else pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.Array.from_buffers(array.type, len(values), [bits, pa.py_buffer(values)])
