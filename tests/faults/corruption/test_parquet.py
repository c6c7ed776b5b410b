"""Parquet files, corrupted a piece at a time, by one process or several."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.parquet import corrupt_parquet
from monkeyproof.faults.data import ExtraColumn, LostColumn, LostRows, Missing, Scale, corrupt

FAULTS = [Scale(share=0.2, columns=("a", "b")), Missing(share=0.1)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "a": rng.normal(size=10_000),
            "b": pa.array(rng.integers(0, 100, 10_000), pa.int32()),
            "text": pa.array([f"t{n % 7}" for n in range(10_000)]).dictionary_encode(),
        }
    ).replace_schema_metadata({"made": "here"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=3000, compression="zstd")
    return tmp_path / "in.parquet"


@pytest.mark.parametrize("batch_rows", [77, 4096, 100_000])
def test_a_file_comes_out_the_same_however_it_is_read(source, tmp_path, batch_rows):
    to = tmp_path / "out.parquet"
    written = corrupt_parquet(source, to, FAULTS, seed=3, first_row=5, batch_rows=batch_rows)
    table = pq.read_table(source)
    expected = corrupt(table, FAULTS, seed=3, first_row=5)
    assert pq.read_table(to).equals(expected.table)
    assert written.rows_count == 10_000
    assert written.cells_count == sum(applied.cells_count for applied in expected.applied) > 6000
    before, after = pq.ParquetFile(source), pq.ParquetFile(to)
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    assert after.num_row_groups == before.num_row_groups == 4
    for group in range(4):
        assert after.metadata.row_group(group).num_rows == before.metadata.row_group(group).num_rows
        assert after.metadata.row_group(group).column(0).compression == "ZSTD"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def test_rows_and_columns_can_be_lost_as_well(source, tmp_path):
    faults = [LostRows(share=0.3), LostColumn(column="b"), ExtraColumn(column="c", like="text"), FAULTS[1]]
    written = corrupt_parquet(source, tmp_path / "out.parquet", faults, seed=3, batch_rows=1000)
    expected = corrupt(pq.read_table(source), faults, seed=3).table
    assert pq.read_table(tmp_path / "out.parquet").equals(expected)
    assert expected.schema.names == ["a", "text", "c"]
    assert written.rows_count == 10_000


def part_of(first: int, end: int) -> bytes:
    table = np.random.default_rng(1).normal(size=(20_000, 4))
    return corrupt(
        table[first:end], [Scale(share=0.3), Missing(share=0.1)], seed=8, first_row=first
    ).table.tobytes()


def test_two_processes_write_what_one_writes():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(part_of, [0, 7001], [7001, 20_000]))
    assert b"".join(parts) == part_of(0, 20_000)


def test_what_goes_wrong_leaves_nothing_behind(source, tmp_path):
    to = tmp_path / "out.parquet"
    to.write_text("as it was")
    with pytest.raises(UsageError, match="no column 'c'"):
        corrupt_parquet(source, to, Scale(share=0.1, columns=("c",)), seed=1)
    with pytest.raises(UsageError, match="is the file that is read"):
        corrupt_parquet(source, source, FAULTS, seed=1)
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        corrupt_parquet(to, tmp_path / "other.parquet", FAULTS, seed=1)
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        corrupt_parquet(tmp_path / "none.parquet", tmp_path / "other.parquet", FAULTS, seed=1)
    assert to.read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


MEMORY = """
from pathlib import Path
import numpy as np
def peak_bytes():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
from monkeyproof.faults.data import {fault}, corrupt
table = np.random.default_rng(1).normal(size=(400_000, 20))
corrupt(table[:1000], {fault}(share=0.1), seed=1)
before = peak_bytes()
found = corrupt(table, {fault}(share=0.1), seed=1)
print(peak_bytes() - before, found.applied[0].cells_count)
"""


@pytest.mark.parametrize("fault", ["Missing", "Scale"])
def test_memory_is_that_of_the_copy_the_mask_and_the_journal(fault):
    found = subprocess.run(
        [sys.executable, "-c", MEMORY.format(fault=fault)], capture_output=True, text=True, check=True
    )
    extra_bytes, cells_count = map(int, found.stdout.split())
    copy_bytes = 400_000 * 20 * 8
    assert copy_bytes < extra_bytes < 1.05 * copy_bytes + 400_000 * 20 / 8 + 16 * cells_count
