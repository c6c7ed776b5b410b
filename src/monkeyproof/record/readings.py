"""Readings on disk and in memory: one row for every probe that was scheduled, answered or not.

The file is an Arrow IPC stream. Each batch is one message, flushed as a whole, so a killed prober loses at
most its last batch and a reader can follow the file while it grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from monkeyproof.errors import UsageError


class SignalState(IntEnum):
    """The state of one signal of a reading. UNKNOWN (the probe was never sent, say) never counts as good."""

    BAD = 0
    GOOD = 1
    UNKNOWN = 2


SCHEMA = pa.schema(
    [
        pa.field("slot", pa.int64(), nullable=False),  # 0, 1, 2, ...: the place in the schedule
        pa.field("scheduled_s", pa.float64(), nullable=False),
        pa.field("sent_s", pa.float64(), nullable=False),  # NaN: never sent
        pa.field("finished_s", pa.float64(), nullable=False),  # NaN: never sent; a timeout's own instant
        pa.field("available", pa.int8(), nullable=False),  # SignalState
        pa.field("fast", pa.int8(), nullable=False),  # SignalState
        pa.field("correct", pa.int8(), nullable=False),  # SignalState; UNKNOWN if there was no answer to judge
        pa.field("degraded", pa.int8(), nullable=False),  # 1: the target reported that it used a fallback
        pa.field("status", pa.int16(), nullable=False),  # HTTP status; 0: none
        pa.field("model_version", pa.string(), nullable=False),  # "": not reported
        pa.field("problem", pa.string(), nullable=False),  # "": none; else timeout, refused, reset, ...
    ],
    metadata={"monkeyproof_readings_version": "1"},
)


@dataclass(frozen=True, slots=True)
class Reading:
    """One probe's result. Times are seconds since the trial began; NaN where there is none."""

    slot: int
    scheduled_s: float
    sent_s: float
    finished_s: float
    available: SignalState
    fast: SignalState
    correct: SignalState
    degraded: bool = False
    status: int = 0
    model_version: str = ""
    problem: str = ""

    @property
    def good(self) -> SignalState:
        """GOOD if all three signals are; BAD if it is known not to be good; else UNKNOWN."""
        signals = (self.available, self.fast, self.correct)
        if all(signal is SignalState.GOOD for signal in signals):
            return SignalState.GOOD
        return SignalState.BAD if SignalState.BAD in signals else SignalState.UNKNOWN


@dataclass(frozen=True)
class Readings:
    """Columns of equal length n, in the order of their slots."""

    slot: NDArray[np.int64]
    scheduled_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    finished_s: NDArray[np.float64]
    available: NDArray[np.int8]
    fast: NDArray[np.int8]
    correct: NDArray[np.int8]
    degraded: NDArray[np.int8]
    status: NDArray[np.int16]
    model_version: NDArray[np.str_]
    problem: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.slot)

    @property
    def good(self) -> NDArray[np.int8]:
        """SignalState of each reading as a whole, shape (n,): see ``Reading.good``."""
        signals = np.stack([self.available, self.fast, self.correct])
        good = np.where((signals == SignalState.BAD).any(axis=0), SignalState.BAD, SignalState.UNKNOWN)
        return np.where((signals == SignalState.GOOD).all(axis=0), SignalState.GOOD, good).astype(np.int8)

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """From the *scheduled* time to the end, shape (n,): a late prober improves no figure. NaN: never sent."""
        return (self.finished_s - self.scheduled_s) * 1000.0

    @property
    def lateness_ms(self) -> NDArray[np.float64]:
        """How late the prober itself sent, shape (n,). NaN: never sent."""
        return (self.sent_s - self.scheduled_s) * 1000.0

    @classmethod
    def of(cls, rows: Iterable[Reading]) -> Readings:
        """Columns of the given rows, in the order of their slots."""
        return _from_batches([to_batch(rows)])

    @classmethod
    def read(cls, path: Path) -> Readings:
        """Read a file of readings, also one whose writer was killed in the middle of a batch.

        Raises:
            UsageError: the file is missing or does not hold readings.
        """
        try:
            with path.open("rb") as file:
                tail = ReadingsTail(file)
                tail.poll()
                return tail.readings
        except FileNotFoundError:
            raise UsageError(f"{path}: no readings were written there") from None


def to_batch(rows: Iterable[Reading]) -> pa.RecordBatch:
    """One Arrow record batch of the given rows.

    Built of buffers, here and in ``_from_batches``: pyarrow's own conversions import pandas on first use, which
    costs a quarter of a second in each process of each trial.
    """
    rows = list(rows)
    columns = [_column([getattr(row, column.name) for row in rows], column.type) for column in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_string(kind):
        array = np.array(values, dtype=_DTYPES[kind])
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(array)])
    texts = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts)))


def _from_batches(batches: list[pa.RecordBatch]) -> Readings:
    columns = {
        column.name: np.concatenate([_values(batch.column(place)) for batch in batches] or [_nothing(column.type)])
        for place, column in enumerate(SCHEMA)
    }
    order = np.argsort(columns["slot"], kind="stable")
    return Readings(**{name: values[order] for name, values in columns.items()})


def _values(column: pa.Array) -> NDArray[Any]:
    if not len(column):
        return _nothing(column.type)
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=np.str_)
    found = np.frombuffer(column.buffers()[1], dtype=_DTYPES[column.type])
    return found[column.offset : column.offset + len(column)]


def _nothing(kind: pa.DataType) -> NDArray[Any]:
    return np.zeros(0, dtype=_DTYPES[kind])


_DTYPES: Mapping[pa.DataType, type[np.generic]] = {
    pa.int64(): np.int64,
    pa.float64(): np.float64,
    pa.int16(): np.int16,
    pa.int8(): np.int8,
    pa.string(): np.str_,
}


class ReadingsWriter:
    """Appends batches to a file; the kernel has each batch before ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._stream = pa.ipc.new_stream(self._file, SCHEMA)

    def write(self, rows: Iterable[Reading]) -> None:
        self._stream.write_batch(to_batch(rows))

    def close(self) -> None:
        self._stream.close()
        self._file.close()


class ReadingsTail:
    """Reads a file of readings while another process writes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._schema: pa.Schema | None = None
        self._batches: list[pa.RecordBatch] = []
        self._readings = _from_batches([])

    def poll(self) -> bool:
        """Read the batches that are complete by now; returns whether there were any."""
        self._file.seek(self._offset)
        data = self._file.read()
        taken, before = 0, len(self._batches)
        reader = pa.BufferReader(data)
        while True:
            try:
                message = pa.ipc.read_message(reader)
            except (EOFError, pa.ArrowInvalid, OSError):
                break  # A batch that is incomplete, for now or for ever; or the end of the stream.
            try:
                if self._schema is None:
                    self._schema = pa.ipc.read_schema(message)
                    if self._schema.names != SCHEMA.names:
                        raise UsageError(f"{self._file.name}: not readings of a version this one knows")
                else:
                    self._batches.append(pa.ipc.read_record_batch(message, self._schema))
            except pa.ArrowInvalid as error:
                raise UsageError(f"{self._file.name}: damaged readings: {error}") from None
            taken = reader.tell()
        self._offset += taken
        if len(self._batches) > before:
            self._readings = _from_batches(self._batches)
            return True
        return False

    @property
    def readings(self) -> Readings:
        """All readings read so far."""
        return self._readings
