"""A periodic timer of the kernel (timerfd): a loop's own timers count in whole milliseconds, and drift."""

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


class Ticker:
    """Makes ``fileno()`` readable at ``start_ns`` of CLOCK_MONOTONIC, and every ``every_ns`` from there.

    Python offers the system call from 3.13 on; until that is the oldest supported one, it is called by ctypes.
    """

    def __init__(self, start_ns: int, every_ns: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._file: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        when = _Itimerspec(_Timespec(*divmod(every_ns, 10**9)), _Timespec(*divmod(start_ns, 10**9)))
        if self._file < 0 or libc.timerfd_settime(self._file, _TFD_TIMER_ABSTIME, ctypes.byref(when), None) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def fileno(self) -> int:
        return self._file

    def acknowledge(self) -> None:
        """Make it unreadable until the next tick. How many were slept through, the caller sees from the clock."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._file, 8)

    def close(self) -> None:
        os.close(self._file)
