"""What faults do to the records of a stream: those of the data engine and those of drift, by name.

A record is a mapping with a ``position``, an ``entity``, a list of ``features`` and whatever else it has. What
becomes of it depends on its absolute position, as everywhere in ``monkeyproof.faults.data``: the features are an
array whose columns are called "0", "1", and so on; ``entity`` and ``label`` are columns of those names.

Faults that move rows within windows do so where a response holds the whole window; a window that a response cuts
stays as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.cells import CellFault, Noise, Outlier, Scale, SignFlip, UnitChange, Where
from monkeyproof.faults.corruption.random import Index, draws_for, key_of, rows_from, uniform_at
from monkeyproof.faults.corruption.rows import (
    Duplicates,
    LateRows,
    LostRows,
    RowFault,
    StaleRows,
    SwappedRows,
    TruncatedBatches,
)
from monkeyproof.faults.corruption.schema import ExtraColumn, LostColumn, RenamedColumn, SchemaFault, TextColumn
from monkeyproof.faults.corruption.tables import corrupt
from monkeyproof.faults.corruption.text import BrokenEncoding, LabelNoise, TextFault, Typo, UnseenCategory
from monkeyproof.faults.proxy.records.batch import Record, RecordBatch
from monkeyproof.faults.proxy.records.drift import ChangedMeaning, MovingFeatures, RarerLabel
from monkeyproof.faults.proxy.records.shapes import LateStream, MissingInJson, SwappedFeatures
from monkeyproof.types import Json


def _values(
    faults: CellFault | Sequence[CellFault], batch: RecordBatch, seed: int, *, missing: float | None = None
) -> None:
    """Faults of numbers, on the features."""
    corrupted = corrupt(batch.values, faults, positions=batch.positions, seed=seed)
    rows, columns = np.nonzero(corrupted.mask())
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        new = float(corrupted.table[row, column])
        batch.put(row, column, missing if math.isnan(new) else new)
    _count_cells(batch, rows)


def _count_cells(batch: RecordBatch, rows: Index) -> None:
    batch.count("corrupted_records", len(np.unique(rows)))
    batch.count("corrupted_cells", len(rows))


def _missing(fault: MissingInJson, batch: RecordBatch, seed: int) -> None:
    _values(fault.values(), batch, seed, missing=None if fault.written_as == "null" else math.nan)


def _field(fault: TextFault, batch: RecordBatch, seed: int) -> None:
    """A fault of texts or labels, on the one column of the record that it names."""
    (column,) = fault.columns
    name = f"{fault.name}/{column}"
    mask = uniform_at(seed, name, batch.positions) < fault.share
    if fault.where is not None:
        mask &= _where(fault.where, batch)
    fits = int if isinstance(fault, LabelNoise) else str
    rows = [row for row in np.flatnonzero(mask).tolist() if type(batch.records[row].get(column)) is fits]
    old: list[Any] = [batch.records[row][column] for row in rows]
    draws = draws_for(seed, name, batch.positions[rows])
    if isinstance(fault, LabelNoise):
        new: Sequence[Json] = fault.new(np.array(old, np.float64), draws).astype(np.int64).tolist()
    else:
        new = fault.new_texts(old, draws)
    changed = [number for number, value in enumerate(new) if value != old[number]]
    for number in changed:
        batch.put(rows[number], column, new[number])
    _count_cells(batch, np.array(rows, np.int64)[changed])


def _where(where: Where, batch: RecordBatch) -> NDArray[np.bool_]:
    if not where.column.isdecimal() or int(where.column) >= batch.values.shape[1]:
        raise UsageError(f"where: there is no feature {where.column!r}; there are {batch.values.shape[1]}")
    return where.holds(batch.values[:, int(where.column)])


def _index(fault: RowFault, batch: RecordBatch, seed: int) -> Index:
    """Which record is at each place afterwards."""
    key = key_of(seed, f"{fault.name}#0", "")
    window_rows: int = getattr(fault, "window_rows", 0)
    if not window_rows:
        return fault.index(rows_from(len(batch.records), positions=batch.positions), key)
    breaks = np.flatnonzero(np.diff(batch.positions.astype(np.int64)) != 1) + 1
    parts = []
    for run in np.split(np.arange(len(batch.records)), breaks):
        first = int(batch.positions[run[0]])
        cut = min(-first % window_rows, len(run))
        whole = rows_from(len(run) - cut, first + cut)
        parts += [run[:cut], run[0] + cut + fault.index(whole, key)] if whole.count else [run]
    return np.concatenate(parts)


def _moved(fault: RowFault, batch: RecordBatch, seed: int) -> None:
    """Whole records go, come twice, or change their order."""
    _reorder(batch, _index(fault, batch, seed), fault.name)


def _reorder(batch: RecordBatch, index: Index, what: str) -> None:
    times = np.bincount(index, minlength=len(batch.records))
    for row in np.flatnonzero(times != 1).tolist():
        batch.note(row, what, 1, int(times[row]))
    batch.count("lost_records", int((times == 0).sum()))
    batch.count("duplicated_records", int((times > 1).sum()))
    ahead = np.maximum.accumulate(index) if len(index) else index
    for row in index[index < ahead].tolist():
        batch.note(row, what, "in order", "late")
    batch.count("disordered_records", int((index < ahead).sum()))
    batch.records = [batch.records[row] for row in index.tolist()]


def _contents(fault: RowFault, batch: RecordBatch, seed: int) -> None:
    """Records keep position and entity, and get the features and the label of others."""
    index = _index(fault, batch, seed)
    given = [(record["features"], record.get("label")) for record in batch.records]
    hit = np.flatnonzero(index != np.arange(len(index))).tolist()
    for row in hit:
        features, label = given[index[row]]
        record = batch.records[row]
        record["features"] = list(record["features"])
        for column, new in enumerate(features):
            if column < len(record["features"]) and new != record["features"][column]:
                batch.put(row, column, new)
                batch.count("corrupted_cells", 1)
        if "label" in record:
            record["label"] = label
    batch.count("corrupted_records", len(hit))


def _schema(fault: SchemaFault, batch: RecordBatch, seed: int) -> None:  # noqa: ARG001
    """Every record loses, renames, retypes or gains a field, or one of its features."""
    added = fault.to if isinstance(fault, RenamedColumn) else fault.column
    for row, record in enumerate(batch.records):
        if isinstance(fault, ExtraColumn | RenamedColumn) and added in record:
            raise UsageError(f"{fault.name}: there is a field {added!r} already; give the new one another name")
        if isinstance(fault, ExtraColumn):
            if fault.like not in record:
                raise _no_such_field(fault, fault.like, record)
            batch.note(row, fault.column, None, record[fault.like])
            record[fault.column] = record[fault.like]
        elif fault.column.isdecimal() and int(fault.column) < len(record["features"]):
            _schema_of_features(fault, batch, row, int(fault.column))
        elif fault.column in record:
            value = record.pop(fault.column)
            new = str(value) if isinstance(fault, TextColumn) else None
            batch.journal.append(
                {
                    "position": record.get("position", value),
                    "entity": record.get("entity", value),
                    "column": fault.column,
                    "old": value,
                    "new": new,
                }
            )
            if isinstance(fault, RenamedColumn):
                record[fault.to] = value
            elif isinstance(fault, TextColumn):
                record[fault.column] = new
        else:
            raise _no_such_field(fault, fault.column, record)
    _count_cells(batch, np.arange(len(batch.journal)))


def _no_such_field(fault: SchemaFault, field: str, record: Record) -> UsageError:
    return UsageError(f"{fault.name}: no such field: {field!r}; there are {', '.join(record)}")


def _schema_of_features(fault: SchemaFault, batch: RecordBatch, row: int, column: int) -> None:
    if isinstance(fault, TextColumn):
        batch.put(row, column, str(batch.records[row]["features"][column]))
    else:
        batch.note(row, column, batch.records[row]["features"][column], None)
        del batch.records[row]["features"][column]


def _swapped_columns(fault: SwappedFeatures, batch: RecordBatch, seed: int) -> None:
    pair = (fault.first, fault.second)
    _check_there(max(pair), batch, fault.name)
    mask = uniform_at(seed, f"{fault.name}/{fault.first}/{fault.second}", batch.positions) < fault.share
    hits = np.flatnonzero(mask & (batch.values[:, fault.first] != batch.values[:, fault.second]))
    for row in hits.tolist():
        features = batch.records[row]["features"]
        for column, new in zip(pair, [features[fault.second], features[fault.first]], strict=True):
            batch.put(row, column, new)
    batch.count("corrupted_records", len(hits))
    batch.count("corrupted_cells", 2 * len(hits))


def _late_stream(fault: LateStream, batch: RecordBatch, seed: int) -> None:  # noqa: ARG001
    batch.newest_position = int(batch.positions.max())
    kept = batch.positions.astype(np.int64) <= batch.newest_position - fault.lag_records
    batch.count("held_back_records", int((~kept).sum()))
    batch.records = [batch.records[row] for row in np.flatnonzero(kept).tolist()]


def _covariate(fault: MovingFeatures, batch: RecordBatch, seed: int) -> None:
    _check_there(max(fault.columns), batch, fault.name)
    _values(fault.moves(), batch, seed)


def _prior(fault: RarerLabel, batch: RecordBatch, seed: int) -> None:
    labels = np.array([_label(record) for record in batch.records], np.int64)
    _reorder(batch, np.flatnonzero(fault.kept(labels, batch.positions, seed)), fault.name)


def _concept(fault: ChangedMeaning, batch: RecordBatch, seed: int) -> None:
    _check_there(fault.column, batch, fault.name)
    _field(fault.labels(), batch, seed)


def _check_there(column: int, batch: RecordBatch, name: str) -> None:
    width = batch.values.shape[1]
    if column >= width:
        raise UsageError(f"{name}: there is no column {column}; there are {width}")


def _label(record: Record) -> int:
    """-1 for what is no label: it is none of the classes."""
    label = record.get("label")
    return label if type(label) is int else -1


@dataclass(frozen=True, slots=True)
class _RecordFaultKind:
    make: type[Any]
    apply: Callable[[Any, RecordBatch, int], None]
    columns: tuple[str, ...] = ()
    """Which columns it is of, where it does not say so itself."""


_RECORD_FAULT_KINDS: Mapping[str, _RecordFaultKind] = {
    "missing": _RecordFaultKind(MissingInJson, _missing),
    **{one.name: _RecordFaultKind(one, _values) for one in (Scale, Noise, Outlier, SignFlip, UnitChange)},
    **{one.name: _RecordFaultKind(one, _field, ("entity",)) for one in (Typo, UnseenCategory, BrokenEncoding)},
    "label_noise": _RecordFaultKind(LabelNoise, _field, ("label",)),
    **{one.name: _RecordFaultKind(one, _moved) for one in (Duplicates, LostRows, TruncatedBatches, LateRows)},
    **{one.name: _RecordFaultKind(one, _contents) for one in (SwappedRows, StaleRows)},
    **{one.name: _RecordFaultKind(one, _schema) for one in (LostColumn, RenamedColumn, TextColumn, ExtraColumn)},
    "swapped_columns": _RecordFaultKind(SwappedFeatures, _swapped_columns),
    "late_stream": _RecordFaultKind(LateStream, _late_stream),
    "covariate_shift": _RecordFaultKind(MovingFeatures, _covariate),
    "prior_shift": _RecordFaultKind(RarerLabel, _prior),
    "concept_shift": _RecordFaultKind(ChangedMeaning, _concept),
}


def record_fault(name: str, parameters: Mapping[str, Json]) -> Callable[[RecordBatch, int], None]:
    """The fault of a name with these parameters, as a function of a batch and a seed.

    Raises:
        UsageError: there is none, or its parameters are wrong.
    """
    if name not in _RECORD_FAULT_KINDS:
        raise UsageError(f"{name!r}: no such fault of records; there are {', '.join(_RECORD_FAULT_KINDS)}")
    kind = _RECORD_FAULT_KINDS[name]
    known = {one.name: one for one in dataclasses.fields(kind.make)}
    if unknown := sorted(set(parameters) - set(known)):
        raise UsageError(f"{name}: unknown parameter {unknown[0]!r}; it takes {', '.join(known)}")
    needed = [one.name for one in known.values() if one.default is one.default_factory is dataclasses.MISSING]
    given = {"columns": kind.columns} if kind.columns else {}
    given |= {key: tuple(value) if isinstance(value, list) else value for key, value in parameters.items()}
    if missing := [one for one in needed if one not in given]:
        raise UsageError(f"{name}: parameter {missing[0]!r} is missing; it takes {', '.join(known)}")
    if isinstance(where := given.get("where"), dict):
        if unknown := sorted(set(where) - {one.name for one in dataclasses.fields(Where)}):
            raise UsageError(f"{name}: where: unknown {unknown[0]!r}; it takes column, at_least and at_most")
        given["where"] = Where(**where)
    try:
        fault = kind.make(**given)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    if kind.columns and len(fault.columns) != 1:
        raise UsageError(f"{name}: columns: one field of the record, not {len(fault.columns)}")
    if isinstance(fault, RenamedColumn) and (fault.column.isdecimal() or not isinstance(fault.to, str)):
        raise UsageError(f"{name}: a feature of a record has a place and no name; rename a field, to another name")
    return lambda batch, seed: kind.apply(fault, batch, seed)
