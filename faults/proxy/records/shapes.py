"""Faults that only a stream of JSON records has: frozen values, checked when made.

monkeyproof.faults.proxy.records.faults applies them, and those of the data engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.cells import Missing, Where
from monkeyproof.faults.support.checks import check_share


@dataclass(frozen=True, slots=True, kw_only=True)
class SwappedFeatures:
    """Two features of a record change places."""

    name: ClassVar[str] = "swapped_columns"
    first: int
    second: int
    share: float = 1.0

    def __post_init__(self) -> None:
        check_share("share", self.share)
        check_column("first", self.first)
        check_column("second", self.second)
        if self.first == self.second:
            raise UsageError(f"first, second: column {self.first} cannot change places with itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class LateStream:
    """The newest ``lag_records`` records do not come yet: all come, in order, so much later."""

    name: ClassVar[str] = "late_stream"
    lag_records: int

    def __post_init__(self) -> None:
        if isinstance(self.lag_records, bool) or not isinstance(self.lag_records, int) or self.lag_records < 1:
            raise UsageError(f"lag_records: {self.lag_records!r} is not a whole number above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingInJson:
    """``Missing``, as JSON can say it: null, or NaN as Python's json writes and reads it."""

    name: ClassVar[str] = "missing"
    share: float
    columns: tuple[str, ...] = ()
    where: Where | None = None
    written_as: str = "null"

    def __post_init__(self) -> None:
        if self.written_as not in ("null", "NaN"):
            raise UsageError(f"written_as: {self.written_as!r} is neither 'null' nor 'NaN'")
        self.values()

    def values(self) -> Missing:
        return Missing(share=self.share, columns=self.columns, where=self.where)


def check_column(name: str, column: object) -> None:
    """Raise UsageError unless it is the number of a feature, from 0 on."""
    if isinstance(column, bool) or not isinstance(column, int) or column < 0:
        raise UsageError(f"{name}: {column!r} is not the number of a column")
