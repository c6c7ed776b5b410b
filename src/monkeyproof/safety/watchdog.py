"""Takes back what a trial had injected when the process that ran it is gone, however it went.

Run as ``python -m monkeyproof.safety.watchdog PIDFD GROUP LOG FOLDER`` in a session of its own, so that neither
Ctrl-C nor the end of any process group of the harness ends it. It holds the worker's pidfd, and is told which
group the worker leads (0: none). Over a socket on its standard input it says every second that it watches,
and is told when the undo log was closed in order: then it ends at once. As long as the worker lives it undoes
nothing, not even if the worker hangs. What it needs for an undo, it imports when it acts.
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
SAYS_EVERY_S = 1.0
TRY_FOR_S = 10.0
"""What cannot be undone at once may be later: a service restarts, a proxy of the dead worker still ends."""
ACT_WITHIN_S = 60.0
"""An undo that hangs must not keep the log from ``monkeyproof revert`` for ever."""


def await_death(pidfd: int) -> bool:
    """Wait for the worker's end. Returns whether it died; False if it said before that its log is closed."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(0, select.POLLIN)
    heard = True
    while True:
        if heard:
            with contextlib.suppress(OSError):  # One that does not read, or is gone.
                os.write(0, WATCHING)
        ready = {descriptor for descriptor, _ in poll.poll(SAYS_EVERY_S * 1000.0 if heard else None)}
        if 0 in ready:
            try:
                said = os.read(0, 1)
            except OSError:
                said = b""
            if said == CLOSED:
                return False
            heard = False
            poll.unregister(0)  # Nobody will say anything any more: only the worker's end counts.
        if pidfd in ready:
            return True


def act(log: Path, folder: Path) -> bool:
    """Undo what stands open in the log, and say so in the trial's events. Returns whether nothing is left."""
    from monkeyproof.record import history
    from monkeyproof.record.history import Kind

    tell = _teller(folder)
    if not _had_ended(folder):
        tell(Kind.TRIAL_ABORTED, folder.name, why="its worker died")
    from monkeyproof.safety.replay import replay
    from monkeyproof.undo.log import LogHeld

    ends_s = time.monotonic() + TRY_FOR_S
    archive = folder / history.UNDO_FILE if folder.is_dir() else None
    while True:
        try:
            found = replay(log, archive=archive)
        except LogHeld as error:
            print(f"watchdog: {error}", file=sys.stderr)
            return False
        for fault, summary in found.done:
            tell(Kind.FAULT_REVERTED, fault.subject, id=fault.id, fault=fault.fault, summary=summary)
        for words in found.unreadable:
            print(f"watchdog: {words}", file=sys.stderr)
        if not found.failed:
            return not found.unreadable
        if time.monotonic() >= ends_s:
            for fault, why in found.failed:
                tell(Kind.FAULT_NOT_REVERTED, fault.subject, id=fault.id, fault=fault.fault, why=why)
            return False
        time.sleep(0.25)


def _end_group(group: int) -> None:
    """What the worker's activities run must not go on injecting beside the undo, or after it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _teller(folder: Path) -> Callable[..., None]:
    """Writes the trial's events. Undoing matters more: what cannot be written goes to standard error."""
    from monkeyproof.clock import Anchor
    from monkeyproof.record.history import TRIAL_FILE, HistoryWriter

    writer: HistoryWriter | None = None

    def tell(kind: Kind, subject: str, **data: Json) -> None:
        nonlocal writer
        try:
            if writer is None:
                anchor = json.loads((folder / TRIAL_FILE).read_bytes())["anchor"]
                writer = HistoryWriter(folder, Anchor(**anchor), "watchdog")
            writer.event(kind, subject, **data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"watchdog: {kind} {subject} {data} (not written: {error})", file=sys.stderr)

    return tell


def _had_ended(folder: Path) -> bool:
    """Whether the trial had come to its end when its worker died: then nobody was cut off."""
    from monkeyproof.errors import UsageError
    from monkeyproof.record.history import Kind, events_in

    try:
        return any(event.kind is Kind.TRIAL_ENDED for event in events_in(folder))
    except (OSError, UsageError):
        return False


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Told, not asked for: the parent of one whose worker died meanwhile is a stranger.
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
