"""The toxic that lays values of a feature store out in another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.hooks import READ
from monkeyproof.faults.proxy.resp.share_of_keys import ShareOfKeys, ValueRewriter
from monkeyproof.faults.proxy.resp.values import ReadValue, Row
from monkeyproof.faults.proxy.toxic_registry import toxic

CHANGES = ("column_added", "column_dropped", "reordered", "float32", "big_endian")
_ITEM_BYTES = 8


@toxic("schema_mismatch", hook=READ, protocols=("redis",))
@dataclass(frozen=True, kw_only=True)
class SchemaMismatch(ShareOfKeys):
    """Values of a share of the keys are laid out in another way, as after a deploy of whatever writes them."""

    change: str = "column_added"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.change not in CHANGES:
            raise UsageError(f"change: {self.change!r} is not one of {', '.join(CHANGES)}")

    def new_state(self) -> ValueRewriter:
        other = 0

        def change(values: Sequence[ReadValue]) -> list[ReadValue]:
            nonlocal other
            found = []
            for one in values:
                if not self.hits(one.read.key) or one.value is None:
                    found.append(one)
                    continue
                value = one.value
                made = _row_as(self.change, value) if isinstance(value, tuple) else _packed_as(self.change, value)
                other += made is None
                found.append(replace(one, value=value if made is None else made))
            return found

        return ValueRewriter(change, lambda: {"of_another_form": other})


def _packed_as(change: str, value: bytes) -> bytes | None:
    """Packed little-endian float64, laid out in another way; None if it cannot be such."""
    if not value or len(value) % _ITEM_BYTES:
        return None
    columns = np.frombuffer(value, dtype="<f8")
    match change:
        case "column_added":
            return value + bytes(_ITEM_BYTES)
        case "column_dropped":
            return value[:-_ITEM_BYTES]
        case "reordered":
            return columns[::-1].tobytes()
        case "float32":
            with np.errstate(over="ignore", invalid="ignore"):
                return columns.astype("<f4").tobytes()
    return columns.byteswap().tobytes()


def _row_as(change: str, row: Row) -> Row | None:
    """A hash, laid out in another way; None if it has nothing to change."""
    names = [name for name, _ in row]
    match change:
        case "column_added":
            return (*row, (b"column_added", bytes(_ITEM_BYTES)))
        case "column_dropped":
            return tuple(pair for pair in row if pair[0] != max(names)) if names else None
        case "reordered":
            return tuple(zip(names, (value for _, value in reversed(row)), strict=True))
    made = [(name, _packed_as(change, value)) for name, value in row]
    return tuple((name, new) for name, new in made if new is not None) if all(new for _, new in made) else None
