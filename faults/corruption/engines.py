"""The engines that change numbers: numpy, and on request numba, which gives the same bytes on all cores.

Numba is not chosen automatically: it compiles for seconds before its first table (and stores what it compiled),
which only large tables make up for, and it takes every core that it may have.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.matrix import CorruptMatrix, corrupt_matrix

EngineName = Literal["numpy", "numba"]
A = TypeVar("A")
B = TypeVar("B")

_CELLS_MIN = 1 << 20
"""Cells for one thread: fewer take less time than starting a thread."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How arrays are corrupted, and by how many threads."""

    corrupt: CorruptMatrix
    threads_count: int = 1

    def map(self, work: Callable[[A], B], pieces: Sequence[A]) -> Iterable[B]:
        """Results in order, all computed before the first is returned."""
        if self.threads_count == 1 or len(pieces) == 1:
            return [work(piece) for piece in pieces]
        with ThreadPoolExecutor(self.threads_count) as pool:
            return list(pool.map(work, pieces))

    def cuts(self, rows_count: int, width: int) -> list[int]:
        """Where to cut rows into pieces: from 0 to their number."""
        pieces = max(1, min(self.threads_count, rows_count * width // _CELLS_MIN))
        return [rows_count * piece // pieces for piece in range(pieces)] + [rows_count]


NUMPY = Engine(corrupt_matrix)


def engine_of(name: str) -> Engine:
    """The engine of that name.

    Raises:
        UsageError: there is no such engine, or it is not installed.
    """
    if name == "numpy":
        return NUMPY
    if name != "numba":
        raise UsageError(f"engine: {name!r} is neither numpy nor numba")
    if importlib.util.find_spec("numba") is None:
        raise UsageError("engine: numba is not installed; get it with monkeyproof's extra 'fast', or use numpy")
    from monkeyproof.faults.corruption import numba_engine

    return Engine(numba_engine.corrupt_matrix, len(os.sched_getaffinity(0)))
