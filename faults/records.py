"""Corrupting the records in one JSON response, and noting down exactly what was changed."""

from __future__ import annotations

import json
from typing import Any

import httptools
import numpy as np

from monkeyproof.faults.data.cells import Scale
from monkeyproof.faults.data.tables import corrupt
from monkeyproof.faults.http_changes import with_body
from monkeyproof.faults.toxics import Active, CorruptRecords
from monkeyproof.types import Json

MAX_BODY_BYTES = 8 * 1024 * 1024


class _Body:
    """Collects the body of one message, chunked or not."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)


def corrupt_response(raw: bytes, active: Active) -> bytes:
    """The response ``raw``, its records corrupted as the toxic says; unchanged where it has no records.

    A changed response has a Content-Length and no Transfer-Encoding, whatever it had before.
    """
    toxic = active.parameters
    if not isinstance(toxic, CorruptRecords):
        raise TypeError(f"{active.kind} corrupts nothing")
    collector = _Body()
    httptools.HttpResponseParser(collector).feed_data(raw)
    body = b"".join(collector.parts)
    try:
        if len(body) > MAX_BODY_BYTES:
            raise ValueError("too large")
        message = json.loads(body)
        records = message["records"]
        positions, values = _cells(records)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        active.count("skipped")
        return raw
    active.count("records", len(records))
    scale = Scale(share=toxic.share, low=toxic.low, high=toxic.high)
    corrupted = corrupt(values, scale, positions=positions, seed=toxic.seed)
    rows, columns = np.nonzero(corrupted.mask())
    if not len(rows):
        return raw
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        record = records[row]
        new = float(corrupted.table[row, column])
        active.journal.append(
            {
                "position": record["position"],
                "entity": record["entity"],
                "column": column,
                "old": record["features"][column],
                "new": new,
            }
        )
        record["features"][column] = new
    active.hit(False)
    active.count("corrupted_records", len(np.unique(rows)))
    active.count("corrupted_cells", len(rows))
    return with_body(raw, json.dumps(message, separators=(",", ":")).encode())


def _cells(records: list[dict[str, Json]]) -> tuple[Any, Any]:
    """Positions (n) and feature values (n, d). Raises if a record is not what a record is."""
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
    return positions, values
