"""Values in the wrong place: true mask, the same however the table is cut, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from monkeyproof.errors import UsageError
from monkeyproof.faults.data import Scale, SwappedColumns, SwappedValues, corrupt


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    found = pd.DataFrame({"a": rng.normal(size=1030), "b": rng.normal(size=1030), "c": rng.normal(size=1030)})
    found.iloc[5:400:7, 0] = np.nan
    # A NaN with a payload of its own.
    found.iloc[9, 1] = np.array([0x7FF8000000000123], np.uint64).view(np.float64)[0]
    found.index = pd.Index([3] * 1030)
    return found


def as_kind(kind: str) -> Any:
    table = frame()
    if kind == "numpy":
        return table.to_numpy(copy=True)
    if kind == "mixed":
        return table.assign(x=["u", "v", None, "w", "ü"] * 206, y=["p", "q"] * 515)
    if kind == "category":
        return table.assign(x=pd.Categorical(["u", "v"] * 515), y=pd.Categorical(["v", "u"] * 515))
    if kind in ("table", "batch"):
        table = table.assign(x=["u", "v", None, "w", "ü"] * 206, y=["p", "q"] * 515)
        whole = pa.Table.from_pandas(table, preserve_index=False)
        return whole if kind == "table" else whole.to_batches()[0]
    return table


def cells_of(table: Any) -> np.ndarray:
    if isinstance(table, pa.Table | pa.RecordBatch):
        table = table.to_pandas()
    return pd.DataFrame(table).astype(object).to_numpy()


def part_of(table: Any, start: int, end: int) -> Any:
    return table.slice(start, end - start) if isinstance(table, pa.Table | pa.RecordBatch) else table[start:end]


def same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one == other) | (pd.isna(one) & pd.isna(other))


KINDS = ["numpy", "pandas", "mixed", "category", "table", "batch"]
SWAPS = [
    lambda names: SwappedColumns(share=0.4, columns=names[:2]),
    lambda names: SwappedColumns(share=1, columns=names[:2]),
    lambda names: SwappedValues(share=0.5, columns=names, window_rows=50),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", SWAPS, ids=["columns", "whole columns", "values"])
@pytest.mark.parametrize("last", [False, True])
def test_values_change_places_however_the_table_is_cut_and_come_back(kind, make, last):
    table = as_kind(kind)
    if last and kind in ("numpy", "pandas"):
        table = np.asfortranarray(table) if kind == "numpy" else table
    names = ("0", "1") if kind == "numpy" else ("x", "y") if last and kind not in ("pandas",) else ("a", "b")
    at = {"0": 0, "1": 1, "a": 0, "b": 1, "x": 3, "y": 4}
    fault = make(names)
    found = corrupt(table, fault, seed=4, first_row=100)
    before, after, mask = cells_of(table), cells_of(found.table), found.mask()
    assert (same(before, after) == ~mask).all()
    assert mask.sum() > 60
    assert not np.delete(mask, [at[name] for name in names], axis=1).any()
    if isinstance(fault, SwappedColumns):
        one, other = (at[name] for name in names)
        moved = mask[:, [one, other]].any(axis=1)
        assert same(after[moved, one], before[moved, other]).all()
        assert same(after[moved, other], before[moved, one]).all()
        assert moved.mean() == pytest.approx(fault.share, abs=0.06 if kind != "category" else 1)
    else:
        for name in names:
            for window in range(0, 1000, 50):
                assert sorted(map(str, before[window : window + 50, at[name]])) == sorted(
                    map(str, after[window : window + 50, at[name]])
                )
        assert not mask[1000:].any()
    parts = [
        corrupt(part_of(table, *cut), fault, seed=4, first_row=100 + cut[0]) for cut in ((0, 450), (450, 1030))
    ]
    assert same(np.concatenate([cells_of(part.table) for part in parts]), after).all()
    assert found.restored().equals(table) if kind != "numpy" else found.restored().tobytes() == table.tobytes()
    chained = corrupt(table, [Scale(share=0.5, columns=names), fault] if names[0] in "0a" else fault, seed=1)
    back = chained.restored()
    assert back.equals(table) if kind != "numpy" else back.tobytes() == table.tobytes()
    if kind not in ("numpy", "table", "batch"):
        assert (found.table.dtypes == table.dtypes).all()
        assert (found.table.index == table.index).all()
    elif kind != "numpy":
        assert found.table.schema.equals(table.schema)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SwappedColumns(share=0.1, columns=("a",)), "are not two"),
        (lambda: SwappedColumns(share=0.1, columns=("a", "a")), "different columns"),
        (lambda: SwappedColumns(share=2, columns=("a", "b")), "share: 2"),
        (lambda: SwappedValues(share=0.1, columns=("a",), window_rows=1), "window_rows: 1"),
        (lambda: SwappedValues(share=0.1, columns=(), window_rows=5), "one or more"),
        (
            lambda: corrupt(as_kind("mixed"), SwappedColumns(share=0.1, columns=("a", "x")), seed=1),
            "columns of one type",
        ),
        (
            lambda: corrupt(as_kind("mixed"), SwappedColumns(share=0.1, columns=("a", "z")), seed=1),
            "no column 'z'",
        ),
    ],
)
def test_mistakes_are_reported(make, words):
    with pytest.raises(UsageError) as refusal:
        make()
    assert words in str(refusal.value)
