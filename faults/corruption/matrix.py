"""Applies a fault of single values to a two-dimensional array of numbers, block by block, with a journal."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from monkeyproof.faults.corruption.cell_selection import BLOCK_ROWS, CellSelection, Found
from monkeyproof.faults.corruption.cells import OWN, CellFault
from monkeyproof.faults.corruption.memory import Workspace, scratch
from monkeyproof.faults.corruption.random import Bools, Draws, Floats, Index, Key, Rows, Words, draws_at
from monkeyproof.faults.corruption.text import TextFault

Array = NDArray[Any]
Bits = NDArray[np.uint8]

_COLUMNS_AT_ONCE = 64
_BLOCK_CELLS = 1 << 18
"""A block stays near a core, in its own cache or the next one. Smaller ones are slower by the number of calls."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What was changed: enough to restore every bit."""

    width: int
    cells: Index
    """``row * width + column`` of each changed cell, rows counted from the batch's first. Empty where the mask is
    all that is needed."""
    old: Any
    """The old values, bit by bit, in the column's own type. None where they are still in memory, marked missing; a
    ``WholeColumn`` where single values cannot be restored."""

    def restore(self, values: Array) -> None:
        """Restore the old values in place. ``values``: the array as the fault left it, (rows, width)."""
        if values.flags.c_contiguous:
            values.reshape(-1)[self.cells] = self.old
        else:
            values[np.divmod(self.cells, self.width)] = self.old


@dataclass(frozen=True, slots=True)
class WholeColumn:
    """A whole column as it was, of a kind in which single values cannot be restored."""

    column: Any


@dataclass(frozen=True, slots=True)
class Change:
    """What one fault changed in one array."""

    journal: Journal
    bits: Bits | None = None
    """(ceil(rows / 8),): which of its one column's values were changed, least significant bit first, as in Arrow.
    None where the journal tells."""

    @property
    def cells_count(self) -> int:
        """How many cells were changed."""
        return len(self.journal.cells) if self.bits is None else int(np.bitwise_count(self.bits).sum())

    def mask(self, rows_count: int, columns: Sequence[int]) -> Bools:
        """(rows, columns): which of some columns' cells were changed."""
        if self.bits is not None:
            return np.unpackbits(self.bits, count=rows_count, bitorder="little").astype(np.bool_)[:, None]
        width = self.journal.width
        found = np.zeros(rows_count * width, np.bool_)
        found[self.journal.cells] = True
        mask = found.reshape(rows_count, width)
        return mask if width == 1 else mask[:, list(columns)]


class CorruptMatrix(Protocol):
    """An implementation of ``corrupt_matrix``: applies a fault to some columns of an array, in place."""

    def __call__(
        self,
        out: Array,
        source: Array | None,
        fault: CellFault,
        keys: Sequence[Key],
        columns: Index,
        rows: Rows,
        allowed: Bools | None = None,
        *,
        workspace: Workspace,
    ) -> Change: ...


def corrupt_matrix(
    out: Array,
    source: Array | None,
    fault: CellFault,
    keys: Sequence[Key],
    columns: Index,
    rows: Rows,
    allowed: Bools | None = None,
    *,
    workspace: Workspace,
) -> Change:
    """Apply a fault to some columns of ``out``, in place.

    Args:
        out: (n, width), C-contiguous, of any float or integer type.
        source: what ``out`` is to be a corrupted copy of, copied on the way; None if ``out`` holds it already.
        keys: one for each of ``columns``, which are indices into the width.
        allowed: (n,) which rows may be hit; None for all.
        room: for the journal.
    """
    count, width = out.shape
    changes = _JournalBuilder(count * len(keys) * fault.share, out.dtype, workspace)
    groups = [
        (CellSelection(keys[at : at + _COLUMNS_AT_ONCE], fault.share, rows), columns[at : at + _COLUMNS_AT_ONCE])
        for at in range(0, len(keys), _COLUMNS_AT_ONCE)
    ]
    for start, size in _blocks(rows, count, width):
        if source is not None:
            np.copyto(out[start : start + size], source[start : start + size])
        for hitting, some in groups:
            found = hitting.found(start, size)
            cells, old = changes.next(found.count)
            found.index(width, some + start * width, cells)
            changes.add(*_change(out.reshape(-1), found, cells, old, hitting.words, fault, width, rows, allowed))
    return Change(changes.journal(width))


def _change(
    values: Array,
    found: Found,
    cells: Index,
    old: Array,
    words: Words,
    fault: CellFault,
    width: int,
    rows: Rows,
    allowed: Bools | None,
) -> tuple[Index, Array, bool]:
    """Change some cells, in place. ``old``: room for what stood there.

    Returns:
        Which were changed, and what stood there; and whether these are all of them, as given.
    """
    values.take(cells, out=old, mode="wrap")  # Which is only quicker: none is out of it.
    keep = _may_change(fault, cells, old, width, allowed)
    if keep is not None:
        cells, old = cells[keep], old[keep]
    draws = Draws(functools.partial(_places, found, words, keep), lambda: rows.at(cells // width))
    with np.errstate(over="ignore", invalid="ignore"):  # What leads out of the numbers is left alone, below.
        new = _cast(fault.new(old.astype(np.float64, copy=False), draws), old)
        changed = _changed(fault, old, new)
    if changed is not None:
        cells, old, new = cells[changed], old[changed], new[changed]
    values[cells] = new
    return cells, old, keep is None and changed is None


def _places(found: Found, words: Words, keep: Bools | None, purpose: int) -> Words:
    every = found.places(words, purpose)
    return every if keep is None else every[keep]


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
    old = texts_at(hits)
    new = fault.new_texts(old, draws_at(key, rows, hits))
    changed = [place for place, (was, becomes) in enumerate(zip(old, new, strict=True)) if was != becomes]
    return hits[changed], [new[place] for place in changed]


def hit_rows(fault: CellFault, key: Key, rows: Rows, allowed: Bools | None) -> Bools:
    """Which values of one column are hit, where only their being there matters."""
    mask: Bools = CellSelection([key], fault.share, rows).mask(0, rows.count)[0]
    return mask if allowed is None else mask & allowed


def _blocks(rows: Rows, count: int, width: int) -> Iterator[tuple[int, int]]:
    """Where each begins, and its size: they end where blocks of hits end, so that none is walked twice."""
    step = max(1, round(_BLOCK_CELLS / (width * BLOCK_ROWS))) * BLOCK_ROWS
    start = 0
    while start < count:
        size = min(step - (rows.first + start) % BLOCK_ROWS, count - start)
        yield start, size
        start += size


def _may_change(fault: CellFault, cells: Index, old: Array, width: int, allowed: Bools | None) -> Bools | None:
    """A value that is missing stays missing; and what is out of ``where`` stays as it is. None: all may change."""
    keep: Bools | None = None
    if old.dtype.kind == "f":
        flags = scratch().array("flags", np.bool_, len(old))
        keep = np.isfinite(old, out=flags) if fault.works_on != "anything" else np.equal(old, old, out=flags)
    if allowed is not None:
        among = allowed[cells // width]
        keep = among if keep is None else keep & among
    if fault.where is not None and fault.where.column == OWN:
        holds = fault.where.holds(old)
        keep = holds if keep is None else keep & holds
    # A copy, for the flags are needed again before it is.
    return None if keep is None or keep.all() else keep.copy()


def _changed(fault: CellFault, old: Array, new: Array) -> Bools | None:
    """Which values are other ones now, and numbers if they have to be. None: all are."""
    if fault.is_sure and old.dtype == np.float64:
        return None
    changed: Bools = np.not_equal(new, old, out=scratch().array("flags", np.bool_, len(old)))
    if fault.works_on != "anything" and old.dtype.kind == "f":
        changed &= np.isfinite(new)
    return None if changed.all() else changed.copy()


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


def journal_of(expected: float, dtype: np.dtype[Any], workspace: Workspace) -> tuple[Index, Array]:
    """Room for the cells and old values of about as many changes as are expected: mostly for all."""
    size = (int(expected + 6 * math.sqrt(expected) + 64),)
    return workspace.array(size, np.dtype(np.int64)), workspace.array(size, dtype)


class _JournalBuilder:
    """The journal. Room is made once for about as many as will come, for a list of parts would be held twice."""

    def __init__(self, expected: float, dtype: np.dtype[Any], workspace: Workspace) -> None:
        self._cells, self._old = journal_of(expected, dtype, workspace)
        self._count = 0

    def next(self, count: int) -> tuple[Index, Array]:
        """Where the next ones go: at most so many."""
        if (end := self._count + count) > len(self._cells):
            more = end + len(self._cells) // 8 - len(self._cells)
            self._cells = np.concatenate([self._cells, np.empty(more, np.int64)])
            self._old = np.concatenate([self._old, np.empty(more, self._old.dtype)])
        return self._cells[self._count : end], self._old[self._count : end]

    def add(self, cells: Index, old: Array, are_there: bool) -> None:
        """They are these; ``are_there``: they lie in their place already."""
        end = self._count + len(cells)
        if not are_there:
            self._cells[self._count : end], self._old[self._count : end] = cells, old
        self._count = end

    def journal(self, width: int) -> Journal:
        return Journal(width, self._cells[: self._count], self._old[: self._count])
