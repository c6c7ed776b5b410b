"""Forks from a single-threaded process, and gives the child none of the parent's files and signal handlers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection

from monkeyproof.runtime import procfs

_PR_SET_PDEATHSIG = 1


def fork(child: Callable[[], None], *, keep: Collection[int], close_inherited: Callable[[], None]) -> int:
    """Run ``child`` in a process that leads its own session and ends with it; returns its pid.

    The child holds none of our open files but the standard ones and ``keep``. ``close_inherited`` closes those
    that objects own: if only their numbers were closed, a later garbage collection would close other files with
    these numbers. The kernel kills the child when this process dies, however it dies.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:  # Else the parent died before the kernel knew about the signal.
            os.setsid()
            close_inherited()
            _close_all_but(keep)
            _reset_signals()
            child()
            status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # Never back into the parent's loop.


def kill_group(pid: int) -> None:
    """Send SIGKILL to a child that was forked here and not yet reaped, and to its process group."""
    for kill in (os.killpg, os.kill):  # It may not lead its group yet.
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _close_all_but(keep: Collection[int]) -> None:
    for number in procfs.open_descriptors(os.getpid()):
        if number > 2 and number not in keep:
            with contextlib.suppress(OSError):
                os.close(number)


def _reset_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
