"""Corrupted tables: the same bytes however they are cut, a true mask, and every bit back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monkeyproof.errors import UsageError
from monkeyproof.faults.data import (
    BrokenEncoding,
    Duplicates,
    ExtraColumn,
    LabelNoise,
    LateRows,
    LostColumn,
    LostRows,
    Missing,
    Noise,
    Outlier,
    RenamedColumn,
    Scale,
    SignFlip,
    StaleRows,
    SwappedRows,
    TextColumn,
    TruncatedBatches,
    Typo,
    UnitChange,
    UnseenCategory,
    Where,
    Workspace,
    corrupt,
)

FAULTS = [
    Missing(share=0.3),
    Scale(share=0.3),
    Scale(share=1, low=1, high=1),
    Noise(share=0.3, sd=2),
    Noise(share=0.3, sd=0.1, relative=True),
    Outlier(share=0.3, unit=3),
    SignFlip(share=0.3),
    UnitChange(share=0.3, factor=1000),
    Scale(share=0.5, where=Where("0", at_least=0)),
    Missing(share=0.5, where=Where(at_most=0)),
    Noise(share=0.02, sd=1),
]


SEEDS = st.integers(-(2**70), 2**70)


FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)


TABLES = arrays(np.float64, st.tuples(st.integers(0, 40), st.integers(1, 9)), elements=FLOATS)


def a_table(rows: int, columns: int = 3, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(rows, columns)) * 10
    table[rng.random(table.shape) < 0.05] = np.nan
    table[rng.random(table.shape) < 0.05] = 0.0
    return table


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_thousand_ways_of_cutting_give_the_same_bytes(fault):
    """Some in another order, and some with the rows themselves shuffled: a hundred for each of eleven faults.

    Randomness has blocks of its own (8192 rows), whose ends are met in the table's middle.
    """
    rng, first = np.random.default_rng(7), 2**33 - 2500
    table = a_table(5000)
    whole = corrupt(table, fault, seed=9, first_row=first)
    mask = whole.mask()
    assert mask.sum() > 100
    for number in range(100):
        cuts = np.unique([0, len(table), *rng.integers(0, len(table), rng.integers(0, 12))])
        for at, end in rng.permutation(np.stack([cuts[:-1], cuts[1:]], axis=1)):
            if number % 4:
                part = corrupt(table[at:end], fault, seed=9, first_row=first + int(at))
                assert part.table.tobytes() == whole.table[at:end].tobytes()
                assert (part.mask() == mask[at:end]).all()
            else:
                order = rng.permutation(np.arange(at, end))
                part = corrupt(table[order], fault, seed=9, positions=order + first)
                assert part.table.tobytes() == whole.table[order].tobytes()
                assert (part.mask() == mask[order]).all()


@given(TABLES, SEEDS, st.sampled_from(FAULTS), st.sampled_from(FAULTS), st.booleans())
def test_the_mask_is_true_the_input_stays_and_every_bit_comes_back(table, seed, one, other, by_column):
    table = np.asfortranarray(table) if by_column else table
    before = table.copy()
    table.setflags(write=False)
    found = corrupt(table, [one, other], seed=seed)
    assert table.tobytes() == before.tobytes()
    same = found.table.view(np.uint64) == table.view(np.uint64)
    assert same[~found.mask()].all()
    assert found.restored().tobytes("A") == table.tobytes("A")
    alone = corrupt(table, one, seed=seed)
    changed, old = alone.table[alone.mask()], table[alone.mask()]
    assert not (changed == old).any()
    assert not np.isnan(old).any()
    assert np.isnan(changed).all() if one.name == "missing" else np.isfinite(changed).all()


def test_a_table_may_be_wide():
    table = a_table(700, 150)
    for fault in (Scale(share=0.3), Noise(share=0.01, sd=1), Missing(share=1)):
        found = corrupt(table, fault, seed=1, first_row=8000)
        cuts = ((0, 333), (333, 700))
        parts = [corrupt(table[start:end], fault, seed=1, first_row=8000 + start) for start, end in cuts]
        assert np.concatenate([part.table for part in parts]).tobytes() == found.table.tobytes()
        assert (np.concatenate([part.mask() for part in parts]) == found.mask()).all()
        assert found.mask().any(axis=0).all()
        assert found.restored().tobytes() == table.tobytes()
        one = corrupt(np.ascontiguousarray(table[:, :1]), fault, seed=1, first_row=8000)
        assert one.table[:, 0].tobytes() == found.table[:, 0].tobytes()


@pytest.mark.parametrize("by_column", [False, True])
def test_a_copy_can_be_put_where_the_last_one_was(by_column):
    table = np.asfortranarray(a_table(500)) if by_column else a_table(500)
    out = np.full_like(table, 7.0)
    for seed in (1, 2):
        found = corrupt(table, [Scale(share=0.3), Missing(share=0.1, columns=("1",))], seed=seed, out=out)
        assert found.table is out
        fresh = corrupt(table, [Scale(share=0.3), Missing(share=0.1, columns=("1",))], seed=seed)
        assert fresh.table.tobytes() == out.tobytes()
        assert found.restored().tobytes() == table.tobytes()


def bits_of(table: Any) -> list[bytes]:
    """Of the columns of floats; of Arrow's also beneath nulls."""
    if isinstance(table, pa.Table):
        return [
            np.frombuffer(part.buffers()[1], np.uint64).tobytes()
            for column in table.columns
            if column.type == pa.float64()
            for part in column.chunks
        ]
    if isinstance(table, pd.DataFrame):
        table = table.select_dtypes("float64").to_numpy()
    return [np.ascontiguousarray(column).tobytes() for column in table.T]


def test_a_room_is_used_again_by_tables_of_every_kind():
    room, array = Workspace(), a_table(3000)
    frame = pd.DataFrame(array, columns=list("abc"))
    tables = [array, frame, frame.assign(d="x"), np.asfortranarray(array), pa.Table.from_pandas(frame), array[:10]]
    for table in tables:
        faults = [
            Scale(share=0.2, columns=("0",) if isinstance(table, np.ndarray) else ("a",)),
            Missing(share=0.3),
        ]
        fresh, found = corrupt(table, faults, seed=2), corrupt(table, faults, seed=2, out=room)
        assert (found.mask() == fresh.mask()).all()
        for one, other in [(found.table, fresh.table), (found.restored(), table)]:
            assert one.tobytes() == other.tobytes() if isinstance(one, np.ndarray) else one.equals(other)


@pytest.mark.parametrize("kind", ["numpy", "pandas", "mixed", "arrow"])
def test_bits_that_compare_as_equal_come_back_too_and_what_is_given_stays(kind):
    """NaNs with payloads, both zeros."""
    odd = np.array([0x7FF8000000000123, 0xFFF0000000000001, 1 << 63, 0, 0x7FF0000000000000], np.uint64)
    table: Any = np.tile(odd.view(np.float64), (50, 1))
    table = np.roll(table.reshape(-1), 1).reshape(50, 5)
    if kind != "numpy":
        table = pd.DataFrame(table, columns=list("abcde"))
    if kind != "numpy" and kind != "pandas":
        table["f"] = "x"
    if kind == "arrow":
        table = pa.table({name: pa.array(table[name].to_numpy(), from_pandas=False) for name in table})
    before = bits_of(table)
    floats = ("0", "1", "2", "3", "4") if kind == "numpy" else tuple("abcde")
    faults = [Missing(share=0.5), Scale(share=0.9, columns=floats), SignFlip(share=0.9, columns=floats)]
    found = corrupt(table, faults, seed=1)
    assert found.mask().sum() > 50
    assert bits_of(found.table) != before
    assert bits_of(table) == before
    assert bits_of(found.restored()) == before


@pytest.mark.parametrize("dtype", ["f4", "f2", "i1", "u1", "i4", "i8", "u8", ">f8", ">i4"])
@pytest.mark.parametrize("fault", FAULTS[1:8], ids=lambda fault: fault.name)
def test_types_are_kept_and_numbers_stay_in_their_range(dtype, fault):
    rng = np.random.default_rng(3)
    table = rng.integers(0, 100, (400, 4)).astype(dtype)
    if table.dtype.kind in "iu":
        table[0], table[1] = np.iinfo(dtype).max, np.iinfo(dtype).min
    found = corrupt(table, fault, seed=2)
    assert found.table.dtype == table.dtype
    assert (found.table != table)[found.mask()].all()
    assert np.isfinite(found.table.astype(np.float64)).all()
    assert found.mask().sum() > 100
    assert found.restored().tobytes() == table.tobytes()


def test_pandas_keeps_its_types_index_and_names_and_copies():
    frame = pd.DataFrame(
        {
            "price": [1.5, np.nan, 3.0, 4.0] * 50,
            "count": pd.array([1, None, 3, 4] * 50, "Int64"),
            "plain": np.arange(200),
            "name": ["a", "b", None, "d"] * 50,
            "kind": pd.Categorical(["x", "y", "x", None] * 50),
            "when": pd.to_datetime(["2026-01-01", "2026-01-02", None, "2026-01-04"] * 50),
            "arrow": pd.array(["p", None, "q", "r"] * 50, pd.ArrowDtype(pa.string())),
        },
        index=[7] * 200,
    )
    frame.attrs["source"] = "till"
    frame.columns = [*frame.columns[:-1], "name"]
    before = frame.copy(deep=True)
    names = ("price", "count", "name", "kind", "when", "name#2")
    found = corrupt(
        frame, [Missing(share=0.4, columns=names), Scale(share=0.5, columns=("price", "plain"))], seed=4
    )
    pd.testing.assert_frame_equal(frame, before)
    assert list(found.table.dtypes) == list(frame.dtypes)
    assert list(found.table.columns) == list(frame.columns)
    assert (found.table.index == 7).all()
    assert found.table.attrs == {"source": "till"}
    mask, gone = found.mask(), found.table.isna().to_numpy() & frame.notna().to_numpy()
    for column in (1, 3, 4, 5, 6):
        assert 40 < mask[:, column].sum() < 110
        assert (mask[:, column] == gone[:, column]).all()
    pd.testing.assert_frame_equal(found.restored(), frame)
    one_type = pd.DataFrame(a_table(300), columns=list("abc"))
    as_frame, as_array = (
        corrupt(one_type, Scale(share=0.5), seed=1),
        corrupt(a_table(300), Scale(share=0.5), seed=1),
    )
    assert as_frame.table.shape == as_array.table.shape
    pd.testing.assert_frame_equal(as_frame.restored(), one_type)
    pd.testing.assert_frame_equal(one_type, pd.DataFrame(a_table(300), columns=list("abc")))


def test_a_column_is_known_by_its_name_whatever_stands_beside_it():
    frame = pd.DataFrame(a_table(500), columns=list("abc"))
    mixed = frame.assign(text="x")[["c", "text", "b", "a"]]
    batch = pa.RecordBatch.from_pandas(frame[["b", "a"]], preserve_index=False)
    fault = Noise(share=0.3, sd=1, columns=("b",))
    expected = corrupt(frame, fault, seed=5).table["b"].to_numpy()
    assert corrupt(mixed, fault, seed=5).table["b"].to_numpy().tobytes() == expected.tobytes()
    as_arrow = corrupt(batch, fault, seed=5).table.column("b").to_numpy(zero_copy_only=False)
    assert np.allclose(as_arrow, expected, rtol=0, atol=0, equal_nan=True)


def arrow_table() -> pa.Table:
    rng = np.random.default_rng(2)
    absent = rng.random(300) < 0.1
    return pa.table(
        {
            "number": pa.array(rng.normal(size=300), mask=absent),
            "whole": pa.array(rng.integers(0, 9, 300), pa.int16()),
            "text": pa.array([None if gone else f"t{n}" for n, gone in enumerate(absent)]),
            "flag": pa.array(rng.random(300) < 0.5, mask=absent),
            "kind": pa.array([f"k{n % 3}" for n in range(300)]).dictionary_encode(),
            "list": pa.array([[n, n + 1] if n % 5 else None for n in range(300)]),
            "record": pa.array([{"a": n} for n in range(300)]),
            "at": pa.array(rng.integers(0, 10**9, 300), pa.timestamp("us")),
        }
    ).replace_schema_metadata({"made": "here"})


def test_arrow_types_of_every_kind_go_missing_and_come_back():
    table = arrow_table()
    # Slices begin inside a byte of the validity bits, and chunks end anywhere.
    table = pa.concat_tables([table.slice(3, 77), table.slice(100, 1), table.slice(150)])
    faults = [Missing(share=0.3), Scale(share=0.5, columns=("number", "whole"))]
    found = corrupt(table, faults, seed=6, first_row=11)
    assert found.table.schema.equals(table.schema, check_metadata=True)
    found.table.validate(full=True)
    mask = found.mask()
    for column, name in enumerate(table.column_names):
        there = table.column(name).is_valid().to_numpy()
        still = found.table.column(name).is_valid().to_numpy()
        gone = there & ~still
        assert 30 < gone.sum() < 110
        assert not (still & ~there).any()
        assert mask[:, column][gone].all()
    assert found.restored().equals(table)
    again = corrupt(table.combine_chunks(), faults, seed=6, first_row=11).table
    assert again.equals(found.table)
    shared = corrupt(table, Missing(share=0.3), seed=6).table.column("number").chunk(0)
    assert shared.buffers()[1].address == table.column("number").chunk(0).buffers()[1].address


TEXTS = [
    Typo(share=0.4),
    UnseenCategory(share=0.4, values=("x", "y")),
    BrokenEncoding(share=0.4),
    LabelNoise(share=0.4, columns=("text",), classes=("spam", "ham", "Käse")),
]


def texts_of(table: Any) -> list[str | None]:
    found = table["text"].to_pylist() if isinstance(table, pa.Table) else table["text"].tolist()
    return [None if isinstance(one, float) else one for one in found]


@pytest.mark.parametrize("fault", TEXTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("kind", ["object", "str", "category", "arrow", "dictionary"])
def test_texts_of_every_kind_are_spoilt_alike_and_come_back(fault, kind):
    words = ["spam", "ham", "Käse", None] * 100
    plain = pd.DataFrame({"text": words}, dtype="object")
    table: Any = plain if kind in ("arrow", "dictionary") else plain.astype(kind)
    if kind in ("arrow", "dictionary"):
        table = pa.table({"text": pa.array(words)})
    if kind == "dictionary":
        table = pa.table({"text": pa.array(words).dictionary_encode()})
    found = corrupt(table, fault, seed=3, first_row=9)
    texts = texts_of(found.table)
    assert texts == texts_of(corrupt(plain, fault, seed=3, first_row=9).table)
    changed = [was != new for was, new in zip(words, texts, strict=True)]
    assert found.mask()[:, 0].tolist() == changed
    assert 80 < sum(changed) < 160
    assert [new for was, new in zip(words, texts, strict=True) if was is None] == [None] * 100
    assert found.restored().equals(table)
    rest = table.slice(137) if isinstance(table, pa.Table) else table[137:]
    assert texts_of(corrupt(rest, fault, seed=3, first_row=146).table) == texts[137:]
    if isinstance(table, pa.Table):
        assert found.table.schema.equals(table.schema)
    elif kind != "category":  # Its type is its list of categories, which grows.
        assert found.table.dtypes.equals(table.dtypes)


def test_labels_become_other_labels_each_as_often():
    labels = np.array([0, 1, 2, 7] * 5000)
    found = corrupt(labels, LabelNoise(share=0.5, columns=("0",), classes=(2, 0, 1)), seed=1)
    changed = found.mask()[:, 0]
    assert not changed[labels == 7].any()
    assert (found.table[changed] != labels[changed]).all()
    for label in (0, 1, 2):
        others = found.table[changed & (labels == label)]
        assert 2300 < len(others) < 2700
        assert sorted(set(others)) == [other for other in (0, 1, 2) if other != label]
        assert abs((others == others[0]).mean() - 0.5) < 0.05


MOVING = [
    Duplicates(share=0.2),
    LostRows(share=0.2),
    TruncatedBatches(share=0.5, window_rows=50, kept=0.6),
    LateRows(share=0.2, window_rows=50),
    SwappedRows(share=0.5, window_rows=50),
    StaleRows(share=0.3, window_rows=50),
]


@pytest.mark.parametrize("fault", MOVING, ids=lambda fault: fault.name)
@pytest.mark.parametrize("kind", ["numpy", "pandas", "batch", "table"])
def test_rows_move_alike_however_they_are_cut_and_come_back(fault, kind):
    frame = pd.DataFrame({"a": np.arange(1030.0), "b": np.arange(1030.0) % 7}, index=[3] * 1030)
    table: Any = frame
    if kind == "numpy":
        table = frame.to_numpy()
    elif kind != "pandas":
        table = pa.RecordBatch.from_pandas(frame, preserve_index=False)
        table = pa.Table.from_batches([table]) if kind == "table" else table
    cells = Scale(share=0.3)
    found = corrupt(table, [cells, fault, cells], seed=4, first_row=100)
    assert found.positions.count == len(found.table) == len(found.mask())
    source = found.positions.at(np.arange(len(found.table))).astype(int) - 100
    assert (source[:-1] != source[1:] - 1).sum() > 8
    assert found.restored().equals(table) if kind != "numpy" else (found.restored() == table).all()

    def rows_of(part: Any) -> list[Any]:
        found = part.to_pandas() if kind in ("batch", "table") else pd.DataFrame(part)
        return found.to_numpy().tolist()

    cut = 17 if fault.name in ("duplicates", "lost_rows") else 450
    ends = [
        corrupt(part, [cells, fault, cells], seed=4, first_row=first)
        for part, first in [
            (table[:cut] if kind in ("numpy", "pandas") else table.slice(0, cut), 100),
            (table[cut:] if kind in ("numpy", "pandas") else table.slice(cut), 100 + cut),
        ]
    ]
    assert rows_of(ends[0].table) + rows_of(ends[1].table) == rows_of(found.table)
    same = found.mask() | (np.array(rows_of(found.table)) == frame.to_numpy()[source])
    assert same.all()


SHAPES = [
    LostColumn(column="b"),
    RenamedColumn(column="b", to="B"),
    TextColumn(column="a"),
    ExtraColumn(column="d", like="b"),
]


@pytest.mark.parametrize("fault", SHAPES, ids=lambda fault: fault.name)
@pytest.mark.parametrize("kind", ["pandas", "table", "batch"])
def test_columns_are_lost_renamed_retyped_or_new_and_come_back(fault, kind):
    frame = pd.DataFrame({"a": np.arange(200.0), "b": np.arange(200), "c": list("xyzt") * 50}, index=[1] * 200)
    table: Any = frame
    if kind != "pandas":
        table = pa.Table.from_pandas(frame, preserve_index=False)
        table = table.to_batches()[0] if kind == "batch" else table
    after = [Duplicates(share=0.2), Scale(share=0.3, columns=("a",))] if fault.name != "text_column" else []
    found = corrupt(table, [Scale(share=0.3, columns=("a", "b")), fault, *after], seed=2)
    expected = {
        "lost_column": ["a", "c"],
        "renamed_column": ["a", "B", "c"],
        "text_column": ["a", "b", "c"],
        "extra_column": ["a", "b", "c", "d"],
    }[fault.name]
    names = list(found.table.columns) if kind == "pandas" else found.table.schema.names
    assert names == list(found.columns) == expected
    assert found.mask().shape == (len(found.table), len(expected))
    assert found.restored().equals(table)
    if fault.name == "text_column":
        assert found.mask()[:, 0].all()
        values = found.table["a"].tolist() if kind == "pandas" else found.table.column("a").to_pylist()
        assert all(isinstance(one, str) for one in values)
    if fault.name == "extra_column":
        assert found.mask()[:, 3].all()


def test_a_numpy_array_can_lose_a_column_and_no_more():
    table = a_table(100)
    found = corrupt(table, [Scale(share=0.5), LostColumn(column="1"), SignFlip(share=0.5)], seed=1)
    assert found.table.shape == found.mask().shape == (100, 2)
    assert found.restored().tobytes() == table.tobytes()


def test_a_condition_on_another_column_or_its_own():
    table = a_table(20_000, 2)
    given = corrupt(table, Missing(share=0.5, columns=("1",), where=Where("0", at_least=5)), seed=1).mask()
    own = corrupt(table, Missing(share=0.5, columns=("1",), where=Where(at_most=-5)), seed=1).mask()
    assert not given[:, 0].any()
    assert not given[~(table[:, 0] >= 5)].any()
    assert given[(table[:, 0] >= 5) & ~np.isnan(table[:, 1]), 1].mean() == pytest.approx(0.5, abs=0.03)
    assert not own[~(table[:, 1] <= -5)].any()
    assert own[table[:, 1] <= -5, 1].mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Scale(share=0), "share: 0 is not in (0, 1]"),
        (lambda: Scale(share=math.nan), "share: nan is not a finite number"),
        (lambda: Scale(share=1, low=11), "low: 11 is above high, 10"),
        (lambda: Scale(share=1, high=math.inf), "high: inf is not a finite number"),
        (lambda: Scale(share=1, low=-1.7e308, high=1.7e308), "too far apart"),
        (lambda: Noise(share=1, sd=0), "sd: 0 is not above 0"),
        (lambda: UnitChange(share=1, factor=1), "changes nothing"),
        (lambda: Missing(share=1, columns="a"), "is not a tuple of names"),
        (lambda: corrupt(np.ones(2), Scale(share=1), seed=1, out=np.ones(3)), "out: a writable array of float64"),
        (lambda: corrupt(np.ones((2, 2)), Scale(share=1), seed=1, out=np.ones((2, 2)).T), "in C order"),
        (
            lambda: corrupt(pd.DataFrame(), Scale(share=1), seed=1, out=np.ones(3)),
            "only the copy of a numpy array",
        ),
        (lambda: LostColumn(column=""), "is not the name of one"),
        (lambda: corrupt(np.ones(3), LostColumn(column="0"), seed=1), "cannot be lost"),
        (lambda: corrupt(np.ones((3, 2)), RenamedColumn(column="0", to="x"), seed=1), "called by their numbers"),
        (lambda: corrupt(pd.DataFrame({"a": [1]}), LostColumn(column="b"), seed=1), "no column 'b'; there are a"),
        (lambda: corrupt(pd.DataFrame({"a": [1]}), ExtraColumn(column="a", like="a"), seed=1), "'a' already"),
        (lambda: LateRows(share=1, window_rows=1), "window_rows: 1"),
        (lambda: corrupt(np.ones(9), LateRows(share=1, window_rows=4), seed=1, first_row=2), "cut at multiples"),
        (
            lambda: corrupt(np.ones(2), LateRows(share=1, window_rows=4), seed=1, positions=[1, 5]),
            "give first_row",
        ),
        (lambda: Where(at_least=2, at_most=1), "is above at_most"),
        (lambda: corrupt([[1.0]], Scale(share=1), seed=1), "a list is no table"),
        (lambda: corrupt(np.ones((2, 2, 2)), Scale(share=1), seed=1), "is no table"),
        (lambda: corrupt(np.array(["a"]), Scale(share=1), seed=1), "holds no numbers"),
        (lambda: corrupt(np.ones(2), Scale(share=1), seed=1, first_row=-1), "first_row: -1"),
        (lambda: corrupt(np.ones(2), Scale(share=1), seed=1, positions=[1]), "2 rows need as many"),
        (lambda: corrupt(np.ones(2), Scale(share=1), seed=1, positions=[1, -1]), "not in 0 to"),
        (lambda: corrupt(np.ones(2), Scale(share=1), seed=1, positions=[0.5, 1]), "whole numbers"),
        (
            lambda: corrupt(np.ones((2, 2)), Scale(share=1, columns=("2",)), seed=1),
            "no column '2'; there are 0, 1",
        ),
        (lambda: corrupt(np.ones((2, 2), int), Missing(share=1), seed=1), "int64 cannot hold a missing value"),
        (
            lambda: corrupt(pd.DataFrame({"a": ["x"]}), Scale(share=1, columns=("a",)), seed=1),
            "cannot change column 'a'",
        ),
    ],
)
def test_mistakes_are_reported(make, words):
    with pytest.raises(UsageError) as refusal:
        make()
    assert words in str(refusal.value)
