"""Memory that is reused: fresh memory takes longer, page by page, than the work that is done in it."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_of_thread = threading.local()


class Workspace:
    """Memory for corrupted copies, with their masks and journals: give the same one to ``corrupt`` for batch after
    batch.

    The next batch overwrites the one before, with its mask and its journal. Two threads must not share one.
    """

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []
        self._parts: dict[int, Workspace] = {}
        self._next = 0

    def begin(self) -> None:
        """Begin a new batch: all memory may be reused."""
        self._next = 0
        for part in self._parts.values():
            part.begin()

    def part(self, number: int) -> Workspace:
        """The workspace of one thread."""
        return self._parts.setdefault(number, Workspace())

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str = "C") -> NDArray[Any]:
        """An uninitialised array."""
        size_bytes = math.prod(shape) * dtype.itemsize
        if self._next == len(self._kept):
            self._kept.append(np.empty(0, np.uint8))
        if len(self._kept[self._next]) < size_bytes:
            self._kept[self._next] = np.empty(size_bytes, np.uint8)
        found = self._kept[self._next][:size_bytes].view(dtype)
        self._next += 1
        return found.reshape(shape[::-1]).T if order == "F" else found.reshape(shape)


class Scratch:
    """Arrays that are needed within a block and not after it. A few MiB stay with each thread."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def array(self, name: str, dtype: Any, shape: tuple[int, ...] | int) -> NDArray[Any]:
        """An uninitialised array; the next call with the same name overwrites it."""
        size = shape if isinstance(shape, int) else math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or len(kept) < size or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)


def scratch() -> Scratch:
    """The scratch memory of this thread."""
    found: Scratch = _of_thread.__dict__.setdefault("scratch", Scratch())
    return found
