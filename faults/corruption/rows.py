"""Faults of whole rows: some come twice, late, in another order, or not at all.

What becomes of a row depends on its absolute position. Faults that move rows do so within windows of
``window_rows`` rows that begin at multiples of it, since a batch does not know the rows around it. So for those,
cut batches at multiples of it: a batch that begins elsewhere is refused, and an unfinished window at the end stays
as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.cell_selection import CellSelection
from monkeyproof.faults.corruption.checks import check_number, check_share
from monkeyproof.faults.corruption.random import Index, Key, Rows, draws_at


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFault:
    """Base of the faults of whole rows."""

    name: ClassVar[str]

    share: float
    """Probability that a row is hit."""

    def __post_init__(self) -> None:
        check_number("share", self.share)
        check_share("share", self.share)

    def index(self, rows: Rows, key: Key) -> Index:
        """Which row of the batch stands at each place afterwards."""
        raise NotImplementedError

    def hits(self, rows: Rows, key: Key) -> Index:
        return np.flatnonzero(CellSelection([key], self.share, rows).mask(0, rows.count)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates(RowFault):
    """A row comes twice, one right after the other."""

    name: ClassVar[str] = "duplicates"

    def index(self, rows: Rows, key: Key) -> Index:
        times = np.ones(rows.count, np.int64)
        times[self.hits(rows, key)] = 2
        return np.repeat(np.arange(rows.count), times)


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRows(RowFault):
    """A row does not come."""

    name: ClassVar[str] = "lost_rows"

    def index(self, rows: Rows, key: Key) -> Index:
        return np.delete(np.arange(rows.count), self.hits(rows, key))


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedRows(RowFault):
    """Base of the faults that move rows within windows."""

    window_rows: int

    def __post_init__(self) -> None:
        RowFault.__post_init__(self)
        if isinstance(self.window_rows, bool) or not isinstance(self.window_rows, int) or self.window_rows < 2:
            raise UsageError(f"window_rows: {self.window_rows!r} is not a whole number of at least 2")

    def whole_windows(self, rows: Rows) -> int:
        """How many rows stand in windows that are whole.

        Raises:
            UsageError: the batch does not begin with a window, or its rows do not follow one another.
        """
        if rows.scattered is not None:
            raise UsageError(f"{self.name}: rows that do not follow one another have no windows; give first_row")
        if rows.first % self.window_rows:
            raise UsageError(
                f"{self.name}: a batch that begins at row {rows.first} cuts a window of {self.window_rows} rows; "
                "cut at multiples of it"
            )
        return rows.count - rows.count % self.window_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedBatches(WindowedRows):
    """The end of a window of rows (a batch as it was sent) is missing. ``share`` is of windows, not of rows."""

    name: ClassVar[str] = "truncated_batches"
    kept: float = 0.5
    """Share of a window that still arrives."""

    def __post_init__(self) -> None:
        WindowedRows.__post_init__(self)
        check_number("kept", self.kept)
        if not 0 <= self.kept < 1:
            raise UsageError(f"kept: {self.kept} is not in [0, 1)")

    def index(self, rows: Rows, key: Key) -> Index:
        whole = self.whole_windows(rows)
        every = np.arange(rows.count)
        windows = Rows(whole // self.window_rows, rows.first // self.window_rows)
        cut = np.zeros(rows.count, np.bool_)
        cut[:whole] = np.repeat(
            CellSelection([key], self.share, windows).mask(0, windows.count)[0], self.window_rows
        )
        return every[~(cut & (every % self.window_rows >= int(self.kept * self.window_rows)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRows(WindowedRows):
    """A row comes after all others of its window."""

    name: ClassVar[str] = "late_rows"

    def index(self, rows: Rows, key: Key) -> Index:
        hits = self.hits(rows, key)
        late = np.zeros(rows.count, np.int64)
        late[hits[hits < self.whole_windows(rows)]] = 1
        every = np.arange(rows.count)
        return np.lexsort((every, late, every // self.window_rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class SwappedRows(WindowedRows):
    """The rows of a window that are hit change places with one another."""

    name: ClassVar[str] = "swapped_rows"

    def index(self, rows: Rows, key: Key) -> Index:
        hits = self.hits(rows, key)
        hits = hits[hits < self.whole_windows(rows)]
        order = draws_at(key, rows, hits).uniform(1)
        found = np.arange(rows.count)
        found[hits] = hits[np.lexsort((order, hits // self.window_rows))]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleRows(WindowedRows):
    """A row is sent as the first one of its window was: a frozen source that reports no error."""

    name: ClassVar[str] = "stale_rows"

    def index(self, rows: Rows, key: Key) -> Index:
        hits = self.hits(rows, key)
        hits = hits[hits < self.whole_windows(rows)]
        found = np.arange(rows.count)
        found[hits] = hits - hits % self.window_rows
        return found
