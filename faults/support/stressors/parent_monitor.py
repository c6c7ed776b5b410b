"""Ends a stressor: on a signal, when its owner has ended or is stopped, and when its time is over.

It imports the standard library and ``monkeyproof.runtime`` alone, so that a stressor starts at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence

from monkeyproof.runtime import procfs
from monkeyproof.runtime.process_ref import SILENT_S, ProcessReference, add_owner

CHECK_EVERY_S = 0.25


class ParentDeathMonitor:
    """Tells whether a stressor has to exit. It sees an owner's end at once, a stop after ``SILENT_S``."""

    def __init__(self, owner: ProcessReference, for_s: float) -> None:
        self._owner = owner
        self._ends_s = time.monotonic() + for_s
        self._stopped_since_s: float | None = None
        self._next_check_s = 0.0
        self._signals: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda signum, _: self._signals.append(signum))

    def why_over(self) -> str:
        """Why the stressor has to exit; "" while it may go on. Call it again and again."""
        now_s = time.monotonic()
        if self._signals:
            return "it received a signal to end"
        if self._owner.has_ended():
            return "its owner has ended"
        if now_s >= self._ends_s:
            return "its time is over"
        if now_s >= self._next_check_s:
            self._next_check_s = now_s + CHECK_EVERY_S
            if not procfs.is_stopped(self._owner.pid):
                self._stopped_since_s = None
            elif self._stopped_since_s is None:
                self._stopped_since_s = now_s
        if self._stopped_since_s is not None and now_s - self._stopped_since_s >= SILENT_S:
            return "its owner is stopped"
        return ""

    def wait(self) -> str:
        """Wait until the stressor has to exit; returns why."""
        while not (why := self.why_over()):
            self._owner.has_ended(within_s=0.05)
        return why


def stressor_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every stressor has: its id, its owner, and how long it may run at most."""
    found = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    found.add_argument("--id", required=True, help="the id by which the harness finds this process again")
    found.add_argument("--for-s", type=float, required=True, help="exit after so many seconds in any case")
    add_owner(found, required=True)
    return found


def report(**words: object) -> None:
    """Write one line of JSON for the process that started this one, which may have ended."""
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(words) + "\n")
        sys.stdout.flush()


def parse_arguments(found: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line, and exit with a message if it is not valid."""
    """Parse the command line, and exit with a message if it is not valid."""
    arguments = found.parse_args(argv)
    if arguments.for_s <= 0:
        found.error("--for-s: a number above 0 is needed")
    return arguments


def exit_now() -> None:
    """Exit at once, without any clean-up: the kernel releases what is left."""
    sys.stdout.flush()
    os._exit(0)
