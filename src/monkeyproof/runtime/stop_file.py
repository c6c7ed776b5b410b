"""The stop file: while it lies in the harness's home, nothing is injected, and what runs ends.

Looking for it is one ``stat``, so that everybody who breaks something can look as often as they like.
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
"""Those that end a run in order: SIGHUP is none where whoever started this process had it ignored (nohup)."""


def stop_file() -> Path:
    return paths.home() / "stop"


def is_stopped() -> bool:
    """Whether somebody asked for everything to stop. What cannot be looked at counts as a yes."""
    try:
        stop_file().lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def refuse_if_stopped() -> None:
    """Raises: Refusal: the stop file is there."""
    if is_stopped():
        raise Refusal(
            f"everything was stopped ({stop_file()} is there)",
            "once it may go on: monkeyproof stop --clear",
        )
