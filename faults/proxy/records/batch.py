"""The records of one response while a fault works on them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from monkeyproof.faults.corruption.random import Floats, Words
from monkeyproof.types import Json

Record = dict[str, Json]


@dataclass(slots=True)
class RecordBatch:
    """The records of one response, and what a fault did to them. The records are its own, to be changed."""

    records: list[Record]
    positions: Words
    values: Floats
    """(n, d), as they came."""
    journal: list[dict[str, Json]] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    newest_position: int = 0
    """The newest record that a fault saw and held back."""

    @classmethod
    def of(cls, records: list[Record]) -> RecordBatch:
        """Raises ValueError, KeyError, TypeError or OverflowError if a record is not what a record is."""
        for record in records:
            numbers = [record["position"], *record["features"]]
            if not isinstance(record["entity"], str) or not all(type(one) in (int, float) for one in numbers):
                raise TypeError("not a record")
            if type(record["position"]) is not int:
                raise TypeError("not a position")
        positions = np.array([record["position"] for record in records], dtype=np.uint64)
        values = np.array([record["features"] for record in records], dtype=np.float64)
        if values.ndim != 2:
            raise ValueError("no records, or none with features")
        return cls(records, positions, values)

    def put(self, row: int, column: int | str, new: Json) -> None:
        """Change one value of a record, and note it down."""
        record = self.records[row]
        old = record["features"][column] if isinstance(column, int) else record.get(column)
        noted = "NaN" if isinstance(new, float) and math.isnan(new) else new
        self.note(row, column, old, noted)
        if isinstance(column, int):
            record["features"][column] = new
        else:
            record[column] = new

    def note(self, row: int, column: int | str, old: Json, new: Json) -> None:
        record = self.records[row]
        entry = {"position": record["position"], "entity": record["entity"], "column": column}
        # Under a wrong name only the features tell whose they are.
        features = {"features": record["features"]} if column == "entity" else {}
        self.journal.append({**entry, "old": old, "new": new, **features})

    def count(self, name: str, amount: int) -> None:
        if amount:
            self.counts[name] = self.counts.get(name, 0) + amount
