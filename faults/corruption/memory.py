"""Memory that is used again. Fresh memory takes longer to come, page by page, than all that is done with it."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_of_thread = threading.local()


class Room:
    """Where corrupted copies lie, with their masks and journals: give the same one to ``corrupt`` for batch after
    batch.

    What was corrupted into it before is overwritten by the next, and so are its mask and its way back. Not for two
    threads at once.
    """

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []
        self._parts: dict[int, Room] = {}
        self._next = 0

    def begin(self) -> None:
        """From here on, all of it may be used again."""
        self._next = 0
        for part in self._parts.values():
            part.begin()

    def part(self, number: int) -> Room:
        """One of its own, for a thread of its own."""
        return self._parts.setdefault(number, Room())

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str = "C") -> NDArray[Any]:
        """Some of it, as an array with anything in it."""
        size_bytes = math.prod(shape) * dtype.itemsize
        if self._next == len(self._kept):
            self._kept.append(np.empty(0, np.uint8))
        if len(self._kept[self._next]) < size_bytes:
            self._kept[self._next] = np.empty(size_bytes, np.uint8)
        found = self._kept[self._next][:size_bytes].view(dtype)
        self._next += 1
        return found.reshape(shape[::-1]).T if order == "F" else found.reshape(shape)


class Scratch:
    """For what is needed within a block and not after it. A few MiB stay with each thread."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def array(self, name: str, dtype: Any, shape: tuple[int, ...] | int) -> NDArray[Any]:
        """Overwritten when the same name is asked for again."""
        size = shape if isinstance(shape, int) else math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or len(kept) < size or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)


def scratch() -> Scratch:
    """This thread's own."""
    found: Scratch = _of_thread.__dict__.setdefault("scratch", Scratch())
    return found
