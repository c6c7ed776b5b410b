"""A fault of single values in a two-dimensional array of numbers: applied block by block, and noted down."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monkeyproof.faults.data.cells import OWN, CellFault
from monkeyproof.faults.data.keyed import Draws, Floats, Hits, Index, Key, Rows, words_of
from monkeyproof.faults.data.text import TextFault

Array = NDArray[Any]
Bits = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_BLOCK_CELLS = 1 << 18
_BLOCK_ROWS_MAX = 1 << 14
"""A block stays in a core's own cache. Larger ones are slower by a third, smaller ones by the number of calls."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What was changed: enough to put every bit back."""

    width: int
    cells: Index
    """``row * width + column`` of each changed cell, rows counted from the batch's first. Empty where the mask is
    all that is needed."""
    old: Any
    """What stood there, bit by bit, in the column's own type. None where it still stands there, called missing;
    an ``Earlier`` where it is the whole column."""

    def restore(self, values: Array) -> None:
        """Put the old values back, in place. ``values`` is what the fault left: (rows, width)."""
        if values.flags.c_contiguous:
            values.reshape(-1)[self.cells] = self.old
        else:
            values[np.divmod(self.cells, self.width)] = self.old


@dataclass(frozen=True, slots=True)
class Earlier:
    """A column as it was, of a kind in which single values cannot be put back as they were."""

    column: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One fault's work on one array."""

    bits: Bits
    """(columns, ceil(rows / 8)): 1 where a cell was changed, least significant bit first, as Arrow has it."""
    journal: Journal


@dataclass(frozen=True, slots=True)
class _Hits:
    """Cells of a block: which of the fault's columns, which row of the block, what stands there."""

    column: Index
    row: Index
    cell: Index
    old: Array

    def only(self, keep: Bools) -> _Hits:
        if keep.all():
            return self
        return _Hits(self.column[keep], self.row[keep], self.cell[keep], self.old[keep])


def corrupt_matrix(
    out: Array,
    source: Array | None,
    fault: CellFault,
    keys: Sequence[Key],
    columns: Index,
    rows: Rows,
    allowed: Bools | None = None,
) -> Change:
    """Apply a fault to some columns of ``out``, in place.

    Args:
        out: (n, width), C-contiguous, of any float or integer type.
        source: what ``out`` is to be a corrupted copy of, copied on the way; None if ``out`` holds it already.
        keys: one for each of ``columns``, which are indices into the width.
        allowed: (n,) which rows may be hit; None for all.
    """
    count, width = out.shape
    hitting, words = Hits(keys, fault.share, rows), words_of(keys)
    bits = np.zeros((len(keys), (count + 7) // 8), np.uint8)
    every = len(columns) == width and bool((columns == np.arange(width)).all())
    changes = _Growing(count * len(keys) * fault.share, out.dtype)
    step = _rows_of_block(width)
    for start in range(0, count, step):
        part, here = out[start : start + step], rows.part(start, min(step, count - start))
        if source is not None:
            np.copyto(part, source[start : start + step])
        values = part.reshape(-1)
        mask = hitting.mask(start, here.count)
        column, row = _split(hitting.places(mask), here.count)
        cell = row * width
        cell += column if every else columns[column]
        drawn = _Hits(column, row, cell, values[cell])
        hits = drawn.only(_may_change(fault, drawn, None if allowed is None else allowed[start:]))
        draws = Draws(words, hits.column, functools.partial(here.at, hits.row))
        with np.errstate(over="ignore", invalid="ignore"):  # What leads out of the numbers is left alone, below.
            new = _cast(fault.new(hits.old.astype(np.float64, copy=False), draws), hits.old)
        changed = new != hits.old
        if fault.works_on != "anything" and out.dtype.kind == "f":
            changed &= np.isfinite(new)
        if not changed.all():
            hits, new = hits.only(changed), new[changed]
        values[hits.cell] = new
        if len(hits.cell) < len(drawn.cell):
            mask[:] = False
            mask[hits.column, hits.row] = True
        packed = np.packbits(mask, axis=1, bitorder="little")
        bits[:, start // 8 : start // 8 + packed.shape[1]] = packed
        changes.add(hits.cell + start * width, hits.old)
    return Change(bits, changes.journal(width))


def change_texts(
    fault: TextFault, key: Key, rows: Rows, allowed: Bools, texts_at: Callable[[Index], Sequence[str]]
) -> tuple[Index, list[str]]:
    """What becomes of one column's texts.

    Args:
        allowed: (n,) where there is a text that may be hit.
        texts_at: those of some rows.

    Returns:
        Rows whose text changes, and what it changes to.
    """
    hits = np.flatnonzero(hit_rows(fault, key, rows, allowed))
    draws = Draws(words_of([key]), np.zeros(len(hits), np.int64), functools.partial(rows.at, hits))
    old = texts_at(hits)
    new = fault.new_texts(old, draws)
    changed = [place for place, (was, becomes) in enumerate(zip(old, new, strict=True)) if was != becomes]
    return hits[changed], [new[place] for place in changed]


def bits_of(cells: Index, count: int) -> Bits:
    """The mask of one column with these rows changed."""
    mask = np.zeros((1, count), np.bool_)
    mask[0, cells] = True
    return np.packbits(mask, axis=1, bitorder="little")


def hit_rows(fault: CellFault, key: Key, rows: Rows, allowed: Bools | None) -> Bools:
    """Which values of one column are hit, where only their being there matters."""
    mask: Bools = Hits([key], fault.share, rows).mask(0, rows.count)[0]
    return mask if allowed is None else mask & allowed


def _rows_of_block(width: int) -> int:
    """A power of two: blocks begin at whole bytes of the mask, and a shift splits columns from rows."""
    return min(_BLOCK_ROWS_MAX, 1 << max(3, int(math.log2(_BLOCK_CELLS / width))))


def _split(index: Index, count: int) -> tuple[Index, Index]:
    if count & (count - 1):
        column, row = np.divmod(index, count)
        return column, row
    return index >> (count.bit_length() - 1), index & (count - 1)


def _may_change(fault: CellFault, hits: _Hits, allowed: Bools | None) -> Bools:
    """A value that is missing stays missing; and what is out of ``where`` stays as it is."""
    keep: Bools = np.ones(len(hits.cell), np.bool_)
    if hits.old.dtype.kind == "f":
        keep = np.isfinite(hits.old) if fault.works_on != "anything" else ~np.isnan(hits.old)
    if allowed is not None:
        keep &= allowed[hits.row]
    if fault.where is not None and fault.where.column == OWN:
        keep &= fault.where.holds(hits.old)
    return keep


def _cast(new: Floats, old: Array) -> Array:
    """To the column's own type. Whole numbers are rounded, kept in their range, and differ if the new one does."""
    dtype = old.dtype
    if dtype.kind == "f":
        return new.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    found = np.rint(new)
    # The largest integers of 64 bits are no floats: the nearest float below them is as far as a value can go.
    low, high = float(limits.min), np.nextafter(float(limits.max), 0) if limits.bits == 64 else float(limits.max)
    cast = np.clip(found, low, high).astype(dtype)
    same = (cast == old) & (new != old)
    up = same & (new > old) & (old < limits.max)
    down = same & (new < old) & (old > limits.min)
    cast[up] += 1
    cast[down] -= 1
    return cast


class _Growing:
    """Room for the journal. Made once for about as many as will come, for a list of parts would be held twice."""

    def __init__(self, expected: float, dtype: np.dtype[Any]) -> None:
        room = int(expected + 6 * math.sqrt(expected) + 64)
        self._cells, self._old = np.empty(room, np.int64), np.empty(room, dtype)
        self._count = 0

    def add(self, cells: Index, old: Array) -> None:
        end = self._count + len(cells)
        if end > len(self._cells):
            room = max(end, len(self._cells) + len(self._cells) // 8)
            self._cells.resize(room, refcheck=False)
            self._old.resize(room, refcheck=False)
        self._cells[self._count : end], self._old[self._count : end] = cells, old
        self._count = end

    def journal(self, width: int) -> Journal:
        return Journal(width, self._cells[: self._count], self._old[: self._count])
