"""Corrupting cells: decided by seed, column and absolute position alone, and never silently."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monkeyproof.errors import UsageError
from monkeyproof.faults.data import scale_cells
from monkeyproof.faults.toxics import splitmix64, uniform

FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)
TABLES = arrays(np.float64, st.tuples(st.integers(0, 40), st.integers(1, 9)), elements=FLOATS)
SEEDS = st.integers(0, 2**64 - 1)
BOUNDS = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(sorted)


@given(TABLES, SEEDS, BOUNDS, st.integers(0, 2**60), st.lists(st.integers(1, 9), max_size=8), st.floats(0.01, 1))
def test_any_way_of_cutting_gives_the_same_bytes(table, seed, bounds, first, sizes, share):
    options = {"share": share, "low": bounds[0], "high": bounds[1], "seed": seed}
    whole = scale_cells(table, first, **options)
    at, parts = 0, []
    for size in [*sizes, len(table)]:
        parts.append(scale_cells(table[at : at + size], first + at, **options))
        at += size
    assert np.concatenate([part.values for part in parts]).tobytes() == whole.values.tobytes()
    assert np.concatenate([part.mask for part in parts]).tobytes() == whole.mask.tobytes()
    order = np.random.default_rng(seed).permutation(len(table))
    shuffled = scale_cells(table[order], positions=first + order.astype(np.uint64), **options)
    assert shuffled.values.tobytes() == whole.values[order].tobytes()


@given(TABLES, SEEDS, BOUNDS, st.floats(0.01, 1))
def test_the_mask_is_true_and_the_input_stays(table, seed, bounds, share):
    before = table.copy()
    table.setflags(write=False)
    found = scale_cells(table, share=share, low=bounds[0], high=bounds[1], seed=seed)
    assert table.tobytes() == before.tobytes()
    assert found.values.shape == found.mask.shape == table.shape
    assert (found.values[~found.mask]).tobytes() == (table[~found.mask]).tobytes()
    changed, old = found.values[found.mask], table[found.mask]
    assert np.isfinite(changed).all()
    assert (changed != old).all()


def test_one_that_changes_nothing_becomes_an_offset():
    found = scale_cells(np.full((50, 2), 4.0), share=1, low=1, high=1, seed=1)
    assert (found.values == 5.0).all()
    zeros = scale_cells(np.zeros((500, 2)), share=1, low=-10, high=10, seed=1).values
    assert (zeros != 0).all()
    assert (abs(zeros) <= 10).all()
    assert len(np.unique(zeros)) > 900


@settings(max_examples=30)
@given(SEEDS, st.floats(0.02, 0.98))
def test_the_share_is_met_within_the_binomial_error(seed, share):
    found = scale_cells(np.ones((20_000, 3)), share=share, low=-10, high=10, seed=seed)
    for hits in found.mask.sum(axis=0):
        assert abs(hits - 20_000 * share) < 6 * math.sqrt(20_000 * share * (1 - share))


def test_factors_are_uniform_and_columns_and_seeds_independent():
    found = scale_cells(np.ones((100_000, 2)), share=0.5, low=-10, high=10, seed=5)
    factors = found.values[found.mask]
    assert abs(factors.mean()) < 0.2
    assert abs(factors.std() - 20 / math.sqrt(12)) < 0.1
    assert -10 <= factors.min() < -9.99 < 9.99 < factors.max() <= 10
    other = scale_cells(np.ones((100_000, 2)), share=0.5, low=-10, high=10, seed=6)
    for one, two in [(found.mask[:, 0], found.mask[:, 1]), (found.mask[:, 0], other.mask[:, 0])]:
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.02
    row_pairs = np.corrcoef(found.mask[:-1, 0], found.mask[1:, 0])[0, 1]
    assert abs(row_pairs) < 0.02


def test_known_answers():
    """The generator is SplitMix64 as published, and stays what it is: stored seeds must keep their meaning."""
    assert splitmix64(1234567) == 6457827717110365317
    assert uniform(1, 2, 3) == 0.16492819262929692
    found = scale_cells(np.ones((4, 2)), 10, share=0.5, low=0, high=1, seed=1)
    assert found.values.tolist() == [
        [1.0, 0.17172553335008167],
        [0.13860356646678407, 1.0],
        [1.0, 1.0],
        [0.16615757697229028, 0.25065823810718213],
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"share": 0}, "share: 0 is not in (0, 1]"),
        ({"share": 1.5}, "share: 1.5 is not in (0, 1]"),
        ({"share": math.nan}, "share: nan is not a finite number"),
        ({"low": 11}, "low: 11 is above high, 10"),
        ({"high": math.inf}, "high: inf is not a finite number"),
        ({"low": "1"}, "low: '1' is not a finite number"),
        ({"low": -1.7e308, "high": 1.7e308}, "too far apart"),
        ({"values": [1.0]}, "(n, d)"),
        ({"positions": [1]}, "2 rows need as many positions"),
        ({"first_position": -1}, "never negative"),
    ],
)
def test_wrong_parameters_are_refused_in_words(change, words):
    arguments = {"values": [[1.0], [2.0]], "share": 0.1, "low": -10, "high": 10, "seed": 1, **change}
    with pytest.raises(UsageError) as refusal:
        scale_cells(**arguments)
    assert words in str(refusal.value)
