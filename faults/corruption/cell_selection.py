"""Which cells are hit: each by itself, with one probability, found by the gaps from one hit to the next.

So one number is drawn for each hit, and none for the other cells. Each column is cut into blocks of ``BLOCK_ROWS``
absolute rows, and each block is walked from its own first row on: to find out about a row, walk its
block and no other.

The gap from one hit to the next is geometric, and a table of 2**16 places gives it from two random bytes, but for
the few that fall between two gaps or beyond the table: those draw once more, from what the table leaves over. That
is exact (to 2**-64), as in Marsaglia, Tsang and Wang, "Fast generation of discrete random variables" (Journal of
Statistical Software 11(3), 2004), whose first table this is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monkeyproof.faults.corruption.memory import scratch
from monkeyproof.faults.corruption.random import (
    GOLDEN,
    TIE,
    Bools,
    Index,
    Key,
    Rows,
    Words,
    mix,
    mixed,
    of_purpose,
    units,
    words_of,
)

BLOCK_ROWS = 8192
REST = int(mixed(int.from_bytes(b"the rest", "little")))
"""Sets the draws of a block's walk apart from the second ones of those that the table leaves over."""
_PLACES = 1 << 16
_SHARE_MIN = 1 / 32
"""Rarer hits are found by walking at this share and keeping some, for their gaps would need long tables."""
_FIXED = 1 << 128
_ROWS_AT_ONCE = 1 << 19
_BLOCKS_AT_ONCE = 64
_ROWS_KEPT = 1 << 22
"""Memory for masks of more than so many is given back."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """How far it is from one hit to the next."""

    table: NDArray[np.uint16]
    """The gap for each value of two random bytes; 0 where the rest decides."""
    rest: Words
    """Of 64 random bits, so many of these are not above them: one less than the gap."""
    share: float
    """Of all rows, that the walk stops at."""
    keep: float
    """Share of the stops that are hits."""


@functools.lru_cache(maxsize=64)
def gaps_of(share: float) -> Gaps:
    """For a probability in (0, 1]. In whole numbers, so that every machine has the same table."""
    walked = max(share, _SHARE_MIN)
    hit = int(walked * 2**64) << 64
    counts, rests, left = [], [], _FIXED
    while left * 2**64 > _FIXED:  # Until what is left is less than one value of 64 bits.
        chance = left * hit // _FIXED
        left -= chance
        counts.append(chance * _PLACES // _FIXED)
        rests.append(chance * _PLACES % _FIXED)
    whole = sum(counts)
    table = np.zeros(_PLACES, np.uint16)
    table[:whole] = np.repeat(np.arange(1, len(counts) + 1), counts)
    sums, total = [], 0
    for one in rests:
        total += one
        sums.append(min(total * 2**64 // ((_PLACES - whole or 1) * _FIXED), 2**64 - 1))
    return Gaps(table, np.array(sums, np.uint64), walked, share / walked)


@dataclass(frozen=True, slots=True)
class Found:
    """Cells that are hit, in some rows of a batch: by column, and in each by row."""

    _walked: Index
    """Rows, counted from ``_origin`` on; also some that are out of the rows asked about."""
    _origin: Index
    """For each line of those: its row 0, counted from the first of the rows asked about."""
    _column: Index
    """For each line: an index into the keys."""
    _inside: Index | None
    """Which of the cells are in the rows asked about, flat; None: all."""
    _positions: Rows

    @property
    def count(self) -> int:
        return self._walked.size if self._inside is None else len(self._inside)

    def index(self, row_step: int, of_column: Index, out: Index | None = None) -> Index:
        """``row * row_step + of_column[column]`` of each cell, rows counted from the first one.

        Where no ``out`` is given, it is overwritten when asked for again.
        """
        every, of_line = scratch().array("every", np.int64, self._walked.shape), of_column[self._column]
        if row_step == 1:
            np.add(self._walked, of_line + self._origin, out=every)
        else:
            np.multiply(self._walked, row_step, out=every)
            every += of_line + self._origin * row_step
        return self._only(every, scratch().array("index", np.int64, self.count) if out is None else out)

    def places(self, words: Words, purpose: int) -> Words:
        """``words[column] + position * GOLDEN`` and the purpose's word; overwritten when asked for again."""
        found = scratch().array(f"places {purpose}", np.uint64, self.count)
        return self._only(self._every_place(words + of_purpose(purpose)), found)

    def thinned(self, words: Words, keep: float) -> Found:
        """Each is kept with a probability."""
        stay = units(self._every_place(words + of_purpose(TIE))) < keep
        inside = np.flatnonzero(stay)
        if self._inside is not None:
            inside = self._inside[stay.reshape(-1)[self._inside]]
        return Found(self._walked, self._origin, self._column, inside, self._positions)

    def _only(self, every: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
        if self._inside is None:
            out[:] = every.reshape(-1)
        else:
            every.reshape(-1).take(self._inside, out=out, mode="wrap")  # Quicker; no index is out of it.
        return out

    def _every_place(self, words: Words) -> Words:
        every = scratch().array("every_place", np.uint64, self._walked.shape)
        if self._positions.scattered is not None:
            np.multiply(self._positions.at(self._walked), GOLDEN, out=every)
            every += words[self._column]
        else:
            np.multiply(self._walked.view(np.uint64), GOLDEN, out=every)
            origin = self._origin.view(np.uint64) + np.uint64(self._positions.first)
            every += words[self._column] + origin * GOLDEN
        return every


class CellSelection:
    """Which cells of a batch are hit. Asked for some of its rows at a time."""

    def __init__(self, keys: Sequence[Key], share: float, rows: Rows) -> None:
        self.words = words_of(keys)
        self._lines = np.array([key.gaps for key in keys], np.uint64)
        self._gaps = gaps_of(float(share))
        self._rows = rows

    def found(self, start: int, count: int) -> Found:
        """Hits in ``count`` of the batch's rows, from its row ``start`` on. The next ones overwrite them."""
        rows = self._rows.part(start, count)
        found = self._in_run(rows) if rows.scattered is None else self._in_scattered(rows.scattered, rows)
        return found if self._gaps.keep == 1 else found.thinned(self.words, self._gaps.keep)

    def mask(self, start: int, count: int) -> Bools:
        """The same as a mask: (columns, count). The next one, of any batch, overwrites it."""
        shape = (len(self._lines), count)
        is_small = math.prod(shape) <= _ROWS_KEPT
        mask: Bools = scratch().array("mask", np.bool_, shape) if is_small else np.empty(shape, np.bool_)
        mask[:] = False
        lines, done = np.arange(len(self._lines)) * count, 0
        while done < count:
            # Ends where a block ends, so that none is walked twice.
            lead = 0 if self._rows.scattered is not None else (self._rows.first + start + done) % BLOCK_ROWS
            step = min(_ROWS_AT_ONCE - lead, count - done)
            mask.reshape(-1)[self.found(start + done, step).index(1, lines + done)] = True
            done += step
        return mask

    def _in_run(self, rows: Rows) -> Found:
        begin = rows.first // BLOCK_ROWS
        end = -(-(rows.first + rows.count) // BLOCK_ROWS)
        blocks = np.arange(begin, max(end, begin), dtype=np.uint64)
        lead = rows.first - begin * BLOCK_ROWS
        walked, column = self._walk(blocks, min(BLOCK_ROWS, lead + rows.count))
        origin = np.tile(np.arange(len(blocks)) * BLOCK_ROWS - lead - 1, len(self._lines))[:, None]
        inside = scratch().array("flags", np.bool_, walked.shape)
        np.less_equal(walked, BLOCK_ROWS, out=inside)
        if lead:
            inside &= walked + origin >= 0
        if (rows.first + rows.count) % BLOCK_ROWS:
            inside &= walked + origin < rows.count
        return Found(walked, origin, column[:, None], np.flatnonzero(inside), rows)

    def _in_scattered(self, positions: Words, rows: Rows) -> Found:
        blocks, block = np.unique(positions // np.uint64(BLOCK_ROWS), return_inverse=True)
        order = np.argsort(block, kind="stable")
        columns, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for begin in range(0, len(blocks), _BLOCKS_AT_ONCE):
            some = blocks[begin : begin + _BLOCKS_AT_ONCE]
            here = order[slice(*np.searchsorted(block[order], [begin, begin + len(some)]))]
            walked, _ = self._walk(some, BLOCK_ROWS)
            hit = np.zeros((len(self._lines), len(some), BLOCK_ROWS), np.bool_)
            line, step = np.nonzero(walked <= BLOCK_ROWS)
            hit.reshape(-1, BLOCK_ROWS)[line, walked[line, step] - 1] = True
            column, row = np.nonzero(hit[:, block[here] - begin, positions[here] % np.uint64(BLOCK_ROWS)])
            columns.append(column)
            found.append(here[row])
        return Found(np.concatenate(found), np.zeros(1, np.int64), np.concatenate(columns), None, rows)

    def _walk(self, blocks: Words, rows_count: int) -> tuple[Index, Index]:
        """Stops in each block, at least to its row ``rows_count``, counted from 1: (columns * blocks, steps).

        Also the column of each line.
        """
        share = self._gaps.share
        steps = int(rows_count * share + 4 * math.sqrt(rows_count * share * (1 - share))) + 8
        line = (self._lines[:, None] + blocks * GOLDEN).reshape(-1)
        mix(line, np.empty_like(line))
        column = np.repeat(np.arange(len(self._lines)), len(blocks))
        while True:
            walked = self._walked(line, -(-steps // 4))
            if walked.size == 0 or walked[:, -1].min() >= rows_count:
                return walked, column
            steps += steps // 4  # Some block has so many hits that its end was not reached.

    def _walked(self, line: Words, words: int) -> Index:
        shape = (len(line), words)
        drawn, buffer = scratch().array("drawn", np.uint64, shape), scratch().array("shifted", np.uint64, shape)
        np.add(line[:, None], np.arange(1, words + 1, dtype=np.uint64) * GOLDEN, out=drawn)
        mix(drawn, buffer)
        gap = scratch().array("gap", np.uint16, (len(line), 4 * words))
        # "wrap" only because it is quickest: no index is out of the table.
        self._gaps.table.take(drawn.astype("<u8", copy=False).view("<u2"), out=gap, mode="wrap")
        rest = np.flatnonzero(np.equal(gap, 0, out=scratch().array("flags", np.bool_, gap.shape)))
        if len(rest):
            at, step = np.divmod(rest, 4 * words)
            again = line[at] + np.uint64(REST)
            mix(again, buffer := np.empty_like(again))
            again += step.astype(np.uint64) * GOLDEN
            gap.reshape(-1)[rest] = 1 + np.searchsorted(self._gaps.rest, mix(again, buffer), side="right")
        return np.add.accumulate(gap, axis=1, dtype=np.int64, out=scratch().array("walked", np.int64, gap.shape))
