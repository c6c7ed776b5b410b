"""Gates: what holds back a queue of bytes until a delay is over, or until its toxic is removed."""

from __future__ import annotations

import time
from collections.abc import Callable

from monkeyproof.faults.proxy.timers import Timers
from monkeyproof.faults.proxy.toxic import ActiveToxic


class Gate:
    """One delay in a queue. ``pump`` is called when it opens."""

    __slots__ = ("_active", "_arrived_s", "_early", "_own", "_pump", "_timer", "open")

    def __init__(
        self, active: ActiveToxic, timers: Timers, pump: Callable[[], None], delay_ms: float, *, own: bool = False
    ) -> None:
        self._active, self._pump, self._own = active, pump, own
        self._arrived_s = time.monotonic()
        self._early = False
        self.open = False
        self._timer = timers.at(self._arrived_s + delay_ms / 1000, self._ring)
        active.held.add(self)

    def _ring(self) -> None:
        self.open = True
        self._pump()

    def release(self) -> None:
        """The toxic was removed: let what waits pass now."""
        if not self.open:
            self._early = True
            self.open = True
            self._timer.cancel()
            self._pump()

    def passed(self) -> None:
        """What waited behind it is being forwarded."""
        active = self._active
        active.held.discard(self)
        if self._early:
            active.count("released_early")
            return
        active.hit(self._own)
        prefix = "own_" if self._own else ""
        delay_ms = (time.monotonic() - self._arrived_s) * 1000
        active.count(f"{prefix}delayed_ms_total", delay_ms)
        least = active.counters.get(f"{prefix}delay_min_ms", delay_ms)
        active.counters[f"{prefix}delay_min_ms"] = min(least, delay_ms)

    def drop(self) -> None:
        """The connection has ended, and with it what waited."""
        self._timer.cancel()
        self._active.held.discard(self)
