"""Drift has the size that was asked for, where it was asked for, and none elsewhere."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from monkeyproof.errors import UsageError
from monkeyproof.faults.data import (
    BenignDrift,
    ConceptDrift,
    CovariateShift,
    PriorShift,
    Ramp,
    Recurring,
    Sudden,
    Where,
    corrupt,
)

ROWS = 40_000


def population_stability(expected: Any, found: Any, bins: int = 10) -> float:
    """Sum of (f - e) ln(f / e) over tenths of the expected: Siddiqi, "Credit Risk Scorecards" (Wiley 2006), where
    below 0.1 is no shift to speak of and above 0.25 a major one."""
    edges = np.quantile(expected, np.linspace(0, 1, bins + 1)[1:-1])
    shares = [
        np.bincount(np.searchsorted(edges, values), minlength=bins) / len(values) for values in (expected, found)
    ]
    e, f = (np.maximum(share, 1e-6) for share in shares)
    return float(((f - e) * np.log(f / e)).sum())


def inputs() -> Any:
    return np.random.default_rng(1).normal(size=(ROWS, 2))


def test_a_sudden_shift_has_its_size_from_its_row_on():
    table = inputs()
    found = corrupt(table, CovariateShift(share=1, by=1.0, course=Sudden(20_000), columns=("0",)), seed=1)
    assert not found.mask()[:20_000].any()
    assert found.mask()[20_000:, 0].all()
    assert not found.mask()[:, 1].any()
    before, after = found.table[:20_000, 0], found.table[20_000:, 0]
    # Two normal distributions one standard deviation apart: 2 * Phi(1/2) - 1.
    assert stats.ks_2samp(before, after).statistic == pytest.approx(0.383, abs=0.02)
    # Of the same two, in the limit of fine bins, it is their symmetric divergence, 1.
    assert population_stability(before, after, 100) == pytest.approx(1.0, abs=0.08)
    assert population_stability(before, found.table[20_000:, 1]) < 0.01
    assert found.restored().tobytes() == table.tobytes()


def test_a_ramp_goes_up_evenly_and_stays():
    found = corrupt(np.zeros(ROWS), CovariateShift(share=1, by=4.0, course=Ramp(10_000, 30_000)), seed=1).table
    assert (found[:10_001] == 0).all()
    assert found[20_000] == 2.0
    assert np.allclose(np.diff(found[10_000:30_000]), 4 / 20_000)
    assert (found[30_000:] == 4).all()
    scaled = corrupt(np.ones(ROWS), CovariateShift(share=1, times=3.0, course=Ramp(0, 20_000)), seed=1).table
    assert scaled[10_000] == 2.0


def test_what_recurs_comes_in_its_time():
    course = Recurring(period_rows=7000, on_rows=2000, from_row=500)
    found = corrupt(np.zeros(ROWS), CovariateShift(share=1, by=1.0, course=course), seed=1).table
    rows = np.arange(ROWS)
    assert (found == ((rows >= 500) & ((rows - 500) % 7000 < 2000))).all()


@pytest.mark.parametrize("kind", ["numbers", "texts", "arrow"])
def test_concept_drift_changes_the_answer_to_the_same_inputs_where_it_says(kind):
    table = inputs()
    label = (table[:, 0] + table[:, 1] > 0).astype(int)
    frame = pd.DataFrame({"x": table[:, 0], "y": table[:, 1], "label": label})
    classes: Any = (0, 1)
    if kind != "numbers":
        classes, frame["label"] = ("no", "yes"), np.where(label, "yes", "no")
    given = pa.Table.from_pandas(frame) if kind == "arrow" else frame
    fault = ConceptDrift(
        share=1, columns=("label",), classes=classes, where=Where("x", at_least=1.0), course=Sudden(20_000)
    )
    found = corrupt(given, fault, seed=1)
    after = found.table.to_pandas() if kind == "arrow" else found.table
    wrong = (after["label"] != frame["label"]).to_numpy()
    assert (wrong == ((table[:, 0] >= 1) & (np.arange(ROWS) >= 20_000))).all()
    assert after[["x", "y"]].equals(frame[["x", "y"]])
    assert (found.mask()[:, 2] == wrong).all()


def test_on_a_ramp_a_growing_share_of_rows_follows_the_new_concept():
    fault = ConceptDrift(share=1, columns=("0",), classes=(0, 1, 2), course=Ramp(0, ROWS))
    found = corrupt(np.zeros(ROWS, int), fault, seed=1)
    assert set(found.table) == {0, 1}
    shares = found.table.reshape(4, -1).mean(axis=1)
    assert shares == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=0.02)


def test_benign_drift_moves_what_the_answer_does_not_depend_on():
    table = inputs()

    def answer(inputs: Any) -> Any:
        return inputs[:, 0] > 0.2

    found = corrupt(table, BenignDrift(share=1, by=3.0, course=Sudden(0), columns=("1",)), seed=1).table
    assert population_stability(table[:, 1], found[:, 1]) > 2
    assert (answer(found) == answer(table)).all()
    harmful = corrupt(table, CovariateShift(share=1, by=3.0, course=Sudden(0), columns=("0",)), seed=1).table
    assert (answer(harmful) != answer(table)).mean() > 0.4


@pytest.mark.parametrize("kind", ["numpy", "pandas", "arrow"])
def test_a_prior_shift_makes_labels_more_frequent_and_nothing_else(kind):
    table = inputs()
    label = (np.random.default_rng(2).random(ROWS) < 0.2).astype(float)
    table = np.column_stack([table[:, 0] + 2 * label, label])
    frame: Any = pd.DataFrame(table, columns=["x", "label"], index=[1] * ROWS)
    column: Any = "label"
    weights: Any = {1.0: 4.0}
    if kind == "numpy":
        frame, column = table, "1"
    elif kind == "arrow":
        frame = pa.table({"x": table[:, 0], "label": np.where(label > 0, "spam", "ham")})
        weights = {"spam": 4.0}
    fault = PriorShift(share=1, column=column, weights=weights, window_rows=1000, course=Sudden(20_000))
    found = corrupt(frame, fault, seed=1)
    if kind == "arrow":
        after = np.column_stack(
            [found.table["x"].to_numpy(), (found.table["label"].to_numpy(zero_copy_only=False) == "spam")]
        )
    else:
        after = np.asarray(found.table)
    assert len(after) == ROWS
    assert (after[:20_000] == table[:20_000]).all()
    shifted = after[20_000:]
    # Four times the odds of 0.2 to 0.8.
    assert shifted[:, 1].mean() == pytest.approx(0.5, abs=0.02)
    for value in (0, 1):
        old, new = table[table[:, 1] == value, 0], shifted[shifted[:, 1] == value, 0]
        assert stats.ks_2samp(old, np.unique(new)).pvalue > 1e-3
    back = found.restored()
    assert back.tobytes() == table.tobytes() if kind == "numpy" else back.equals(frame)
    halves = [
        corrupt(frame[:17_000] if kind != "arrow" else frame.slice(0, 17_000), fault, seed=1).table,
        corrupt(frame[17_000:] if kind != "arrow" else frame.slice(17_000), fault, seed=1, first_row=17_000).table,
    ]
    if kind == "numpy":
        assert np.concatenate(halves).tobytes() == after.tobytes()
    elif kind == "arrow":
        assert pa.concat_tables(halves).equals(found.table)
    else:
        assert pd.concat(halves).equals(found.table)


@pytest.mark.parametrize(
    "fault",
    [
        CovariateShift(share=0.5, by=1.0, times=2.0, course=Ramp(1000, 30_000)),
        ConceptDrift(share=0.5, columns=("0",), classes=(0, 1), course=Ramp(1000, 30_000)),
    ],
    ids=lambda fault: fault.name,
)
def test_drift_depends_on_absolute_rows_only(fault):
    rng, table = np.random.default_rng(3), np.random.default_rng(1).integers(0, 2, (ROWS, 2)).astype(float)
    whole = corrupt(table, fault, seed=9, first_row=555).table
    for _ in range(10):
        cuts = np.unique([0, ROWS, *rng.integers(0, ROWS, 5)])
        parts = [
            corrupt(table[a:b], fault, seed=9, first_row=555 + int(a)).table for a, b in itertools.pairwise(cuts)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    order = rng.permutation(ROWS)[:5000]
    assert corrupt(table[order], fault, seed=9, positions=order + 555).table.tobytes() == whole[order].tobytes()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sudden(-1), "at_row: -1"),
        (lambda: Ramp(-2, 5), "from_row: -2 is not a whole number of at least -1"),
        (lambda: Ramp(5, 5), "to_row: 5 is not a whole number of at least 6"),
        (lambda: Recurring(period_rows=5, on_rows=5), "period_rows: 5"),
        (lambda: CovariateShift(share=1, course=Sudden(1)), "changes nothing"),
        (lambda: CovariateShift(share=1, by=1, course="sudden"), "none of Sudden, Ramp and Recurring"),
        (
            lambda: BenignDrift(share=1, by=1, course=Sudden(1)),
            "name the columns that the answer",
        ),
        (lambda: ConceptDrift(share=1, classes=(0, 1), course=Sudden(1)), "name the column that holds the labels"),
        (
            lambda: PriorShift(share=1, column="0", weights={1: 1}, window_rows=9, course=Sudden(1)),
            "changes nothing",
        ),
        (lambda: PriorShift(share=1, column="0", weights={1: -1}, window_rows=9, course=Sudden(1)), "is below 0"),
        (
            lambda: corrupt(
                np.ones(9),
                PriorShift(share=1, column="z", weights={1: 2}, window_rows=9, course=Sudden(1)),
                seed=1,
            ),
            "no column 'z'",
        ),
    ],
)
def test_mistakes_are_reported(make, words):
    with pytest.raises(UsageError) as refusal:
        make()
    assert words in str(refusal.value)
