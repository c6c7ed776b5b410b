"""Faults of a table's schema: a column is missing, has another name or type, or is additional.

They hit every row, since a schema belongs to the table. Columns of numpy arrays have no names: there a column can
only be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from monkeyproof.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaFault:
    """Base of the faults of a schema."""

    name: ClassVar[str]

    column: str

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise UsageError(f"column: {self.column!r} is not the name of one")


@dataclass(frozen=True, slots=True, kw_only=True)
class LostColumn(SchemaFault):
    """The column is missing."""

    name: ClassVar[str] = "lost_column"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenamedColumn(SchemaFault):
    """The column has another name."""

    name: ClassVar[str] = "renamed_column"
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextColumn(SchemaFault):
    """The column's values come as text, as from a CSV file without types."""

    name: ClassVar[str] = "text_column"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraColumn(SchemaFault):
    """One more column, the last one: a copy of ``like`` under a name of its own."""

    name: ClassVar[str] = "extra_column"
    like: str
