"""Randomness by place: what happens to a cell depends on the seed, the fault, its column and its row alone.

So any way of cutting rows into batches, any order of the batches and any number of processes gives the same bytes.
There are two sources. Whether a cell is hit is asked of every cell, so it has to be cheap: one byte of a PCG64
DXSM stream (numpy's, which keeps its streams), entered at the row. How a cell is changed is asked of those that
are hit: SplitMix64 of the row. Only exactly rounded operations are used, so a seed gives the same bytes on every
machine.
"""

from __future__ import annotations

import functools
import hashlib
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Index = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(0x3FF0000000000000)
_TIE = 0
"""Purpose of the draw that decides where one byte cannot; the faults' own purposes begin at 1."""
_BLOCK_ROWS = 4096
_AHEAD_ROWS = 32_768
_STEPS_PER_OCTAVE = 256
_ROWS_MAX = 2**62

_of_thread = threading.local()


@dataclass(frozen=True, slots=True)
class Rows:
    """Absolute positions of a batch's rows: ``count`` from ``first`` on; or any, one by one."""

    count: int
    first: int = 0
    scattered: Words | None = None

    def part(self, start: int, count: int) -> Rows:
        """``count`` rows of the batch, from its row ``start`` on."""
        if self.scattered is None:
            return Rows(count, self.first + start)
        return Rows(count, 0, self.scattered[start : start + count])

    def taken(self, index: Index) -> Rows:
        """Some rows of the batch, in any order, as a batch."""
        return Rows(len(index), 0, self.at(index))

    def at(self, index: Index) -> Words:
        """Positions of some rows of the batch."""
        if self.scattered is not None:
            return self.scattered[index]  # A copy.
        return index.view(np.uint64) + np.uint64(self.first)


def rows_from(count: int, first_row: int = 0, positions: object = None) -> Rows:
    """Positions as a caller gives them.

    Raises:
        UsageError: they are negative, too large, not whole numbers, or not as many as there are rows.
    """
    if positions is None:
        if isinstance(first_row, bool) or not isinstance(first_row, int | np.integer):
            raise UsageError(f"first_row: {first_row!r} is not a whole number")
        if not 0 <= first_row <= _ROWS_MAX:
            raise UsageError(f"first_row: {first_row} is not in 0 to 2**62")
        return Rows(count, int(first_row))
    found = np.asarray(positions)
    if found.shape != (count,):
        raise UsageError(f"positions: {count} rows need as many, not an array of shape {found.shape}")
    if count and found.dtype.kind not in "iu":
        raise UsageError(f"positions: whole numbers are needed, not {found.dtype}")
    if count and (int(found.min()) < 0 or int(found.max()) > _ROWS_MAX):
        raise UsageError("positions: some are not in 0 to 2**62")
    return Rows(count, 0, found.astype(np.uint64))


@dataclass(frozen=True, slots=True)
class Key:
    """What the draws of one fault in one column depend on, besides the row."""

    word: int
    state: int
    increment: int


@functools.lru_cache(maxsize=4096)
def key_of(seed: int, fault: str, column: str) -> Key:
    """The key for a seed (any integer), a fault with its place among several, and a column's name."""
    text = "\0".join((str(int(seed)), fault, column)).encode()
    digest = hashlib.blake2b(text, digest_size=40, person=b"mp.data.cells").digest()
    return Key(*(int.from_bytes(part, "little") for part in (digest[:8], digest[8:24], digest[24:])))


class Draws:
    """Numbers for cells that are hit, each by its own column and row."""

    def __init__(self, words: Words, column: Index, rows: Callable[[], Words]) -> None:
        """``words``: of the columns; ``column``: an index into them for each cell; ``rows``: their positions."""
        self._words, self._column, self._rows = words, column, rows

    def uniform(self, purpose: int) -> Floats:
        """In [0, 1), in steps of 2**-52; another purpose gives other, independent numbers."""
        found = self._rows()
        found *= _GOLDEN
        found += _mix(self._words + np.uint64(purpose * int(_GOLDEN) % 2**64))[self._column]
        found = _mix(found)
        # As the fraction of a float in [1, 2): to turn so large integers into floats takes much longer.
        found >>= np.uint64(12)
        found |= _ONE
        shares: Floats = found.view(np.float64)
        shares -= 1.0
        return shares

    def between(self, low: float, high: float, purpose: int) -> Floats:
        """In [low, high)."""
        found = self.uniform(purpose)
        found *= high - low
        found += low
        return found

    def normal(self, purpose: int) -> Floats:
        """Of mean 0 and standard deviation 1: the inverse of the distribution, off by less than 1e-5.

        By table and interpolation, for a logarithm's last bit differs from machine to machine.
        """
        share = self.uniform(purpose)
        tail = np.minimum(share, 1.0 - share)
        tail += 2.0**-54  # Neither end is reached.
        mantissa, exponent = np.frexp(tail)
        place = (mantissa - 0.5) * (2 * _STEPS_PER_OCTAVE)
        step = place.astype(np.int64)
        place -= step
        knots = _knots()
        index = (exponent.astype(np.int64) + 55) * _STEPS_PER_OCTAVE + step
        near = knots[index]
        found: Floats = near + (knots[index + 1] - near) * place
        np.copysign(found, share - 0.5, out=found)
        return found


@functools.cache
def _knots() -> Floats:
    """How many standard deviations out a tail of each probability begins."""
    inverse = statistics.NormalDist().inv_cdf
    octaves = [2.0**exponent for exponent in range(-56, 0)]
    tails = [start * (1 + step / _STEPS_PER_OCTAVE) for start in octaves for step in range(_STEPS_PER_OCTAVE)]
    # Rounded, because the standard library's own logarithm is the machine's.
    return np.array([round(-inverse(min(tail, 0.5)), 10) for tail in [*tails, 0.5, 0.5, 0.5]])


class Hits:
    """Which cells of a batch are hit: each by itself, with probability ``share``. Asked block by block.

    The same memory is used for every block: fresh memory takes longer to come than all that is done with it.
    """

    def __init__(self, keys: Sequence[Key], share: float, rows: Rows) -> None:
        self._keys, self._share, self._rows = keys, share, rows
        # To make a generator costs more than to set one, so each thread keeps its own, one a column.
        kept: list[np.random.PCG64DXSM] = _of_thread.__dict__.setdefault("generators", [])
        kept += [np.random.PCG64DXSM(0) for _ in range(len(keys) - len(kept))]
        self._generators = kept[: len(keys)]
        self._words = np.empty((len(keys), 0), np.uint64)
        self._from_word = self._to_word = -1
        self._masks = np.empty((2, 0), np.bool_)

    def mask(self, start: int, count: int) -> NDArray[np.bool_]:
        """(columns, count) of the batch's rows from ``start`` on; the last one is overwritten."""
        size = len(self._keys) * count
        if self._masks.shape[1] != size + self._filler(size):
            self._masks = np.ones((2, size + self._filler(size)), np.bool_)
        mask, on_edge = (one[:size].reshape(len(self._keys), count) for one in self._masks)
        steps = self._share * 256
        whole = int(steps)
        if whole >= 256:
            mask[:] = True
            return mask
        rows = self._rows.part(start, count)
        drawn = self._bytes_of(rows)
        np.less(drawn, whole, out=mask)
        if steps > whole:
            # One byte knows shares of 1/256 only: what is on the edge is drawn once more.
            edge = np.flatnonzero(np.equal(drawn, whole, out=on_edge))
            column, row = np.divmod(edge, max(count, 1))
            more = Draws(words_of(self._keys), column, lambda: rows.at(row)).uniform(_TIE) < steps - whole
            mask.reshape(-1)[edge[more]] = True
        return mask

    def places(self, mask: NDArray[np.bool_]) -> Index:
        """Where the last mask is True, flat and ascending. Call it before the mask is changed."""
        filler = self._filler(mask.size)
        found = np.flatnonzero(self._masks[0])
        return found[: len(found) - filler]

    def _filler(self, size: int) -> int:
        """So many True after each mask: numpy finds places of up to a tenth one by one, guessing wrong each time,
        and of more than that in half the time."""
        return int(size * max(0.0, 0.12 - self._share)) if self._share > 0.02 else 0

    def _bytes_of(self, rows: Rows) -> NDArray[np.uint8]:
        """(columns, rows): one byte for each cell."""
        if rows.scattered is None:
            return self._run(rows.first, rows.count, self._rows.first + self._rows.count)
        if not rows.count:
            return np.empty((len(self._keys), 0), np.uint8)
        blocks, index = np.unique(rows.scattered // np.uint64(_BLOCK_ROWS), return_inverse=True)
        starts = [int(block) * _BLOCK_ROWS for block in blocks]
        runs = np.stack([self._run(first, _BLOCK_ROWS, first + _BLOCK_ROWS).copy() for first in starts])
        found: NDArray[np.uint8] = runs[index, :, (rows.scattered % np.uint64(_BLOCK_ROWS)).astype(np.int64)].T
        return found

    def _run(self, first: int, count: int, end: int) -> NDArray[np.uint8]:
        """Of rows that follow one another. ``end``: up to there more will be asked for."""
        word, to_word = first >> 3, first + count + 7 >> 3
        if word < self._from_word or to_word > self._to_word:
            self._read(word, max(to_word, min(word + (_AHEAD_ROWS >> 3), end + 7 >> 3)))
        skip = first - 8 * self._from_word
        return self._words.view(np.uint8)[:, skip : skip + count]

    def _read(self, word: int, to_word: int) -> None:
        if self._words.shape[1] != to_word - word:
            self._words = np.empty((len(self._keys), to_word - word), np.uint64)
        for key, generator, words in zip(self._keys, self._generators, self._words, strict=True):
            if word != self._to_word:
                generator.state = {
                    "bit_generator": "PCG64DXSM",
                    "state": {"state": key.state, "inc": key.increment | 1},
                    "has_uint32": 0,
                    "uinteger": 0,
                }
                generator.advance(word)
            words[:] = generator.random_raw(to_word - word)
        if sys.byteorder == "big":
            self._words.byteswap(inplace=True)
        self._from_word, self._to_word = word, to_word


def words_of(keys: Sequence[Key]) -> Words:
    return np.array([key.word for key in keys], np.uint64)


def _mix(z: Words) -> Words:
    """The output function of SplitMix64, in place: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators" (OOPSLA 2014), with the constants of Vigna's public-domain splitmix64.c."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
