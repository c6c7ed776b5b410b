"""Child processes that never outlive their owner: each in a session of its own, all ended by a reaper process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from monkeyproof.paths import PRIVATE_UMASK, open_private
from monkeyproof.runtime import procfs
from monkeyproof.runtime.reaper import group_exists


class ProcessGroup:
    """A set of child processes that end together: on ``close``, or when this process dies however it dies.

    Each child leads a session and process group of its own (``start_new_session``), so that a Ctrl-C at the
    terminal reaches only the owner, which then ends them in order.
    """

    def __init__(self) -> None:
        read_end, self._pipe = os.pipe()
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-m", "monkeyproof.runtime.reaper"], stdin=read_end, start_new_session=True
        )
        os.close(read_end)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._asked_to_end: set[int] = set()

    def start(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Collection[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start ``argv`` and append its output to ``log``. Only the user can read what it writes.

        Args:
            env: added to this process's environment.
            pass_fds: descriptors that the child keeps, under the same numbers.

        Raises:
            OSError: the program cannot be started.
        """
        with open_private(log, append=True) as output:
            child = subprocess.Popen(
                list(argv),
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
                umask=PRIVATE_UMASK,
            )
        self.adopt(child.pid)
        self._children[child.pid] = child
        return child

    def adopt(self, pgid: int) -> None:
        """Have the reaper end a group that another process (a fork server) started."""
        os.write(self._pipe, b"+%d\n" % pgid)

    def disown(self, pgid: int) -> None:
        """Have the reaper forget a group that has ended: the kernel may give its number to another process."""
        os.write(self._pipe, b"-%d\n" % pgid)

    def ask_to_end(self, child: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM to one child and its group without waiting, so that several can end at the same time.

        Sends it once: a second signal would kill a child that is ending in order and handles signals no longer.
        """
        if child.pid not in self._asked_to_end and child.poll() is None:
            self._asked_to_end.add(child.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
                os.killpg(child.pid, signal.SIGCONT)

    def end(self, child: subprocess.Popen[bytes], *, grace_s: float = 2.0) -> int:
        """End one child and its group: SIGTERM, then SIGKILL after ``grace_s``. Returns its exit status."""
        self.ask_to_end(child)
        await_end(child, within_s=grace_s)
        if group_exists(child.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        status = child.wait()
        self._children.pop(child.pid, None)
        self._asked_to_end.discard(child.pid)
        self.disown(child.pid)
        return status

    def close(self) -> None:
        """End every child, then the reaper. Idempotent."""
        if self._pipe < 0:
            return
        for child in self._children.values():
            self.ask_to_end(child)
        for child in list(self._children.values()):
            self.end(child)
        # At end-of-file the reaper ends adopted groups that still exist, and then itself.
        os.close(self._pipe)
        self._pipe = -1
        self._reaper.wait()

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def await_end(child: subprocess.Popen[bytes], *, within_s: float) -> bool:
    """Wait for a child's end; returns whether it came. ``Popen.wait`` would poll, up to 50 ms late."""
    if child.poll() is None:
        descriptor = os.pidfd_open(child.pid)  # Only this process reaps it, so the number is still its own.
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(within_s * 1000.0)
        finally:
            os.close(descriptor)
    return child.poll() is not None


def kill_group_members() -> None:
    """Send SIGKILL to the other processes of the group that this process leads: those that its activities run.

    Children of a ``ProcessGroup`` lead groups of their own. A process that leads no group (one of a shell's job)
    kills nothing, for the group's other processes are not its own.
    """
    if os.getpgid(0) != os.getpid():
        return
    for _ in range(50):  # They may start others until they have ended.
        members = procfs.living_in_group(os.getpid()) - {os.getpid()}
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def exit_now(status: int) -> NoReturn:
    """Flush the output and end this process without Python's own cleanup, which takes 0.1 s.

    For processes whose files are closed and whose threads hold nothing: the kernel frees the rest.
    """
    with contextlib.suppress(OSError):  # On a full disk the output is lost, but not the exit status.
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def last_log_line(log: Path) -> str:
    """The last line of a process's log: usually why it ended. "no word from it" if it wrote nothing."""
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        lines = []
    return lines[-1] if lines else "no word from it"
