"""Counter-based random numbers for rows: a number depends on the seed, the fault, the column and the row alone.

So rows can be cut into batches in any way, in any order and over any number of processes, and the bytes are the
same; a generator with a state could not do that. Only exactly rounded operations are used, so a seed gives the
same bytes on every machine.

Which randomness to use when:

- ``Context.rng(purpose)``, a numpy Generator from the trial's seed: for a choice that is made once in a trial, as
  which replica to kill. ``support.links.seed_for`` draws from it the seed that a toxic gets.
- This module: for many rows or records at a time. ``key_of`` and ``draws_at`` serve the columns of a table;
  ``draws_for`` and ``uniform_at`` serve records of a stream, each by its position. It is SplitMix64 of a counter.
  ``monkeyproof.faults.corruption.cell_selection`` decides which cells are hit; here is what they become.
- ``proxy.request_random``: the same principle for one request or connection at a time, without numpy.

The principle is that of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import functools
import hashlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.memory import scratch

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Index = NDArray[np.int64]
Bools = NDArray[np.bool_]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(0x3FF0000000000000)
TIE = 0
"""Purpose of the draw that thins hits out; the faults' own purposes begin at 1."""
_STEPS_PER_OCTAVE = 256
_ROWS_MAX = 2**62


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

    def take_rows(self, index: Index) -> Rows:
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
    """What the draws of one fault in one column depend on, besides the row. Both are whole numbers of 64 bits."""

    word: int
    """For what becomes of cells."""
    gaps: int
    """For which cells are hit."""


@functools.lru_cache(maxsize=4096)
def key_of(seed: int, fault: str, column: str) -> Key:
    """The key for a seed (any integer), a fault with its place among several, and a column's name."""
    text = "\0".join((str(int(seed)), fault, column)).encode()
    digest = hashlib.blake2b(text, digest_size=16, person=b"mp.data.cells").digest()
    return Key(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


def words_of(keys: Sequence[Key]) -> Words:
    return np.array([key.word for key in keys], np.uint64)


class Draws:
    """Numbers for cells that are hit, each by its own column and row."""

    def __init__(self, places: Callable[[int], Words], positions: Callable[[], Words]) -> None:
        """``places``: for each cell, the words of its column and of a purpose plus its row times ``GOLDEN``; in an
        array for each purpose, to be written into. ``positions``: the cells' absolute rows."""
        self._places, self._positions = places, positions

    def positions(self) -> Words:
        """Absolute row of each cell."""
        return self._positions()

    def uniform(self, purpose: int) -> Floats:
        """In [0, 1), in steps of 2**-52; another purpose gives other, independent numbers. Ask once for each."""
        return units(self._places(purpose))

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


def draws_at(key: Key, rows: Rows, index: Index) -> Draws:
    """Draws for some rows of a batch, in one column."""

    def places(purpose: int) -> Words:
        found = rows.at(index) * GOLDEN
        found += np.uint64((key.word + int(of_purpose(purpose))) % 2**64)
        return found

    return Draws(places, lambda: rows.at(index))


def units(words: Words) -> Floats:
    """Turn distinct words into random numbers in [0, 1), in place."""
    mix(words, scratch().array("shifted", np.uint64, words.shape))
    # As the fraction of a float in [1, 2): to turn so large integers into floats takes much longer.
    words >>= np.uint64(12)
    words |= _ONE
    shares: Floats = words.view(np.float64)
    shares -= 1.0
    return shares


def mix(words: Words, buffer: Words) -> Words:
    """The output function of SplitMix64, in place: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators" (OOPSLA 2014), with the constants of Vigna's public-domain splitmix64.c. ``room``: for as many."""
    shifted = np.right_shift(words, np.uint64(30), out=buffer)
    words ^= shifted
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= np.right_shift(words, np.uint64(27), out=shifted)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= np.right_shift(words, np.uint64(31), out=shifted)
    return words


@functools.cache
def of_purpose(purpose: int) -> np.uint64:
    """The word of a purpose."""
    return mixed(purpose * int(GOLDEN))


def mixed(word: int) -> np.uint64:
    """The same of one number, modulo 2**64."""
    found: np.uint64 = mix(np.array([word % 2**64], np.uint64), np.empty(1, np.uint64))[0]
    return found


def draws_for(seed: int, purpose: str, positions: Words) -> Draws:
    """Draws for the records of a stream, one for each absolute position, (n,)."""
    rows = rows_from(len(positions), positions=positions)
    return draws_at(key_of(seed, purpose, ""), rows, np.arange(len(positions)))


def uniform_at(seed: int, purpose: str, positions: Words) -> Floats:
    """(n,) numbers in [0, 1), one for each position; independent of what ``draws_for`` gives for that purpose."""
    return draws_for(seed, f"{purpose}#chance", positions).uniform(1)
