"""The data of the embedded target: real sensor readings, split once and for all.

Statlog Shuttle (49,097 records of 9 sensors, 7 % anomalies), as the river package ships it. Anomalies are
rare and matter, as in fraud detection. Some records hold glitches in the thousands. They stay in training and
validation, but no entity that is served has one: an online store is fed by a plausibility check, and the means
that telemetry shows would otherwise say nothing.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monkeyproof.errors import UsageError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEATURES = tuple(f"f{number}" for number in range(1, 10))
N_FEATURES = len(FEATURES)
SPLIT_SEED = 20
SERVING_NORMAL, SERVING_ANOMALIES = 1200, 300
VALIDATION_NORMAL, VALIDATION_ANOMALIES = 1500, 500
GOLDEN_PER_CLASS, CANARY_PER_CLASS = 80, 32
GLITCH_QUANTILE = 0.001
UNREADABLE_NPZ = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRows:
    """Rows of features with their labels (1 is an anomaly)."""

    values: Floats
    labels: Ints

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Entities:
    """Named rows: the contents of the online feature store."""

    names: tuple[str, ...]
    values: Floats
    labels: Ints

    def __len__(self) -> int:
        return len(self.names)

    def save(self, path: Path) -> None:
        """Write ``features.npz``: arrays ``entities``, ``values`` and ``labels``."""
        np.savez(path, entities=np.array(self.names), values=self.values, labels=self.labels)

    @classmethod
    def load(cls, path: Path) -> Entities:
        """Read what ``save`` wrote.

        Raises:
            UsageError: the file is missing or is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(tuple(map(str, stored["entities"])), stored["values"], stored["labels"])
        except UNREADABLE_NPZ as error:
            raise UsageError(f"{path}: not a file of features ({error}); rebuild the target") from None


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Disjoint parts of the data set."""

    train: LabelledRows
    validation: LabelledRows
    """A quarter are anomalies, so that they weigh in the accuracy."""
    serving: Entities
    """Named after their line in the data set."""


def read_shuttle() -> LabelledRows:
    """The whole data set, in the order of its file.

    Raises:
        UsageError: river is not installed, or does not ship the file any more.
    """
    # Importing river pulls in pandas and scipy (a second); its file is all that is needed.
    spec = importlib.util.find_spec("river")
    path = Path(spec.origin).parent / "datasets" / "shuttle.csv.gz" if spec and spec.origin else Path("river")
    try:
        with gzip.open(path, "rt") as lines:
            next(lines)
            table = np.loadtxt(lines, delimiter=",", dtype=np.float64)
    except OSError as error:
        raise UsageError(
            f"{path}: the Shuttle data set is not there ({error}); install river 0.21 or newer"
        ) from None
    return LabelledRows(np.ascontiguousarray(table[:, :N_FEATURES]), table[:, N_FEATURES].astype(np.int64))


def split(everything: LabelledRows, seed: int = SPLIT_SEED) -> Split:
    """Divide the data set: the same seed gives the same parts."""
    rng = np.random.default_rng(seed)
    low, high = np.quantile(everything.values, [GLITCH_QUANTILE, 1 - GLITCH_QUANTILE], axis=0)
    plausible = ((everything.values >= low) & (everything.values <= high)).all(axis=1)

    taken = np.zeros(len(everything), dtype=bool)

    def take(normal: int, anomalies: int, among: npt.NDArray[np.bool_]) -> Ints:
        rows = []
        for label, count in ((0, normal), (1, anomalies)):
            rows.append(rng.permutation(np.flatnonzero((everything.labels == label) & among & ~taken))[:count])
        chosen = rng.permutation(np.concatenate(rows))
        taken[chosen] = True
        return chosen

    serving = take(SERVING_NORMAL, SERVING_ANOMALIES, plausible)
    validation = take(VALIDATION_NORMAL, VALIDATION_ANOMALIES, np.ones(len(everything), dtype=bool))
    train = rng.permutation(np.flatnonzero(~taken))

    def rows_of(rows: Ints) -> LabelledRows:
        return LabelledRows(everything.values[rows], everything.labels[rows])

    names = tuple(f"shuttle-{row:06d}" for row in serving)
    return Split(
        rows_of(train),
        rows_of(validation),
        Entities(names, everything.values[serving], everything.labels[serving]),
    )


def golden_and_canary(serving: Entities, predicted: Ints) -> tuple[Ints, Ints]:
    """Indices of the golden set (the prober's) and of the canary set (the healer's): disjoint, half anomalies.

    Only entities for which ``predicted``, the champion's answers, are right can be golden.
    """
    right = predicted == serving.labels
    golden, canary = [], []
    for label in (0, 1):
        candidates = np.flatnonzero(right & (serving.labels == label))
        if len(candidates) < GOLDEN_PER_CLASS + CANARY_PER_CLASS:
            raise UsageError(f"the champion is right on only {len(candidates)} entities of class {label}")
        golden.append(candidates[:GOLDEN_PER_CLASS])
        canary.append(candidates[GOLDEN_PER_CLASS : GOLDEN_PER_CLASS + CANARY_PER_CLASS])
    # Alternate the classes, so that every stretch of questions asks about both.
    return np.stack(golden, axis=1).ravel(), np.stack(canary, axis=1).ravel()


def write_questions(path: Path, serving: Entities, rows: Sequence[int] | Ints) -> None:
    """Write questions with known answers, one JSON object a line."""
    with path.open("w") as file:
        for row in rows:
            question = {"dataframe_records": [{"entity": serving.names[row]}]}
            line = {"body": question, "expect": int(serving.labels[row]), "tolerance": 0}
            file.write(json.dumps(line) + "\n")
