"""Models with the right file format and the wrong purpose or columns, trained within a second.

    python -m monkeyproof.targets.local.models.other_models KIND DATA FILE

trains one; ``LocalOtherModels`` runs that in a process of its own, for scikit-learn costs its importer a second.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np

from monkeyproof.errors import TargetError, UsageError
from monkeyproof.targets.local.models.data import Entities, Floats
from monkeyproof.targets.local.models.publishing import SERVER_ENVIRONMENT

KINDS = ("other_purpose", "other_columns", "fewer_columns")
FEWER_COLUMNS = 5
DEPTH = 6
MADE_WITHIN_S = 30.0


class LocalOtherModels:
    """``port.OtherModels``."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "features.npz"

    def make(self, kind: str, to: Path) -> Path:
        if kind not in KINDS:
            raise UsageError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
        model = to / "model.pkl"
        command = [sys.executable, "-m", __name__, kind, str(self._data), str(model)]
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **SERVER_ENVIRONMENT},
                timeout=MADE_WITHIN_S,
                capture_output=True,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TargetError(f"training a model took longer than {MADE_WITHIN_S:g} s") from None
        if done.returncode != 0:
            raise TargetError(f"no model could be trained: {(done.stderr.splitlines() or ['?'])[-1]}")
        return model


def train(kind: str, data: Entities) -> object:
    """A small tree, taught from the entities that are served."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=DEPTH, random_state=0)
    values: Floats = data.values
    if kind == "other_purpose":
        # Whether the first sensor reads high: a question that no user asks.
        return tree.fit(values, (values[:, 0] > np.median(values[:, 0])).astype(np.int64))
    if kind == "fewer_columns":
        return tree.fit(values[:, :FEWER_COLUMNS], data.labels)
    # Taught with its columns the other way round, it expects them so.
    return tree.fit(values[:, ::-1], data.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a model with another purpose or other columns.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("data", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    arguments.file.write_bytes(pickle.dumps(train(arguments.kind, Entities.load(arguments.data))))


if __name__ == "__main__":
    main()
