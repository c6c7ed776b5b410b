"""Batches of records, and their normal validation: schema, types and finite numbers.

Real pipelines check this much and no more, so that plausible wrong numbers pass. The strict validation
is statistical: monkeyproof.targets.local.workload.reference.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monkeyproof.targets.local.models.data import N_FEATURES, Floats
from monkeyproof.types import Json

MAX_QUARANTINED_FILES = 200
LARGEST = sys.float_info.max


@dataclass(frozen=True, slots=True, eq=False)
class PipelineBatch:
    """Records in the order of their positions; never empty."""

    positions: Sequence[int]
    entities: Sequence[str]
    values: Floats
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def last_position(self) -> int:
        return self.positions[-1]


def parse_batch(body: bytes, after: int) -> PipelineBatch | None:
    """The records of a source's answer; None if it has none.

    Raises:
        ValueError: a record breaks the schema; the message says which and how. None is used then.
    """
    try:
        answer = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    records = answer.get("records") if isinstance(answer, dict) else None
    if not isinstance(records, list):
        raise ValueError("expected an object with a list of records")
    if not records:
        return None
    last = after
    for number, record in enumerate(records):
        if problem := _problem(record, last):
            raise ValueError(f"record {number}: {problem}")
        last = record["position"]
    return PipelineBatch(
        [record["position"] for record in records],
        [record["entity"] for record in records],
        np.array([record["features"] for record in records], dtype=np.float64),
        [record["label"] for record in records],
    )


def _problem(record: Json, after: int) -> str:
    if not isinstance(record, dict) or record.keys() != {"position", "entity", "features", "label"}:
        return "expected position, entity, features and label"
    position, entity, features = record["position"], record["entity"], record["features"]
    if not isinstance(position, int) or isinstance(position, bool) or position <= after:
        return f"position must be a whole number above {after}"
    if not isinstance(entity, str) or not entity:
        return "entity must be a text"
    if not isinstance(features, list) or len(features) != N_FEATURES:
        return f"features must be a list of {N_FEATURES} numbers"
    for number in features:
        if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) <= LARGEST:
            return f"{str(number)[:40]!r} among the features is not a finite number"
    if record["label"] not in (0, 1) or isinstance(record["label"], bool):
        return "label must be 0 or 1"
    return ""


def quarantine_batch(batch: PipelineBatch, why: str, folder: Path) -> Path:
    """Write a quarantined batch into ``folder``, for people to inspect; the oldest files are deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    older = sorted(folder.glob("batch-*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in older[: max(0, len(older) - MAX_QUARANTINED_FILES + 1)]:
        path.unlink(missing_ok=True)
    records = [
        {"position": position, "entity": entity, "features": values.tolist(), "label": label}
        for position, entity, values, label in zip(
            batch.positions, batch.entities, batch.values, batch.labels, strict=True
        )
    ]
    path = folder / f"batch-{batch.positions[0]}.json"
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"why": why, "records": records}))
    return draft.rename(path)
