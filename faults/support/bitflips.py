"""Bits that flip in a model's weights: in memory, or in the file that they are stored in, in place.

Programs that load a model seldom notice: of 200 single flips each, 189 of a pickle loaded, 185 of a joblib, all of
an npy and 156 of a small Parquet file (docs/faults/models.md), with right or wrong answers. So faults that flip
bits compare digests before and after. A flip is its own undo.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import TargetError, UsageError

Bytes = NDArray[np.uint8]

_EXPONENT_BITS = {2: (10, 5), 4: (23, 8), 8: (52, 11)}
"""Of IEEE 754 numbers, by their size in bytes: where the exponent begins, and how many bits it has."""


@dataclass(frozen=True, slots=True)
class Flips:
    """Indices of flipped bits, counted from the first byte's least significant one."""

    bits: NDArray[np.int64]

    def apply(self, data: Any) -> None:
        """Flip the bits in place; a second call restores them.

        Args:
            data: writable and contiguous: an array of any type, a bytearray, an mmap.

        Raises:
            UsageError: ``data`` is read-only, not contiguous, or too short.
        """
        view = bytes_of(data)
        if self.bits[-1] >= 8 * len(view):
            raise UsageError(f"{len(view)} bytes have no bit {self.bits[-1]}: these flips are for a larger object")
        places = self.bits >> 3
        begins = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]]))
        masks = np.left_shift(1, self.bits & 7, dtype=np.int64).astype(np.uint8)
        # Several bits of one byte are flipped together, since an index that occurs twice would count once.
        view[places[begins]] ^= np.bitwise_xor.reduceat(masks, begins)


def random_bits(data: Any, count: int, rng: np.random.Generator) -> Flips:
    """``count`` different bits of ``data``, uniformly chosen.

    Raises:
        UsageError: ``data`` has fewer bits.
    """
    return Flips(_different(8 * len(bytes_of(data)), count, rng))


def exponent_bits(weights: NDArray[Any], count: int, rng: np.random.Generator, *, bit: int | None = None) -> Flips:
    """One bit of the exponent of each of ``count`` different weights, which does most harm.

    Args:
        weights: contiguous floats of 2, 4 or 8 bytes, in the machine's own byte order or the other one.
        bit: which one, 0 the lowest; None for any, each by itself. The highest turns 0.5 into 2**127 (float32).

    Raises:
        UsageError: ``weights`` are no such floats, or too few, or there is no such bit.
    """
    if weights.dtype.kind != "f" or weights.dtype.itemsize not in _EXPONENT_BITS:
        raise UsageError(f"{weights.dtype} has no exponent of IEEE 754: floats of 16, 32 or 64 bits are needed")
    begin, width = _EXPONENT_BITS[weights.dtype.itemsize]
    if bit is not None and not 0 <= bit < width:
        raise UsageError(f"bit: an exponent of {weights.dtype} has bits 0 to {width - 1}, not {bit}")
    chosen = _different(weights.size, count, rng)
    within = begin + (rng.integers(0, width, count) if bit is None else np.full(count, bit))
    size_bits = 8 * weights.dtype.itemsize
    if not weights.dtype.isnative or not np.little_endian:
        # The byte order is reversed; the order of bits in a byte never is.
        within = size_bits - 8 - (within & ~7) + (within & 7)
    return Flips(np.sort(chosen * size_bits + within))


def flip_in_file(path: Path, flips: Flips) -> None:
    """Flip bits of a file in place: no copy is made, and its length stays.

    Raises:
        UsageError: the file is too short.
        TargetError: the file cannot be written.
    """
    with _mapped(path) as data:
        flips.apply(data)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        TargetError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TargetError(f"{path}: cannot be read ({error.strerror})") from None


def bytes_of(data: Any) -> Bytes:
    """``data`` as bytes, without a copy.

    Raises:
        UsageError: it is not contiguous, or holds no bytes.
    """
    try:
        view = memoryview(data).cast("B")
    except TypeError as error:
        raise UsageError(f"bits can be flipped in contiguous memory only ({error})") from None
    if view.readonly:
        raise UsageError("bits cannot be flipped in read-only memory")
    return np.frombuffer(view, np.uint8)


@contextmanager
def _mapped(path: Path) -> Iterator[Any]:
    try:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
            yield data
            data.flush()
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped.
        raise TargetError(f"{path}: cannot be changed ({error})") from None


def _different(among: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` different numbers below ``among``, sorted, each set as likely."""
    if not 0 < count <= among:
        raise UsageError(f"count: {count} is not in 1 to {among}, which is all there are")
    if count > among // 2:
        return np.sort(rng.permutation(among)[:count])
    found = _once(rng.integers(0, among, count))
    while len(found) < count:
        found = _once(np.concatenate([found, rng.integers(0, among, 2 * (count - len(found)) + 8)]))
    # Too many are thinned out at random, so that no set is preferred.
    spare = rng.choice(len(found), len(found) - count, replace=False, shuffle=False)
    left: NDArray[np.int64] = np.delete(found, spare)
    return left


def _once(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted, each once. By sorting: numpy's unique takes ten times as long for so many."""
    numbers.sort()
    first: NDArray[np.int64] = numbers[np.concatenate([[True], numbers[1:] != numbers[:-1]])]
    return first
