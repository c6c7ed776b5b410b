"""What ends a ballast: being told, the end of its owner or of its time, an owner that stands still.

Standard library only: a ballast starts in a moment, and runs where little else is installed.
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

LOOK_EVERY_S = 0.25


class ParentDeathMonitor:
    """Looked at again and again; the owner's end is seen at once, its standing still after ``SILENT_S``."""

    def __init__(self, owner: ProcessReference, for_s: float) -> None:
        self._owner = owner
        self._ends_s = time.monotonic() + for_s
        self._still_since_s: float | None = None
        self._looks_s = 0.0
        self._told: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda signum, _: self._told.append(signum))

    def why_over(self) -> str:
        """Why it is time to end; "" while it is not."""
        now_s = time.monotonic()
        if self._told:
            return "it was told to end"
        if self._owner.has_ended():
            return "its owner is gone"
        if now_s >= self._ends_s:
            return "its time is over"
        if now_s >= self._looks_s:
            self._looks_s = now_s + LOOK_EVERY_S
            if not procfs.is_stopped(self._owner.pid):
                self._still_since_s = None
            elif self._still_since_s is None:
                self._still_since_s = now_s
        if self._still_since_s is not None and now_s - self._still_since_s >= SILENT_S:
            return "its owner stands still"
        return ""

    def wait(self) -> str:
        """Until it is over; returns why."""
        while not (why := self.why_over()):
            self._owner.has_ended(within_s=0.05)
        return why


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The arguments that every ballast has: which it is, whose, and for how long at most."""
    found = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    found.add_argument("--id", required=True, help="by which it is found again")
    found.add_argument("--for-s", type=float, required=True, help="after which it ends in any case")
    add_owner(found, required=True)
    return found


def say(**words: object) -> None:
    """One line of JSON for whoever started this, who may be gone."""
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(words) + "\n")
        sys.stdout.flush()


def parse(found: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = found.parse_args(argv)
    if arguments.for_s <= 0:
        found.error("--for-s: more than 0")
    return arguments


def leave() -> None:
    """End at once: what is left, the kernel gives back."""
    sys.stdout.flush()
    os._exit(0)
