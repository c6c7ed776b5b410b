"""Which cells and rows of a table are hit, and by how much: independent, as often as said, distributed as said."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkeyproof.faults.corruption.cell_selection import CellSelection, gaps_of
from monkeyproof.faults.corruption.random import Rows, draws_at, key_of
from monkeyproof.faults.data import (
    Duplicates,
    LateRows,
    LostRows,
    Scale,
    StaleRows,
    SwappedRows,
    TruncatedBatches,
    corrupt,
)

SEEDS = st.integers(-(2**70), 2**70)


def test_what_each_does_to_the_rows():
    table = np.arange(10_000)

    def after(fault: Any) -> Any:
        return corrupt(table, fault, seed=1).table

    twice = np.bincount(after(Duplicates(share=0.2)))
    assert set(twice) == {1, 2}
    assert abs((twice == 2).mean() - 0.2) < 0.03
    assert abs(len(after(LostRows(share=0.2))) - 8000) < 250
    cut = after(TruncatedBatches(share=0.5, window_rows=100, kept=0.7)).reshape(-1, 1)
    lengths = np.bincount(cut[:, 0] // 100)
    assert set(lengths) == {70, 100}
    assert 30 < (lengths == 70).sum() < 70
    late = after(LateRows(share=0.1, window_rows=100)).reshape(-1, 100)
    assert (np.sort(late, axis=1) == table.reshape(-1, 100)).all()
    assert ((np.diff(late, axis=1) < 0).sum(axis=1) <= 1).all()
    swapped = after(SwappedRows(share=0.5, window_rows=100)).reshape(-1, 100)
    assert (np.sort(swapped, axis=1) == table.reshape(-1, 100)).all()
    assert 0.4 < (swapped != table.reshape(-1, 100)).mean() < 0.5
    stale = after(StaleRows(share=0.3, window_rows=100)).reshape(-1, 100)
    assert (np.where(stale % 100 == 0, stale // 100 * 100, stale) == stale).all()
    assert abs((stale != table.reshape(-1, 100)).mean() - 0.3) < 0.03


@settings(max_examples=30)
@given(SEEDS, st.floats(0.001, 0.999))
def test_the_share_is_met_within_the_binomial_error(seed, share):
    found = corrupt(np.ones((50_000, 2)), Scale(share=share), seed=seed).mask()
    for hits in found.sum(axis=0):
        assert abs(hits - 50_000 * share) < 6 * math.sqrt(50_000 * share * (1 - share)) + 1


def test_cells_columns_faults_and_seeds_are_independent():
    ones = np.ones((200_000, 2))
    fault = Scale(share=0.5)
    found = corrupt(ones, [fault, fault], seed=5)
    first, second = (applied.parts[0].mask() for applied in found.applied)
    other = corrupt(ones, fault, seed=6).mask()
    for one, two in [
        (first[:, 0], first[:, 1]),
        (first[:, 0], second[:, 0]),
        (first[:, 0], other[:, 0]),
        (first[:-1, 0], first[1:, 0]),
        (first[:-8, 0], first[8:, 0]),
    ]:
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.012
    both = corrupt(ones, fault, seed=5).table
    hit_in_both = first.all(axis=1)
    assert abs(np.corrcoef(both[hit_in_both].T)[0, 1]) < 0.02


@pytest.mark.parametrize("share", [1e-9, 0.03, 0.1, 0.5, 0.97, 1.0])
def test_the_gaps_between_hits_are_geometric_to_the_last_bit_that_a_float_has(share):
    gaps = gaps_of(share)
    by_table = np.bincount(gaps.table, minlength=len(gaps.rest) + 1) / 2**16
    left = np.diff(np.concatenate([[0.0], gaps.rest.astype(float)])) / 2**64
    gap = np.arange(1, len(left) + 1)
    found = by_table[1 : len(gap) + 1] + by_table[0] * left
    assert np.abs(found - gaps.share * (1 - gaps.share) ** (gap - 1)).max() < 1e-15
    assert (found * gap).sum() * gaps.share == pytest.approx(1, abs=1e-12)
    assert gaps.share * gaps.keep == pytest.approx(share, rel=1e-15)


@pytest.mark.parametrize("share", [0.003, 0.1, 0.6])
def test_hits_follow_one_another_as_if_each_row_were_asked_by_itself(share):
    """Gaps across the ends of blocks as well; and in every row of a block, hits are as many."""
    from scipy import stats

    rows = 2_000_000
    hit = CellSelection([key_of(5, "x", "y")], share, Rows(rows, 2**40 + 77)).mask(0, rows)[0]
    assert stats.binomtest(int(hit.sum()), rows, share).pvalue > 1e-4
    gaps = np.diff(np.flatnonzero(hit))
    most = int(np.log(100 / len(gaps)) / np.log1p(-share)) if share < 0.5 else 8
    counts = np.bincount(np.minimum(gaps, most))[1:]
    expected = len(gaps) * stats.geom.pmf(np.arange(1, most), share)
    assert stats.chisquare(counts, [*expected, len(gaps) - expected.sum()]).pvalue > 1e-4
    place = (np.flatnonzero(hit) + 77) % 8192
    assert stats.kstest(place / 8192, "uniform").pvalue > 1e-4


def test_what_is_drawn_is_distributed_as_it_says():
    from scipy import stats

    draws = draws_at(key_of(1, "x", "y"), Rows(200_000), np.arange(200_000))
    assert stats.kstest(draws.uniform(1), "uniform").pvalue > 1e-3
    assert stats.kstest(draws.normal(2), "norm").pvalue > 1e-3
    assert np.abs(stats.norm.ppf(draws.uniform(3)) - draws.normal(3)).max() < 1e-5
    assert abs(np.corrcoef(draws.uniform(1), draws.uniform(2))[0, 1]) < 0.01
    factors = corrupt(np.ones((100_000, 2)), Scale(share=0.5), seed=5)
    changed = factors.table[factors.mask()]
    assert stats.kstest(changed, "uniform", args=(-10, 20)).pvalue > 1e-3


def test_known_answers():
    """Stored seeds must keep their meaning."""
    keys = [key_of(1, "scale#0", "0")]
    assert CellSelection(keys, 0.3, Rows(40)).mask(0, 40)[0].nonzero()[0].tolist() == KNOWN_HITS
    assert corrupt(np.ones((3, 2)), Scale(share=0.7, low=0, high=1), seed=1, first_row=10).table.tolist() == KNOWN


KNOWN_HITS = [1, 2, 13, 14, 15, 16, 17, 29, 36, 39]


KNOWN = [[1.0, 1.0], [1.0, 1.0], [1.0, 0.3603790136480063]]
