"""Ends process groups when the process that started them has ended, however it ended.

Run as ``python -m monkeyproof.runtime.reaper`` in a session of its own. It reads lines from its owner: ``+PID``
registers the group that PID leads, ``-PID`` removes it when it has ended. The owner holds the only write end of
the pipe, so end-of-file means that the owner has died (kill -9 included) or has closed the pipe on purpose.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Collection

# Long enough for a worker to revert its faults in order, before it is killed.
TERM_GRACE_S = 5.0


def end_groups(pgids: Collection[int], grace_s: float = TERM_GRACE_S) -> None:
    """Terminate each process group, then kill it if it exists after ``grace_s``. Returns when all have ended.

    Safe against reuse of ids as long as the caller has not reaped the leader, or the group still has members:
    the kernel hands out no process id that names an existing group.
    """
    for how in (signal.SIGTERM, signal.SIGKILL):
        for pgid in pgids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pgid, how)
                os.killpg(pgid, signal.SIGCONT)  # A stopped process would never see its SIGTERM.
        deadline_s = time.monotonic() + grace_s
        while time.monotonic() < deadline_s:
            if not any(group_exists(pgid) for pgid in pgids):
                return
            time.sleep(0.01)


def group_exists(pgid: int) -> bool:
    """Whether any process, zombies included, is left in the group."""
    try:
        os.killpg(pgid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    registered: set[int] = set()
    buffered = b""
    while True:
        select.select([0], [], [])
        chunk = os.read(0, 65536)
        if not chunk:
            break
        buffered += chunk
        *lines, buffered = buffered.split(b"\n")
        for line in lines:
            pid = int(line[1:])
            (registered.add if line.startswith(b"+") else registered.discard)(pid)
    end_groups(registered)
    sys.exit(0)


if __name__ == "__main__":
    main()
