"""Keeps one core busy for a share of the time, until its monitor ends it.

python -m monkeyproof.faults.support.stressors.cpu --id ID --owner PID:STARTED --for-s S --busy-share 0.9
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from monkeyproof.faults.support.stressors.parent_monitor import (
    ParentDeathMonitor,
    exit_now,
    parse_arguments,
    report,
    stressor_parser,
)

PERIOD_S = 0.02


def burn(busy_share: float, monitor: ParentDeathMonitor) -> None:
    """Be runnable for that share of every period. Time that other processes take from it is not made up for."""
    while not monitor.why_over():
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < busy_share * PERIOD_S:
            pass
        if busy_share < 1:
            time.sleep(max(0.0, begun_s + PERIOD_S - time.monotonic()))


def main(argv: Sequence[str] | None = None) -> None:
    found = stressor_parser("monkeyproof.faults.support.stressors.cpu", "Keep one core busy.")
    found.add_argument("--busy-share", type=float, default=1.0)
    found.add_argument("--nice", type=int, default=0)
    found.add_argument("--cores", default="", help="run on these cores only, such as 0,1")
    arguments = parse_arguments(found, argv)
    monitor = ParentDeathMonitor(arguments.owner, arguments.for_s)
    os.nice(arguments.nice)
    if arguments.cores:
        os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})
    report(pid=os.getpid())
    burn(arguments.busy_share, monitor)
    exit_now()


if __name__ == "__main__":
    main()
