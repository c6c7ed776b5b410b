"""The kernel's timer files (timerfd), with nanosecond resolution; an event loop's timers have milliseconds.

Python offers the system calls from 3.13 on; until that is the oldest supported version, ctypes calls them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

_TFD_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class TimerFile:
    """A file that becomes readable when CLOCK_MONOTONIC reaches a time, never before."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file: int = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def fileno(self) -> int:
        return self._file

    def set(self, at_ns: int, every_ns: int = 0) -> None:
        """Make it readable at ``at_ns`` (at once if that is past), and every ``every_ns`` from there unless that
        is 0. Replaces an earlier setting, and makes it unreadable until then; ``at_ns`` 0 disarms it."""
        when = _Itimerspec(_Timespec(*divmod(every_ns, 10**9)), _Timespec(*divmod(at_ns, 10**9)))
        if self._libc.timerfd_settime(self._file, _TFD_TIMER_ABSTIME, ctypes.byref(when), None) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def acknowledge(self) -> None:
        """Make it unreadable until the next time. The clock tells the caller how many times have passed."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._file, 8)

    def close(self) -> None:
        os.close(self._file)
