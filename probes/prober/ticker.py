"""A periodic timer of the kernel, which keeps its period exactly, so that a schedule does not drift."""

from __future__ import annotations

from monkeyproof.runtime.timerfd import TimerFile


class Ticker(TimerFile):
    """Makes ``fileno()`` readable at ``start_ns`` of CLOCK_MONOTONIC, and every ``every_ns`` from there."""

    def __init__(self, start_ns: int, every_ns: int) -> None:
        super().__init__()
        self.set(start_ns, every_ns)
