"""Ends the trial of this process in order: after 'monkeyproof stop', or if a safeguard or the record fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from monkeyproof.runtime.stop_file import STOPPED, is_stop_requested

CHECK_EVERY_S = 0.1


class TrialMonitor:
    """A thread that runs checks, and interrupts the main thread as a signal from outside would."""

    def __init__(self, abort: Callable[[str], None], *checks: Callable[[], str]) -> None:
        """
        Args:
            abort: records why the trial ends.
            checks: each returns why the trial must not continue; "" if it may.
        """
        self._abort = abort
        self._checks = checks
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trial monitor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(CHECK_EVERY_S):
            why = STOPPED if is_stop_requested() else next((why for check in self._checks if (why := check())), "")
            if why and not self._ended.is_set():
                self._abort(why)
                # To the main thread itself: a signal to another thread would not wake it.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return

    def end(self) -> None:
        """End the checks. Idempotent."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
