"""Analyse (the A of MAPE-K), second half: from detections to causes, by a table that is read from the top.

The first rows that fit explain what is seen. One signal may have several causes, so a row says which signals must
be there, which must not, and for how long: a loss of accuracy alone does not tell its cause, and the Elephant does
not act upon it until another signal does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from monkeyproof.healing.detect import Detection, Signal


class Cause(StrEnum):
    """Every cause that the Elephant knows."""

    FEATURES_UNAVAILABLE = "features_unavailable"
    DATA_CORRUPTED = "data_corrupted"
    MODEL_REGRESSED = "model_regressed"
    REPLICA_DEAD = "replica_dead"
    REPLICA_SLOW = "replica_slow"
    BLIND = "blind"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. The cause's subject is that of the first signal in ``needs``."""

    cause: Cause
    needs: tuple[Signal, ...]
    excludes: tuple[Signal, ...] = ()
    for_s: float = 0.0
    """How long all that it needs must have been there."""


S = Signal
TABLE: tuple[Row, ...] = (
    # cause, needs, not with, for at least
    Row(Cause.FEATURES_UNAVAILABLE, (S.FALLBACK, S.STORE_DOWN)),
    Row(Cause.FEATURES_UNAVAILABLE, (S.FALLBACK,), (), 0.7),
    Row(Cause.FEATURES_UNAVAILABLE, (S.FEATURE_ERRORS, S.STORE_DOWN), (), 0.7),
    Row(Cause.DATA_CORRUPTED, (S.STRAY_RECORDS,)),
    Row(Cause.DATA_CORRUPTED, (S.STRAY_FEATURES, S.CANARY_ACCURACY), (S.FALLBACK, S.CHAMPION_CHANGED), 1.0),
    Row(Cause.MODEL_REGRESSED, (S.CHAMPION_CHANGED, S.CANARY_ACCURACY), (S.FALLBACK, S.STRAY_RECORDS)),
    Row(Cause.REPLICA_DEAD, (S.REPLICA_DOWN,)),
    Row(Cause.REPLICA_SLOW, (S.REPLICA_SLOW,), (S.FALLBACK, S.FEATURE_ERRORS, S.STORE_DOWN)),
    Row(Cause.BLIND, (S.TELEMETRY_LOST,), (), 3.0),
    Row(Cause.UNKNOWN, (S.CANARY_ACCURACY,), (), 3.0),
    Row(Cause.UNKNOWN, (S.CANARY_ERRORS,), (), 3.0),
    Row(Cause.UNKNOWN, (S.CANARY_LATENCY,), (), 5.0),
)

SUBJECTS: Mapping[Cause, str] = {
    Cause.FEATURES_UNAVAILABLE: "features",
    Cause.DATA_CORRUPTED: "features",
    Cause.MODEL_REGRESSED: "model",
    Cause.UNKNOWN: "target",
}
"""Causes with one subject only, whatever the signals name: two rows of one cause are one case."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A cause, as far as the table knows, and the detections that it rests on."""

    cause: Cause
    subject: str
    because: tuple[Detection, ...]

    @property
    def summary(self) -> str:
        return "; ".join(detection.summary for detection in self.because)


@dataclass(frozen=True, slots=True)
class OngoingDetection:
    """A detection, and since when it has been there."""

    detection: Detection
    since_s: float


def diagnose(seen: Sequence[OngoingDetection], now_s: float, *, explained: bool = False) -> tuple[Diagnosis, ...]:
    """The causes that fit, most urgent first, one diagnosis for each cause and subject.

    ``explained``: the Elephant is at work on a cause already, so ``unknown`` is not among the answers.
    """
    found: dict[tuple[Cause, str], Diagnosis] = {}
    for row in TABLE:
        if row.cause is Cause.UNKNOWN and (explained or any(cause is not Cause.BLIND for cause, _ in found)):
            continue
        for diagnosis in _fit(row, seen, now_s):
            found.setdefault((diagnosis.cause, diagnosis.subject), diagnosis)
    return tuple(found.values())


def _fit(row: Row, seen: Sequence[OngoingDetection], now_s: float) -> Iterator[Diagnosis]:
    signals = {one.detection.signal for one in seen}
    old_enough = [one.detection for one in seen if now_s - one.since_s >= row.for_s]
    if signals & set(row.excludes) or not set(row.needs) <= {detection.signal for detection in old_enough}:
        return
    support = tuple(next(d for d in old_enough if d.signal is signal) for signal in row.needs[1:])
    for leading in (detection for detection in old_enough if detection.signal is row.needs[0]):
        yield Diagnosis(row.cause, SUBJECTS.get(row.cause, leading.subject), (leading, *support))
