"""The watchdog: reverts a trial's faults when the process that ran it has died, however it died.

Run as ``python -m monkeyproof.safety.watchdog PIDFD GROUP LOG FOLDER`` in a session of its own, so that neither
Ctrl-C nor the end of any process group of the harness ends it. It holds the worker's pidfd; GROUP is the process
group that the worker leads (0: none). Over a socket on its standard input it sends a heartbeat every second, and
receives a byte when the undo log was closed in order: then it ends at once. As long as the worker lives it reverts
nothing, not even if the worker hangs. It imports what an undo needs only when it acts.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monkeyproof.record.history import Kind
    from monkeyproof.types import Json

WATCHING = b"+"
CLOSED = b"."
HEARTBEAT_EVERY_S = 1.0
RETRY_FOR_S = 10.0
"""An undo that fails at once may succeed later: a service restarts, a proxy of the dead worker still ends."""
ACT_WITHIN_S = 60.0
"""An undo that hangs must not keep the log from ``monkeyproof revert`` for ever."""


def await_death(pidfd: int) -> bool:
    """Wait for the worker's end; returns False if the worker reported first that its log is closed."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(0, select.POLLIN)
    connected = True
    while True:
        if connected:
            with contextlib.suppress(OSError):  # The worker does not read, or has ended.
                os.write(0, WATCHING)
        ready = {descriptor for descriptor, _ in poll.poll(HEARTBEAT_EVERY_S * 1000.0 if connected else None)}
        if 0 in ready:
            try:
                received = os.read(0, 1)
            except OSError:
                received = b""
            if received == CLOSED:
                return False
            connected = False
            poll.unregister(0)  # No more messages can come: only the worker's end counts.
        if pidfd in ready:
            return True


def act(log: Path, folder: Path) -> bool:
    """Revert the open faults of the log, and record that in the trial's events; returns whether none is left."""
    from monkeyproof.record import history
    from monkeyproof.record.history import Kind

    record = _event_writer(folder)
    if not _had_ended(folder):
        record(Kind.TRIAL_ABORTED, folder.name, why="its worker died")
    from monkeyproof.safety.replay import replay
    from monkeyproof.undo.log import LogHeld

    ends_s = time.monotonic() + RETRY_FOR_S
    archive = folder / history.UNDO_FILE if folder.is_dir() else None
    while True:
        try:
            found = replay(log, archive=archive)
        except LogHeld as error:
            print(f"watchdog: {error}", file=sys.stderr)
            return False
        for fault, summary in found.done:
            record(Kind.FAULT_REVERTED, fault.subject, id=fault.id, fault=fault.fault, summary=summary)
        for words in found.unreadable:
            print(f"watchdog: {words}", file=sys.stderr)
        if not found.failed:
            return not found.unreadable
        if time.monotonic() >= ends_s:
            for fault, why in found.failed:
                record(Kind.FAULT_NOT_REVERTED, fault.subject, id=fault.id, fault=fault.fault, why=why)
            return False
        time.sleep(0.25)


def _end_group(group: int) -> None:
    """Kill the worker's process group: its activities must not inject faults during the revert, or after it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _event_writer(folder: Path) -> Callable[..., None]:
    """A function that appends trial events; where that fails it prints them, for the revert must go on."""
    from monkeyproof.clock import Anchor
    from monkeyproof.record.history import TRIAL_FILE, HistoryWriter

    writer: HistoryWriter | None = None

    def record(kind: Kind, subject: str, **data: Json) -> None:
        nonlocal writer
        try:
            if writer is None:
                anchor = json.loads((folder / TRIAL_FILE).read_bytes())["anchor"]
                writer = HistoryWriter(folder, Anchor(**anchor), "watchdog")
            writer.event(kind, subject, **data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"watchdog: {kind} {subject} {data} (not written: {error})", file=sys.stderr)

    return record


def _had_ended(folder: Path) -> bool:
    """Whether the trial had ended when its worker died: then it was not cut off."""
    from monkeyproof.errors import UsageError
    from monkeyproof.record.history import Kind, events_in

    try:
        return any(event.kind is Kind.TRIAL_ENDED for event in events_in(folder))
    except (OSError, UsageError):
        return False


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Passed in, not read from the kernel: if the worker died meanwhile, the parent is another process.
    pidfd, group, log, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    os.set_blocking(0, False)
    if await_death(pidfd) and log.exists():
        signal.alarm(int(ACT_WITHIN_S))
        if group:
            _end_group(group)
        act(log, folder)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
