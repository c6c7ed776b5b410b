"""A hold on one process that no other can be taken for, and signs of life that one process gives another.

A process that asks who its parent is gets the name of whoever adopted it if its parent died while it was starting.
So what must not outlive its owner, or signals it, is told on its command line who that is, and looks whether that
one still lives.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import time
from pathlib import Path

SILENT_S = 5.0
"""A process that gives a sign of life every second, or more often, and none for so long, stands still."""
_LOOK_COUNTS_S = 1.5
_BEAT = b"+"


class ProcessReference:
    """One process, by its number and the moment it started at."""

    def __init__(self, words: str) -> None:
        """
        Args:
            words: ``PID:STARTED``, as ``words_of`` gives them.

        Raises:
            ValueError: they are not.
        """
        pid, _, started = words.partition(":")
        self.pid = int(pid)
        self._pidfd = -1
        wanted = int(started)
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(self.pid)
            # In this order: what the number means now, and meant then, is the same process.
            if _started(self.pid) == wanted:
                self._pidfd = pidfd
            else:
                os.close(pidfd)

    def is_gone(self, within_s: float = 0.0) -> bool:
        """Whether it has ended, reaped or not; waits for that so long."""
        if self._pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(within_s * 1000.0))

    def send(self, number: int) -> None:
        """A signal; to nobody if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)


def words_of(pid: int) -> str:
    """Of a process that lives: this one, its parent, a child that nobody reaped."""
    return f"{pid}:{_started(pid)}"


def add_owner(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Have a module's command line say whom the process ends with; without that, it is its parent."""
    parser.add_argument(
        "--owner",
        type=ProcessReference,
        required=required,
        default=words_of(os.getppid()),
        metavar="PID:STARTED",
        help="whom it ends with",
    )


class Heartbeat:
    """Listens to the signs of life of another process; for one thread at a time."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._looked_s = time.monotonic()
        self._silent_s = 0.0

    def silent_s(self) -> float:
        """For how long it gave none, while this process looked.

        A moment in which this process did not look counts little: then perhaps both did not run.
        """
        now_s = time.monotonic()
        self._silent_s += min(now_s - self._looked_s, _LOOK_COUNTS_S)
        self._looked_s = now_s
        with contextlib.suppress(OSError):
            if os.read(self._descriptor, 65536):
                self._silent_s = 0.0
        return self._silent_s


def beat() -> None:
    """Give a sign of life on standard input, whose other end the owner reads; one who does not, misses some."""
    with contextlib.suppress(OSError):
        os.set_blocking(0, False)
        os.write(0, _BEAT)


def _started(pid: int) -> int:
    """In clock ticks since boot; -1 if it cannot be known."""
    with contextlib.suppress(OSError):
        # The name before it, in parentheses, may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    return -1
