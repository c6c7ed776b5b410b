"""Corrupting the batches of somebody else's engine (Ray Data, a data loader, Spark's ``mapInArrow``), which cuts
and orders them as it likes, and says of none where it begins. So the rows say it: a column holds their numbers.
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
    """Call it with an Arrow table, and get a corrupted one: the same bytes in every row as of one pass over all.

    It is a value, can be pickled, and keeps nothing from one call to the next. The column of row numbers stays as
    it is; where a fault moves, repeats or drops rows, it says where each one came from. Faults that need windows
    (``window_rows``) work on batches whose rows follow one another and that begin with a window.
    """

    faults: Fault | Sequence[Fault]
    seed: int
    row_column: str = "row"
    """Whole numbers from 0 to 2**62: the absolute row of each row."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One batch.

        Raises:
            UsageError: there is no column of row numbers, or it holds none.
        """
        if self.row_column not in batch.schema.names:
            names = ", ".join(batch.schema.names)
            raise UsageError(
                f"row_column: there is no column {self.row_column!r} that numbers the rows; there are {names}"
            )
        import pyarrow as pa

        at = batch.schema.get_field_index(self.row_column)
        if batch.column(at).null_count:
            raise UsageError(f"row_column: {self.row_column!r} does not say the number of every row")
        rows = batch.column(at).to_numpy()
        run = len(rows) > 0 and bool((np.diff(rows) == 1).all())
        where = {"first_row": int(rows[0])} if run else {"positions": rows}
        found = corrupt(batch.remove_column(at), self.faults, seed=self.seed, **where)
        every: Index = np.arange(found.positions.count)
        came_from = pa.array(found.positions.at(every)).cast(batch.schema.field(at).type)
        return found.table.add_column(min(at, found.table.num_columns), batch.schema.field(at), came_from)
