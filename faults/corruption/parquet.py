"""Corrupts Parquet files one row group at a time: a row group has to fit into memory, the file need not."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.table_adapter import CellsChanged
from monkeyproof.faults.corruption.tables import Fault, corrupt

BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class CopyCounts:
    """Counts of a corrupted copy."""

    rows_count: int
    """Rows read."""
    cells_count: int
    """Cells changed, counted once for each fault that changed them."""


def corrupt_parquet(
    source: Path | str,
    to: Path | str,
    faults: Fault | Sequence[Fault],
    *,
    seed: int,
    first_row: int = 0,
    batch_rows: int = BATCH_ROWS,
) -> CopyCounts:
    """Write a corrupted copy of a Parquet file: same schema, metadata, compression and row groups.

    The same bytes of data come of any ``batch_rows``. ``to`` is there when all of it is, or not at all. It takes
    memory for one row group, two to three times over, and some 200 MiB besides: a group is written in one piece.

    Raises:
        UsageError: ``source`` is no Parquet file, is ``to`` itself, or a fault cannot change what it holds.
    """
    source, to = Path(source), Path(to)
    if to.exists() and source.exists() and to.samefile(source):
        raise UsageError(f"{to}: is the file that is read; nothing is corrupted in place")
    every = [faults] if isinstance(faults, Fault) else list(faults)
    try:
        file = pq.ParquetFile(source)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{source}: cannot be read as Parquet ({error})") from None
    with file, tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as folder:
        part = Path(folder) / to.name
        written = _copy(file, part, every, seed, first_row, batch_rows)
        with part.open("rb") as done:
            os.fsync(done.fileno())
        part.replace(to)
    return written


def _copy(
    file: pq.ParquetFile, to: Path, faults: Sequence[Fault], seed: int, first_row: int, batch_rows: int
) -> CopyCounts:
    rows = cells = 0
    # Of no rows, because a fault may change the columns too.
    schema = corrupt(file.schema_arrow.empty_table(), faults, seed=seed).table.schema
    with contextlib.closing(pq.ParquetWriter(to, schema, compression=_compression(file, schema))) as writer:
        for group in range(file.num_row_groups):
            batches = []
            for batch in file.iter_batches(batch_rows, row_groups=[group]):
                found = corrupt(batch, faults, seed=seed, first_row=first_row + rows)
                rows += batch.num_rows
                cells += sum(one.cells_count for one in found.applied if isinstance(one, CellsChanged))
                batches.append(found.table)
            writer.write_table(pa.Table.from_batches(batches, schema=schema), row_group_size=rows or 1)
    return CopyCounts(rows, cells)


def _compression(file: pq.ParquetFile, schema: pa.Schema) -> dict[str, str]:
    if not file.num_row_groups:
        return {}
    group = file.metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    names = {"UNCOMPRESSED": "NONE"}
    return {
        one.path_in_schema: names.get(one.compression, one.compression)
        for one in columns
        if one.path_in_schema.partition(".")[0] in schema.names
    }
