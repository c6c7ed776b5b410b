"""References to processes that hold although their numbers are used again, and heartbeats between processes.

A process that asks for its parent's pid gets that of the process which adopted it, if its parent died while it
was starting. So a process that must not outlive its owner, or that signals it, gets the owner's reference on its
command line, and checks whether that very process still runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping

from monkeyproof.runtime import procfs
from monkeyproof.types import Json

SILENT_S = 5.0
"""A process that sends a heartbeat at least every second, and then none for so long, is stopped or hangs."""
_GAP_COUNTS_S = 1.5
_BEAT = b"+"


class ProcessReference:
    """One process, by its number and the moment it started at."""

    def __init__(self, text: str) -> None:
        """
        Args:
            text: ``PID:STARTED``, as ``reference_text`` gives it.

        Raises:
            ValueError: it has another form.
        """
        pid, _, started = text.partition(":")
        self.pid = int(pid)
        self._pidfd = -1
        wanted = int(started)
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(self.pid)
            # In this order: the descriptor's process and the one with the wanted start are the same.
            if _start_ticks(self.pid) == wanted:
                self._pidfd = pidfd
            else:
                os.close(pidfd)

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether the process has ended, reaped or not; waits for that up to ``within_s`` seconds."""
        if self._pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(within_s * 1000.0))

    def send_signal(self, number: int) -> None:
        """Send a signal to the process; does nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)


def reference_text(pid: int) -> str:
    """``PID:STARTED`` of a process that cannot be reaped meanwhile: this one, its parent, an unreaped child."""
    return f"{pid}:{_start_ticks(pid)}"


def identity(pid: int) -> dict[str, Json]:
    """``pid`` and ``started``, which together identify a process; ``started`` is None if it has ended."""
    return {"pid": pid, "started": procfs.start_ticks(pid)}


def is_same(known: Mapping[str, Json]) -> bool:
    """Whether the process of an ``identity`` still runs."""
    return known["started"] is not None and procfs.start_ticks(int(known["pid"])) == known["started"]


def add_owner(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add the option ``--owner`` to a module's command line; without it, the owner is the parent process."""
    parser.add_argument(
        "--owner",
        type=ProcessReference,
        required=required,
        default=reference_text(os.getppid()),
        metavar="PID:STARTED",
        help="The process with which this one ends.",
    )


class Heartbeat:
    """Receives the heartbeats of another process; for use by one thread at a time."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._checked_s = time.monotonic()
        self._silent_s = 0.0

    def silent_s(self) -> float:
        """For how many seconds no heartbeat came while this process was checking.

        A gap between two checks counts for 1.5 s at most: in a longer one perhaps neither process ran.
        """
        now_s = time.monotonic()
        self._silent_s += min(now_s - self._checked_s, _GAP_COUNTS_S)
        self._checked_s = now_s
        with contextlib.suppress(OSError):
            if os.read(self._descriptor, 65536):
                self._silent_s = 0.0
        return self._silent_s


def send_heartbeat() -> None:
    """Send a heartbeat over standard input, whose other end the owner reads; drop it if the pipe is full."""
    with contextlib.suppress(OSError):
        os.set_blocking(0, False)
        os.write(0, _BEAT)


def _start_ticks(pid: int) -> int:
    """In clock ticks since boot, of a zombie as well; -1 if there is no such process."""
    found = procfs.process(pid)
    return -1 if found is None else found.started_ticks
