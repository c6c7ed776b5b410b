"""Timers for the delays of the fault proxy: finer than a millisecond, never early, cheap by the thousand.

uvloop's own timers count whole milliseconds, and may fire one too soon.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

from monkeyproof.runtime.timerfd import TimerFile

LEAD_S = 60e-6
"""How long before a timer is due the loop wakes, since waking a process that sleeps takes about as long. The loop
spends what is left awake, and handles whatever else comes."""
_FEW = 64


class Timer:
    """One time to wait for."""

    __slots__ = ("_timers", "ring")

    def __init__(self, timers: Timers, ring: Callable[[], None]) -> None:
        self._timers = timers
        self.ring: Callable[[], None] | None = ring
        """None once it rang or was cancelled, so that it keeps nothing alive."""

    def cancel(self) -> None:
        """Never ring. Does nothing if it rang already."""
        if self.ring is not None:
            self.ring = None
            self._timers.cancelled()


class Timers:
    """All timers of one event loop: a heap, and one timer file that is set to the earliest of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._file = TimerFile()
        self._heap: list[tuple[float, int, Timer]] = []
        """When due, and a number: those due at the same time ring in the order in which they were made."""
        self._numbers = itertools.count()
        self._set_to_s = float("inf")
        self._cancelled = 0
        """How many in the heap were cancelled."""
        loop.add_reader(self._file.fileno(), self._ring)

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due_s: float, ring: Callable[[], None]) -> Timer:
        """Call ``ring`` from the loop once CLOCK_MONOTONIC has reached ``due_s`` seconds."""
        timer = Timer(self, ring)
        heapq.heappush(self._heap, (due_s, next(self._numbers), timer))
        if due_s < self._set_to_s:
            self._set(due_s)
        return timer

    def cancelled(self) -> None:
        """A waiting timer was cancelled. It stays in the heap until it is due, or until there are too many."""
        self._cancelled += 1
        if self._cancelled > _FEW and self._cancelled > len(self._heap) // 2:
            self._heap = [one for one in self._heap if one[2].ring is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def close(self) -> None:
        """Ring no timer any more."""
        self._loop.remove_reader(self._file.fileno())
        self._file.close()
        self._heap.clear()

    def _set(self, due_s: float) -> None:
        self._set_to_s = due_s
        self._file.set(max(1, int((due_s - LEAD_S) * 1e9)))

    def _ring(self) -> None:
        """Ring all that are due, and set the file to the next."""
        while self._heap and self._heap[0][0] <= time.monotonic():
            timer = heapq.heappop(self._heap)[2]
            ring, timer.ring = timer.ring, None
            if ring is None:
                self._cancelled -= 1
            else:
                ring()
        if not self._heap:
            self._set_to_s = float("inf")
            self._file.acknowledge()
        elif self._heap[0][0] - LEAD_S > time.monotonic():
            self._set(self._heap[0][0])
        # Else the file stays readable: the loop does not sleep, and comes back here after its other work.
