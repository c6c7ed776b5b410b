"""Time, passed in. Instants are CLOCK_MONOTONIC seconds, which every process of one machine shares."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The harness's source of time. ``monotonic_s`` never goes back; ``utc`` is for people only."""

    def monotonic_s(self) -> float: ...

    def sleep_s(self, duration_s: float) -> None: ...

    def utc(self) -> datetime: ...


class SystemClock:
    """CLOCK_MONOTONIC of this machine."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep_s(self, duration_s: float) -> None:
        time.sleep(duration_s)

    def utc(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that a test moves, directly or through ``sleep_s``."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep_s(self, duration_s: float) -> None:
        self.now_s += duration_s

    def utc(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, tz=UTC)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a trial's time begins: the monotonic instant that is ``t_s = 0``, and the UTC of the same moment."""

    monotonic_s: float
    utc: str

    @classmethod
    def now(cls, clock: Clock) -> Anchor:
        return cls(clock.monotonic_s(), clock.utc().isoformat(timespec="milliseconds"))


def wait_for(
    condition: Callable[[], bool], *, within_s: float, every_s: float = 0.02, clock: Clock | None = None
) -> bool:
    """Poll ``condition`` until it holds or ``within_s`` has passed; return whether it held."""
    clock = clock or SystemClock()
    deadline_s = clock.monotonic_s() + within_s
    while not condition():
        if clock.monotonic_s() >= deadline_s:
            return False
        clock.sleep_s(every_s)
    return True
