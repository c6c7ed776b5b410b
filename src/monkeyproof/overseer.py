"""Ends the trial of this process, in order: everything is to stop, or nobody watches or records it any more."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

from monkeyproof.history import EVENTS_FILE, Event, Kind, parse_events
from monkeyproof.stopping import STOPPED, is_stopped

LOOK_EVERY_S = 0.1
LEAVES_WITHIN_S = 2.0
"""A worker that was told to end, and has not begun to take things back by then, is killed; and others do it."""
_LEAVING = (Kind.FAULT_REVERTED, Kind.FAULT_NOT_REVERTED, Kind.TRIAL_ENDED)


class Overseer:
    """A thread that looks, and interrupts the main thread as a signal from outside would."""

    def __init__(self, abort: Callable[[str], None], *looks: Callable[[], str]) -> None:
        """
        Args:
            abort: writes down why the trial ends.
            looks: each says why the trial may not go on; "" if all is well.
        """
        self._abort = abort
        self._looks = looks
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="overseer", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            why = STOPPED if is_stopped() else next((why for look in self._looks if (why := look())), "")
            if why and not self._ended.is_set():
                self._abort(why)
                # To the main thread itself: a signal that another thread got would not wake it.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return

    def end(self) -> None:
        """Look no more. Idempotent."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()


def events_in(folder: Path) -> list[Event]:
    """A trial's events so far; none if it has no history yet."""
    try:
        return list(parse_events((folder / EVENTS_FILE).read_bytes()))
    except FileNotFoundError:
        return []


def is_leaving(folder: Path, seen: int) -> bool:
    """Whether a trial takes things back, as its events after the first ``seen`` tell. That may take its time."""
    events = events_in(folder)
    began = {one.subject for one in events[seen:] if one.kind is Kind.PHASE_STARTED}
    return (
        bool(began & {"revert", "put_back"})
        or any(one.kind in _LEAVING for one in events[seen:])
        # Once it has begun that, it does nothing else any more.
        or any(one.kind is Kind.TRIAL_ENDING for one in events)
    )
