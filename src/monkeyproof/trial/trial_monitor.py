"""Ends the trial of this process, in order: everything is to stop, or nobody watches or records it any more."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from monkeyproof.runtime.stop_file import STOPPED, is_stop_requested

LOOK_EVERY_S = 0.1


class TrialMonitor:
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
            why = STOPPED if is_stop_requested() else next((why for look in self._looks if (why := look())), "")
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
