"""Corrupts the batches of another engine: Ray Data, a data loader, Spark's ``mapInArrow``.

Such an engine cuts and orders batches as it likes and does not report where one begins. So a column of the table
holds the row numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.random import Index
from monkeyproof.faults.corruption.tables import Fault, corrupt

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class CorruptBatch:
    """Corrupts one Arrow table when called: every row gets the same bytes as in one pass over all rows.

    It is a value, can be pickled, and has no state. The column of row numbers stays as it is; where a fault moves,
    repeats or drops rows, it tells where each one came from. Faults that need windows
    (``window_rows``) work on batches whose rows follow one another and that begin with a window.
    """

    faults: Fault | Sequence[Fault]
    seed: int
    row_column: str = "row"
    """Whole numbers from 0 to 2**62: the absolute row of each row."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One batch.

        Raises:
            UsageError: there is no column of row numbers, or it has nulls.
        """
        if self.row_column not in batch.schema.names:
            names = ", ".join(batch.schema.names)
            raise UsageError(
                f"row_column: there is no column {self.row_column!r} that numbers the rows; there are {names}"
            )
        import pyarrow as pa

        at = batch.schema.get_field_index(self.row_column)
        if batch.column(at).null_count:
            raise UsageError(f"row_column: {self.row_column!r} does not have the number of every row")
        rows = batch.column(at).to_numpy()
        run = len(rows) > 0 and bool((np.diff(rows) == 1).all())
        where = {"first_row": int(rows[0])} if run else {"positions": rows}
        found = corrupt(batch.remove_column(at), self.faults, seed=self.seed, **where)
        every: Index = np.arange(found.positions.count)
        came_from = pa.array(found.positions.at(every)).cast(batch.schema.field(at).type)
        return found.table.add_column(min(at, found.table.num_columns), batch.schema.field(at), came_from)
