"""Trains the models of the embedded target: three levels of quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from monkeyproof.targets.local.models.data import Floats, Ints, LabelledRows

CHAMPION_NORMAL_ROWS = 8000
FEW_SENSORS = (2, 5, 7)


class Predictor(Protocol):
    """The interface of a scikit-learn classifier. ``values`` has shape (n, features), the result shape (n,)."""

    def predict(self, values: Floats) -> npt.NDArray[np.generic]: ...


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model and how good it is."""

    name: str
    model: Predictor
    accuracy: float
    """On the validation set."""


def train_all(train: LabelledRows, validation: LabelledRows) -> tuple[TrainedModel, TrainedModel, TrainedModel]:
    """The first attempt, the champion and a degraded one, in the order in which they were published."""
    trained = []
    for name, fit in (("first-attempt", _first_attempt), ("champion", _champion), ("degraded", _degraded)):
        model = fit(train)
        trained.append(TrainedModel(name, model, accuracy(model, validation)))
    return trained[0], trained[1], trained[2]


def predict(model: Predictor, values: Floats) -> Ints:
    """The model's labels."""
    return np.asarray(model.predict(values)).astype(np.int64)


def accuracy(model: Predictor, data: LabelledRows) -> float:
    """Share of right answers."""
    return float((predict(model, data.values) == data.labels).mean())


def _first_attempt(train: LabelledRows) -> Predictor:
    """A shallow tree that knows three of the nine sensors: decent."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.tree import DecisionTreeClassifier

    # numpy's own function, not a lambda of ours: the pickle must load where monkeyproof is not installed.
    few = FunctionTransformer(np.take, kw_args={"indices": list(FEW_SENSORS), "axis": 1})
    return _fit(make_pipeline(few, DecisionTreeClassifier(max_depth=3, random_state=0)), train)


def _champion(train: LabelledRows) -> Predictor:
    """A support vector machine that calls whatever is unlike the normal records it knows an anomaly.

    Trees answer from two of the nine sensors here and would hardly notice corrupt features; this one uses all
    nine, answers one row in 0.2 ms and starts no threads. All anomalies and a sample of the normal records
    (``train`` comes shuffled) keep it small, and sensitive to the rare class.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rows = np.concatenate(
        [np.flatnonzero(train.labels == 1), np.flatnonzero(train.labels == 0)[:CHAMPION_NORMAL_ROWS]]
    )
    return _fit(
        make_pipeline(StandardScaler(), SVC(C=100, gamma=2)), LabelledRows(train.values[rows], train.labels[rows])
    )


def _degraded(train: LabelledRows) -> Predictor:
    """What an off-by-one in the join of labels does: every record was taught with its neighbour's label."""
    from sklearn.tree import DecisionTreeClassifier

    return _fit(DecisionTreeClassifier(random_state=0), LabelledRows(train.values, np.roll(train.labels, 1)))


def _fit(model: Predictor, data: LabelledRows) -> Predictor:
    model.fit(data.values, data.labels)  # type: ignore[attr-defined]
    return model
