"""Another engine cuts, orders and shares out the batches; the bytes are those of one pass."""

from __future__ import annotations

import importlib.util
import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from monkeyproof.errors import UsageError
from monkeyproof.faults.data import CorruptBatch, LateRows, LostRows, Missing, Scale, Typo, corrupt

ROWS = 20_000
FAULTS = (Scale(share=0.2, columns=("a", "b")), Missing(share=0.1), Typo(share=0.1, columns=("text",)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of five files of different sizes, whose rows one process numbered while it wrote them."""
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "row": np.arange(ROWS),
            "a": rng.normal(size=ROWS),
            "b": rng.normal(size=ROWS),
            "text": [f"text {n % 7}" for n in range(ROWS)],
        }
    )
    cuts = [0, 10, 4000, 4001, 15_000, ROWS]
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        pq.write_table(table.slice(start, end - start), tmp_path / f"part-{number}.parquet", row_group_size=3000)
    return tmp_path


def one_pass(folder: Path, faults: object = FAULTS) -> pa.Table:
    table = pq.read_table(folder)
    return corrupt(table.drop_columns(["row"]), faults, seed=3).table


def test_batches_in_any_order_give_the_bytes_of_one_pass(folder):
    work = pickle.loads(pickle.dumps(CorruptBatch(FAULTS, seed=3)))  # noqa: S301
    batches = list(pyarrow.dataset.dataset(folder).to_batches(batch_size=777))
    order = np.random.default_rng(2).permutation(len(batches))
    found = pa.concat_tables([work(pa.Table.from_batches([batches[at]])) for at in order]).sort_by("row")
    assert found.column("row").to_pylist() == list(range(ROWS))
    assert found.drop_columns(["row"]).combine_chunks().equals(one_pass(folder).combine_chunks())
    shuffled = pq.read_table(folder).take(np.random.default_rng(3).permutation(ROWS))
    found = work(shuffled).sort_by("row")
    assert found.drop_columns(["row"]).combine_chunks().equals(one_pass(folder).combine_chunks())


def test_rows_that_are_lost_or_moved_say_where_they_came_from(folder):
    table = pq.read_table(folder)
    lost = CorruptBatch(LostRows(share=0.3), seed=3)(table)
    assert lost.num_rows < 0.8 * ROWS
    assert lost.equals(table.take(lost.column("row")))
    late = CorruptBatch([LateRows(share=0.3, window_rows=100)], seed=3)(table.slice(500, 5000))
    assert late.column("row").to_pylist() != list(range(500, 5500))
    assert late.equals(table.take(late.column("row")))
    with pytest.raises(UsageError, match="cuts a window of 100"):
        CorruptBatch(LateRows(share=0.3, window_rows=100), seed=3)(table.slice(510, 5000))


def test_rows_without_numbers_are_reported(folder):
    table = pq.read_table(folder)
    with pytest.raises(UsageError, match="no column 'id' that numbers the rows; there are row, a, b, text"):
        CorruptBatch(FAULTS, seed=3, row_column="id")(table)
    with pytest.raises(UsageError, match="whole numbers are needed, not float64"):
        CorruptBatch(Missing(share=0.1), seed=3, row_column="a")(table)
    with pytest.raises(UsageError, match="does not have the number of every row"):
        CorruptBatch(FAULTS, seed=3)(table.set_column(0, "row", pa.nulls(ROWS, pa.int64())))


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="ray is not installed (extra 'ray'); then: pytest tests/faults/corruption/test_batches.py -k ray",
)
def test_ray_data_gives_the_bytes_of_one_pass(folder, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        logging_level="ERROR",
        object_store_memory=100 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    try:
        rows = ray.data.read_parquet(str(folder), override_num_blocks=4)
        corrupted = rows.map_batches(CorruptBatch(FAULTS, seed=3), batch_format="pyarrow", batch_size=1234)
        found = pa.concat_tables(ray.get(corrupted.to_arrow_refs())).sort_by("row")
    finally:
        ray.shutdown()
    assert found.drop_columns(["row"]).combine_chunks().equals(one_pass(folder).combine_chunks())


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[3] / "docs" / "faults" / "data-engine.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102
    assert len(list(tmp_path.glob("*.parquet"))) == 2
