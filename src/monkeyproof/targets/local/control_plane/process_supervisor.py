"""Keeps one process running: notices its death at once, and restarts it with exponential backoff."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from monkeyproof.errors import MonkeyproofError, TargetError
from monkeyproof.runtime.procfs import is_stopped

log = logging.getLogger(__name__)
CHECK_EVERY_S = 0.05
RESTART_GRACE_S = 3.0


class StartError(MonkeyproofError):
    """A part ended, or did not answer in time, before it was ready for the first time."""


@dataclass
class Backoff:
    """How long to wait before the next start."""

    first_s: float = 0.2
    cap_s: float = 5.0
    forget_after_s: float = 10.0
    """After being ready for so long, earlier failures do not count."""
    failures: int = 0

    def next_s(self, healthy_for_s: float) -> float:
        """Seconds to wait after a process that was ready for ``healthy_for_s``."""
        if healthy_for_s >= self.forget_after_s:
            self.failures = 0
        delay_s = min(self.cap_s, self.first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return delay_s


class ProcessSupervisor:
    """One process, kept running by ``run`` until that is cancelled.

    ``start`` starts it and returns its pid, ``answers`` checks whether it is ready, ``ended`` cleans up after it.
    ``changed`` is called at every change of state, and ``became_ready`` at that one.
    """

    def __init__(
        self,
        name: str,
        *,
        start: Callable[[], Awaitable[int]],
        answers: Callable[[], Awaitable[bool]],
        ended: Callable[[int], None],
        changed: Callable[[], None] = lambda: None,
        became_ready: Callable[[], None] = lambda: None,
        port: int | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.pid: int | None = None
        self.starts = 0
        self.ready = asyncio.Event()
        self.backoff = Backoff()
        self.problem = ""
        """Why the last start failed, or the last process ended."""
        self._start, self._answers, self._ended, self._changed = start, answers, ended, changed
        self._became_ready = became_ready
        self._pidfd = -1
        self._waiting = False
        self._at_once = asyncio.Event()

    @property
    def state(self) -> str:
        """starting, ready, paused, backing_off or down."""
        if self.pid is None:
            return "backing_off" if self._waiting else "down"
        if is_stopped(self.pid):
            return "paused"
        return "ready" if self.ready.is_set() else "starting"

    async def run(self) -> None:
        while True:
            ready_for_s = 0.0
            try:
                pid = await self._start()
                self._pidfd = os.pidfd_open(pid)
            except (OSError, MonkeyproofError) as error:
                self.problem = str(error)
            else:
                ready_for_s = await self._supervise(pid)
            await self._pause_before_next(ready_for_s)

    async def wait_ready(self, within_s: float) -> None:
        """Wait until it is ready.

        Raises:
            StartError: it ended instead, could not be started, or took too long.
        """
        deadline_s = time.monotonic() + within_s
        while not self.ready.is_set():
            if self.problem:
                raise StartError(f"{self.name}: {self.problem}")
            if time.monotonic() >= deadline_s:
                raise StartError(f"{self.name}: no answer within {within_s:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ready.wait(), CHECK_EVERY_S)

    def signal(self, number: signal.Signals) -> int:
        """Send a signal; returns the pid that it went to.

        Raises:
            TargetError: it is not running.
        """
        if self.pid is None:
            raise TargetError(f"{self.name} is not running ({self.state})")
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            raise TargetError(f"{self.name} has just ended") from None
        return self.pid

    def start_at_once(self) -> None:
        """Skip the wait before its next start, now or when it ends."""
        self.backoff.failures = 0
        self._at_once.set()

    async def restart(self) -> None:
        """End it, cleanly if it can, and start it again without waiting."""
        starts = self.starts
        self.start_at_once()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(TargetError):
                self.signal(number)
                self.signal(signal.SIGCONT)  # A stopped process would never see its SIGTERM.
            deadline_s = time.monotonic() + RESTART_GRACE_S
            while self.starts == starts and time.monotonic() < deadline_s:
                await asyncio.sleep(0.01)
            if self.starts > starts:
                return
        raise TargetError(f"{self.name} could not be restarted: {self.problem or self.state}")

    async def _supervise(self, pid: int) -> float:
        """Supervise one process from start to end; returns for how many seconds it was ready."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._pidfd, ended.set)
        self.pid, self.starts, ready_since_s = pid, self.starts + 1, float("inf")
        self._at_once.clear()
        self._changed()
        log.info("%s: started, pid %d", self.name, pid)
        try:
            while not ended.is_set():
                if not self.ready.is_set() and await self._is_ready():
                    self.ready.set()
                    ready_since_s = time.monotonic()
                    self._changed()
                    self._became_ready()
                    log.info("%s: ready", self.name)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), None if self.ready.is_set() else CHECK_EVERY_S)
        finally:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self.pid, self._pidfd = None, -1
            self.ready.clear()
        self._ended(pid)
        self.problem = f"pid {pid} ended"
        log.info("%s: ended, pid %d", self.name, pid)
        return max(0.0, time.monotonic() - ready_since_s)

    async def _is_ready(self) -> bool:
        try:
            return await self._answers()
        except (OSError, httpx.HTTPError, MonkeyproofError):
            return False

    async def _pause_before_next(self, ready_for_s: float) -> None:
        delay_s = self.backoff.next_s(ready_for_s)
        self._waiting = True
        self._changed()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._at_once.wait(), delay_s)
        self._waiting = False
        if self._at_once.is_set():
            self.backoff.failures = 0
        self._at_once.clear()
