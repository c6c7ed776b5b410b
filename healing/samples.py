"""Values of the monitor (the M of MAPE-K): one sample of a target, and how it is read from bytes.

No I/O but reading the canaries' file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from monkeyproof.errors import UsageError
from monkeyproof.types import Json

ROWS_PER_ASK = 8
PREFIXES = ("replica_", "pipeline_")

Metrics = Mapping[str, float]
"""Prometheus samples by name, with the label's value behind a slash: ``replica_features_total/fallback``."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A question with a known right answer."""

    body: Mapping[str, Json]
    expect: float
    tolerance: float
    entity: str = ""
    """"" where the body is not a single record that names an entity."""


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """What the canary requests along one path returned since the last sample."""

    right: int = 0
    wrong: int = 0
    failed: int = 0
    """Requests without a 2xx answer in time."""
    latency_ms: float | None = None
    """The slowest request that ended, or has been in flight for at least this long. None: no request tells."""
    versions: frozenset[str] = frozenset()
    """Model versions that answered, by their own report."""
    fallback: bool = False
    """Whether an answer reported that it was made from default features."""
    why: str = ""
    """Of the last failure."""


@dataclass(frozen=True, slots=True)
class ReplicaSample:
    """One replica: the platform's report, its own metrics, and the canary result of its front-door link."""

    name: str
    state: str
    drained: bool
    starts: int
    canary: CanaryResult = CanaryResult()
    metrics: Metrics | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The target at one moment, as far as it is known."""

    t_s: float
    gateway: CanaryResult = CanaryResult()
    replicas: Mapping[str, ReplicaSample] | None = None
    pipeline: Metrics | None = None
    store_ok: bool | None = None
    """Whether the feature store answers on the replicas' link. None: it was not asked, or has not answered yet."""
    late_ms: float = 0.0
    """How late this process itself was. Latencies of a late sample say nothing about the target."""


def read_canaries(path: Path) -> tuple[Canary, ...]:
    """Read the healer's golden set.

    Raises:
        UsageError: it is missing, empty, or a line is not ``{"body", "expect"}``; with file and line.
    """
    found: list[Canary] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: the healer's canaries cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        try:
            raw = json.loads(line)
            records = raw["body"].get("dataframe_records", [])
            entity = str(records[0].get("entity", "")) if len(records) == 1 else ""
            found.append(Canary(raw["body"], float(raw["expect"]), float(raw.get("tolerance", 0.0)), entity))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{path}:{number}: not a canary: expected {{body, expect, tolerance}}") from None
    if not found:
        raise UsageError(f"{path}: no canaries in it, so the healer could not tell right from wrong")
    return tuple(found)


def choose_canaries(canaries: Sequence[Canary], turn: int) -> Sequence[Canary]:
    """The canaries of one request: several records where they can be asked together, else one. They rotate."""
    rows = ROWS_PER_ASK if all(canary.entity for canary in canaries) else 1
    return [canaries[(turn * rows + offset) % len(canaries)] for offset in range(min(rows, len(canaries)))]


def body_of(canaries: Sequence[Canary]) -> Mapping[str, Json]:
    if len(canaries) == 1:
        return canaries[0].body
    return {"dataframe_records": [canary.body["dataframe_records"][0] for canary in canaries]}


def parse_metrics(text: str) -> Metrics:
    """Prometheus text to plain numbers; only those that detection uses, without histogram buckets."""
    lines = (line for line in text.splitlines() if line.startswith(PREFIXES) and "_bucket{" not in line)
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families("\n".join(lines) + "\n")
        for sample in family.samples
    }


def count_right(content: bytes, canaries: Iterable[Canary]) -> int:
    """How many predictions of an answer are right. One that cannot be read has none."""
    try:
        predictions = json.loads(content)["predictions"]
        return sum(
            abs(float(got) - canary.expect) <= canary.tolerance
            for got, canary in zip(predictions, canaries, strict=True)
        )
    except (ValueError, KeyError, TypeError):
        return 0
