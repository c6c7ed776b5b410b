"""What takes the faults of a trial back if its process cannot: a watchdog beside it, and leases that it renews.

One thread of the worker looks after both, every second. Where that thread does not run (the process stands still,
or something holds the interpreter), leases run out and their faults end by themselves; when the process dies, the
watchdog undoes what stands open in the undo log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from monkeyproof.clock import wait_for
from monkeyproof.errors import Refusal, TargetError
from monkeyproof.paths import PRIVATE_UMASK, open_private
from monkeyproof.record.history import HistoryWriter, Kind
from monkeyproof.runtime import procfs
from monkeyproof.runtime.process_group import await_end
from monkeyproof.runtime.process_ref import SILENT_S, Heartbeat, ProcessReference
from monkeyproof.safety.watchdog import CLOSED, WATCHING
from monkeyproof.targets.port import Leases, Target

RENEW_EVERY_S = 1.0
WATCHES_WITHIN_S = 5.0
ENDS_WITHIN_S = 2.0
LOG_NAME = "watchdog.log"
NO_WATCHDOG = "the watchdog, which would undo the fault if this process were killed, does not start"


class Watchdog:
    """The watchdog of this process (``safety.watchdog``). It outlives every process group of the harness."""

    def __init__(self, log: Path, folder: Path, *, ends_group: bool) -> None:
        self._output = folder / LOG_NAME
        ours, its = socket.socketpair()
        pidfd = os.pidfd_open(os.getpid())
        group = os.getpid() if ends_group and os.getpgid(0) == os.getpid() else 0
        try:
            with open_private(self._output, append=True) as output:
                # Not by ProcessGroup: its guard would end the watchdog together with this process.
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "monkeyproof.safety.watchdog",
                        str(pidfd),
                        str(group),
                        str(log),
                        str(folder),
                    ],
                    stdin=its.fileno(),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(pidfd,),
                    umask=PRIVATE_UMASK,
                )
        except OSError:
            ours.close()
            raise
        finally:
            its.close()
            os.close(pidfd)
        self._socket = ours
        self._beats: Heartbeat | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def watches(self) -> bool:
        """Whether it is there and watches, and does not stand still; waits while it starts."""
        if self._beats is None:
            self._socket.settimeout(WATCHES_WITHIN_S)
            with contextlib.suppress(OSError):
                if self._socket.recv(1) == WATCHING:
                    self._beats = Heartbeat(self._socket.fileno())
        return self._beats is not None and self._process.poll() is None and self._beats.silent_s() <= SILENT_S

    def dismiss(self, *, within_s: float = ENDS_WITHIN_S) -> None:
        """The undo log is closed, or left open on purpose: it ends at once. Idempotent."""
        with contextlib.suppress(OSError):
            self._socket.send(CLOSED)
        if not await_end(self._process, within_s=within_s):
            self._process.kill()  # It has not begun to watch, or stands still; nor is there anything for it to do.
            self._process.wait()
        self._socket.close()
        with contextlib.suppress(OSError):
            if self._output.stat().st_size == 0:
                self._output.unlink()


class Safeguards:
    """Watchdog and leases of one trial, from its undo log's first line to its last."""

    def __init__(
        self, log: Path, folder: Path, target: Target, history: HistoryWriter, *, ends_group: bool = True
    ) -> None:
        """
        Args:
            ends_group: whether the group that this process leads ends with it; not where others are in it, too.

        Raises:
            Refusal: no watchdog can be started.
        """
        self._log, self._folder, self._history, self._ends_group = log, folder, history, ends_group
        self._leases = target.find(Leases)
        self._lock, self._renewing = threading.Lock(), threading.Lock()
        self._told: set[str] = set()
        self._closed = threading.Event()
        try:
            self._watchdog = Watchdog(log, folder, ends_group=ends_group)
        except OSError as error:
            raise Refusal(f"{NO_WATCHDOG} ({error.strerror or error})", "see what the machine lacks") from None
        self._thread = threading.Thread(target=self._keep, name="safeguards", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Before anything is injected.

        Raises:
            Refusal: no watchdog can be had, so nobody would undo the fault if this process were killed.
        """
        with self._lock:
            if not (self._watchdog.watches() or self._again()):
                raise Refusal(NO_WATCHDOG, f"see {self._folder / LOG_NAME}")

    def renew(self) -> None:
        """Renew the leases of all faults, and write down which had run out: such a trial measures nothing."""
        if self._leases is None:
            return
        with self._renewing:
            for fault, why in self._leases.renew().items():
                if fault not in self._told:
                    self._told.add(fault)
                    self._history.event(Kind.LEASE_RAN_OUT, fault, why=why)

    def settle(self) -> None:
        """Before anything is taken back: whether all of it was there until now."""
        try:
            self.renew()
        except TargetError as error:
            self._history.event(Kind.LEASE_RAN_OUT, "", why=f"it could not be renewed: {error}")

    def close(self) -> None:
        """End the thread and the watchdog. Idempotent."""
        if not self._closed.is_set():
            self._closed.set()
            self._thread.join()
            self._watchdog.dismiss()

    def _again(self) -> bool:
        """The watchdog is gone or stands still, and this process lives: start another."""
        with contextlib.suppress(OSError):
            self._watchdog.dismiss(within_s=0.0)  # The leases wait.
            self._watchdog = Watchdog(self._log, self._folder, ends_group=self._ends_group)
            return self._watchdog.watches()
        return False

    def _keep(self) -> None:
        while not self._closed.wait(RENEW_EVERY_S):
            with contextlib.suppress(TargetError):  # The next second tries again; the revert looks once more.
                self.renew()
            with contextlib.suppress(Refusal):  # The next injection is refused, in the same words.
                self.check()


def await_watchdog(folder: Path, *, within_s: float) -> bool:
    """Wait for the watchdog of a trial whose worker has died to have undone what there was; whether it ended.

    One that stands still by a signal would never end, and holds the undo log: it is killed, and what it has not
    undone is the caller's.
    """
    named = str(folder.resolve()).encode()

    def gone() -> bool:
        there = False
        for one in procfs.living().values():
            words = procfs.command_line(one.pid)
            if b"monkeyproof.safety.watchdog" in words and named in words:
                there = True
                if one.is_stopped:
                    ProcessReference(f"{one.pid}:{one.started_ticks}").send_signal(signal.SIGKILL)
        return not there

    return wait_for(gone, within_s=within_s, every_s=0.05)
