"""Safeguards that revert a trial's faults if its process cannot: a watchdog process, and leases.

One thread of the worker renews the leases and checks the watchdog, every second. Where that thread does not run
(the process is stopped, or something holds the interpreter), leases expire and their faults end by themselves; if
the process dies, the watchdog reverts the open faults of its undo log.
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
STARTS_WITHIN_S = 5.0
ENDS_WITHIN_S = 2.0
LOG_NAME = "watchdog.log"
NO_WATCHDOG = "the watchdog, which would undo the fault if this process were killed, does not start"


class Watchdog:
    """Starts and checks the watchdog process (``safety.watchdog``), which outlives every process group."""

    def __init__(self, log: Path, folder: Path, *, ends_group: bool) -> None:
        self._output = folder / LOG_NAME
        ours, its = socket.socketpair()
        pidfd = os.pidfd_open(os.getpid())
        group = os.getpid() if ends_group and os.getpgid(0) == os.getpid() else 0
        try:
            with open_private(self._output, append=True) as output:
                # Not by ProcessGroup: its reaper would end the watchdog together with this process.
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
        self._heartbeat: Heartbeat | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_watching(self) -> bool:
        """Whether it runs and sends heartbeats; waits while it starts."""
        if self._heartbeat is None:
            self._socket.settimeout(STARTS_WITHIN_S)
            with contextlib.suppress(OSError):
                if self._socket.recv(1) == WATCHING:
                    self._heartbeat = Heartbeat(self._socket.fileno())
        if self._heartbeat is None or self._process.poll() is not None:
            return False
        return self._heartbeat.silent_s() <= SILENT_S

    def dismiss(self, *, within_s: float = ENDS_WITHIN_S) -> None:
        """End it, because the undo log is closed, or left open on purpose. Idempotent."""
        with contextlib.suppress(OSError):
            self._socket.send(CLOSED)
        if not await_end(self._process, within_s=within_s):
            self._process.kill()  # It is still starting, or is stopped; it has nothing left to do.
            self._process.wait()
        self._socket.close()
        with contextlib.suppress(OSError):
            if self._output.stat().st_size == 0:
                self._output.unlink()


class Safeguards:
    """The watchdog and the leases of one trial, from its undo log's first line to its last."""

    def __init__(
        self, log: Path, folder: Path, target: Target, history: HistoryWriter, *, ends_group: bool = True
    ) -> None:
        """
        Args:
            ends_group: whether the group that this process leads ends with it; False where it has other members.

        Raises:
            Refusal: no watchdog can be started.
        """
        self._log, self._folder, self._history, self._ends_group = log, folder, history, ends_group
        self._leases = target.find(Leases)
        self._lock, self._renewing = threading.Lock(), threading.Lock()
        self._expired: set[str] = set()
        self._closed = threading.Event()
        try:
            self._watchdog = Watchdog(log, folder, ends_group=ends_group)
        except OSError as error:
            raise Refusal(f"{NO_WATCHDOG} ({error.strerror or error})", "see what the machine lacks") from None
        self._thread = threading.Thread(target=self._run, name="safeguards", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check the watchdog, and replace it if it does not run; to be called before anything is injected.

        Raises:
            Refusal: no watchdog runs or starts, so no process would revert the fault if this one were killed.
        """
        with self._lock:
            if not (self._watchdog.is_watching() or self._replace_watchdog()):
                raise Refusal(NO_WATCHDOG, f"see {self._folder / LOG_NAME}")

    def renew(self) -> None:
        """Renew the leases of all faults, and record which had expired: such a trial measures nothing."""
        if self._leases is None:
            return
        with self._renewing:
            for fault, why in self._leases.renew().items():
                if fault not in self._expired:
                    self._expired.add(fault)
                    self._history.event(Kind.LEASE_RAN_OUT, fault, why=why)

    def renew_last_time(self) -> None:
        """Renew once more before the revert, which shows whether every fault lasted until now."""
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

    def _replace_watchdog(self) -> bool:
        """Replace a watchdog that has ended or is stopped; returns whether the new one runs."""
        with contextlib.suppress(OSError):
            self._watchdog.dismiss(within_s=0.0)  # Not longer: the leases have to be renewed.
            self._watchdog = Watchdog(self._log, self._folder, ends_group=self._ends_group)
            return self._watchdog.is_watching()
        return False

    def _run(self) -> None:
        while not self._closed.wait(RENEW_EVERY_S):
            with contextlib.suppress(TargetError):  # The next second tries again, and so does the revert.
                self.renew()
            with contextlib.suppress(Refusal):  # The next injection is refused for the same reason.
                self.check()


def await_watchdog(folder: Path, *, within_s: float) -> bool:
    """Wait until the watchdog of a trial whose worker has died has reverted its faults; returns whether it ended.

    A watchdog that a signal stopped would never end, and holds the undo log: this kills it, and the caller has to
    revert what it did not.
    """
    named = str(folder.resolve()).encode()

    def ended() -> bool:
        running = False
        for one in procfs.living().values():
            words = procfs.command_line(one.pid)
            if b"monkeyproof.safety.watchdog" in words and named in words:
                running = True
                if one.is_stopped:
                    ProcessReference(f"{one.pid}:{one.started_ticks}").send_signal(signal.SIGKILL)
        return not running

    return wait_for(ended, within_s=within_s, every_s=0.05)
