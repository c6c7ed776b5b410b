"""What numba compiles gives numpy's bytes: table, mask, way back."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkeyproof.errors import UsageError
from monkeyproof.faults.data import LostRows, Missing, Noise, Scale, Where, Workspace, corrupt

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None,
    reason="numba is not installed (extra 'fast'); then: pytest tests/faults/corruption/test_numba_engine.py",
)

FAULTS = [
    Missing(share=0.1),
    Missing(share=1),
    Missing(share=0.01),  # Thinned out: handed on to numpy.
    Scale(share=0.1),
    Scale(share=0.7, low=0, high=0),
    Scale(share=0.5, low=1, high=1),
    Scale(share=1, low=-1e200, high=1e200),
    Scale(share=0.2, columns=("0",)),
    Scale(share=0.5, where=Where("0", at_least=0)),
    Noise(share=0.1, sd=2),
]
ODD = np.array([0, 1 << 63, 0x7FF8000000000123, 0xFFF0000000000001, 0x7FF0000000000000, 1, 0x7FEFFFFFFFFFFFFF])


@needs_numba
@settings(max_examples=60, deadline=None)  # The first one compiles.
@given(
    st.sampled_from(FAULTS),
    st.integers(-(2**70), 2**70),
    st.sampled_from([(0, 3), (1, 1), (7, 20), (9000, 3), (20_000, 1), (30_000, 2), (4, 300)]),
    st.one_of(st.integers(0, 20_000), st.integers(0, 2**60)),
    st.sampled_from(["C", "F", "slice", "batch", "frame"]),
)
def test_the_same_bytes(fault, seed, shape, first_row, kind):
    rng = np.random.default_rng(1)
    table = rng.normal(size=shape) * 1e3
    odd = rng.random(shape) < 0.05
    table[odd] = rng.choice(ODD.astype(np.uint64).view(np.float64), int(odd.sum()))
    if kind == "F":
        table = np.asfortranarray(table)
    elif kind == "slice":
        table = np.repeat(table, 2, axis=0)[::2]
    given_table = table
    if kind == "batch" and shape[1] < 50:
        given_table = pa.RecordBatch.from_arrays(list(table.T), [str(n) for n in range(shape[1])])
    elif kind == "frame" and shape[1] < 50:
        given_table = pd.DataFrame(table, columns=[str(n) for n in range(shape[1])])
    plain, fast = (
        corrupt(given_table, fault, seed=seed, first_row=first_row, engine=e) for e in ("numpy", "numba")
    )
    assert bytes_of(plain.table) == bytes_of(fast.table)
    assert (plain.mask() == fast.mask()).all()
    assert bytes_of(fast.restored()) == bytes_of(given_table)
    assert plain.applied[0].cells_count == fast.applied[0].cells_count


def bytes_of(table: object) -> bytes:
    if isinstance(table, pa.RecordBatch):
        # With its nulls, and what lies beneath them.
        columns = table.columns
        return b"".join(one.is_valid().to_numpy(zero_copy_only=False).tobytes() for one in columns) + b"".join(
            np.frombuffer(one.buffers()[1], np.float64, len(one)).tobytes() for one in columns if len(one)
        )
    return np.ascontiguousarray(table).tobytes()


@needs_numba
def test_threads_share_a_large_table_and_a_room_is_used_again():
    table, room = np.random.default_rng(1).normal(size=(450_003, 5)), Workspace()
    for fault in ([Scale(share=0.3), LostRows(share=0.1), Missing(share=0.3)], [Missing(share=0.5)]):
        fast = corrupt(table, fault, seed=3, first_row=5, engine="numba", out=room)
        plain = corrupt(table, fault, seed=3, first_row=5)
        assert len(fast.applied[0].parts) == 1 or len(fast.applied[0].parts) > len(plain.applied[0].parts)
        assert fast.table.tobytes() == plain.table.tobytes()
        assert (fast.mask() == plain.mask()).all()
        assert fast.restored().tobytes() == table.tobytes()


def test_missing_engines_are_reported(monkeypatch):
    with pytest.raises(UsageError, match="'cuda' is neither numpy nor numba"):
        corrupt(np.ones(3), Missing(share=1), seed=1, engine="cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="numba is not installed; get it with monkeyproof's extra 'fast'"):
        corrupt(np.ones(3), Missing(share=1), seed=1, engine="numba")
