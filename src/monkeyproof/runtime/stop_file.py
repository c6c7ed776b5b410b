"""The stop file: while it exists in the harness's home, no fault is injected, and running campaigns end.

Checking for it is one ``stat``, so that every process that injects faults can check often.
"""

from __future__ import annotations

import signal
from pathlib import Path

from monkeyproof import paths
from monkeyproof.errors import Refusal

STOPPED = "stopped by 'monkeyproof stop'"
SIGNALS = tuple(
    number
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
)
"""Signals that end a run in order. SIGHUP is left out where this process was started with it ignored (nohup)."""


def stop_file() -> Path:
    """Where the stop file is, or would be."""
    return paths.home() / "stop"


def is_stop_requested() -> bool:
    """Whether a user asked for everything to stop. A home that cannot be read counts as yes."""
    try:
        stop_file().lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def refuse_if_stop_requested() -> None:
    """Raises: Refusal: the stop file is there."""
    if is_stop_requested():
        raise Refusal(
            f"everything was stopped ({stop_file()} is there)",
            "once it may go on: monkeyproof stop --clear",
        )
