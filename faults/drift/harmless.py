"""Finds out how far inputs can move before an answer changes, by asking the champion."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from monkeyproof.errors import Refusal, TargetError, UsageError
from monkeyproof.faults.corruption.random import Floats
from monkeyproof.faults.support.checks import check_above_zero
from monkeyproof.faults.support.record_stream import entity_in
from monkeyproof.targets.port import Features, Models, Registry, Target, Telemetry, require

_FRACTIONS = (1.0, 0.75, 0.5, 0.25, 0.1)
_PARTS = (1.0, 0.5, 0.25)
_FIRST_ASKED = 48
"""Entities with which each feature is tried alone; the moves that pass are then tried with all."""
_NINE_TENTHS = 3.29
"""Width of the middle nine tenths of a normal distribution, in standard deviations."""


def harmless_move(target: Target, columns: Sequence[int], size: float) -> Mapping[int, float]:
    """How far each column may move so that no answer changes, all of them at once.

    Args:
        columns: indices of features that may move; none: all.
        size: how far at most, in spreads.

    Raises:
        UsageError: no such column, or no size.
        Refusal: every move changes an answer.
        TargetError: the model could not be asked.
    """
    check_above_zero("size", size)
    values = _known_values(target)
    width = values.shape[1]
    if columns and max(columns) >= width:
        raise UsageError(f"columns: there is no feature {max(columns)}; an entity has {width}, from 0 on")
    low, high = np.quantile(values, [0.05, 0.95], axis=0)
    steps = {
        column: float(size * (high[column] - low[column]) / _NINE_TENTHS)
        for column in (columns or range(width))
        if high[column] > low[column]
    }
    with tempfile.TemporaryDirectory(prefix="mp-champion-") as folder:
        registry = require(target, Registry)
        model = registry.download(registry.champion(), Path(folder))
        few = values[:: max(1, len(values) // _FIRST_ASKED)]
        alone = [{column: step * part} for column, step in steps.items() for part in _FRACTIONS]
        found: dict[int, float] = {}
        for move in _harmless(target, model, few, alone):
            for column, shift in move.items():
                found.setdefault(column, shift)  # The largest stands first.
        # All of them at once, or only those that may go far: what is harmless alone need not be so together.
        together = [
            {column: shift * part for column, shift in found.items() if shift >= least * steps[column]}
            for least in _FRACTIONS
            for part in _PARTS
        ]
        harmless = _harmless(target, model, values, [move for move in together if move])
    if not harmless:
        raise Refusal(
            "every move of these features changes an answer, so none of them would be benign",
            "choose other columns, or a smaller size",
        )
    return max(harmless, key=lambda move: sum(move[column] / steps[column] for column in move))


def _harmless(
    target: Target, model: Path, values: Floats, moves: Sequence[Mapping[int, float]]
) -> list[Mapping[int, float]]:
    """Those of the moves after which the model answers as before."""
    if not moves:
        return []
    tables = [values]
    for move in moves:
        moved = values.copy()
        moved[:, list(move)] += np.array(list(move.values()))
        tables.append(moved)
    asked = require(target, Models).trial_load(model, np.concatenate(tables).tolist())
    if not asked.ok or len(asked.predictions) != len(values) * len(tables):
        raise TargetError(f"the champion could not be asked what it would answer: {asked.why or 'no answer'}")
    answers = np.array(asked.predictions).reshape(len(tables), len(values))
    return [move for move, got in zip(moves, answers[1:], strict=True) if (got == answers[0]).all()]


def _known_values(target: Target) -> Floats:
    """(n, d) features of the entities that the golden set and the canaries ask about."""
    telemetry = target.find(Telemetry)
    files = [target.file.predict.golden, *([telemetry.canary()] if telemetry is not None else [])]
    entities: dict[str, None] = {}
    for file in files:
        with file.open() as lines:
            entities |= dict.fromkeys(entity_in(json.loads(line)["body"]) for line in lines)
    stored = require(target, Features).read([entity for entity in entities if entity])
    values = np.array([vector for vector in stored.values() if vector is not None], np.float64)
    if values.ndim != 2:
        raise Refusal(
            "the feature store knows none of the entities that the golden set asks about",
            "name golden questions that ask by entity",
        )
    return values
