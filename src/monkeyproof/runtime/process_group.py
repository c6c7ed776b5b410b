"""Child processes that never outlive their owner: each in a session of its own, all looked after by a guard."""

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
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-m", "monkeyproof.runtime.reaper"], stdin=read_end, start_new_session=True
        )
        os.close(read_end)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._told: set[int] = set()

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
        """Start ``argv``, its output appended to ``log``; ``env`` is added to this process's environment.

        What it writes is the user's alone.

        ``pass_fds`` are descriptors that the child keeps, under the same numbers.

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
        """Have the guard look after a group that somebody else (a fork server) started."""
        os.write(self._pipe, b"+%d\n" % pgid)

    def disown(self, pgid: int) -> None:
        """The group has ended: its number may be given to a stranger, so the guard must forget it."""
        os.write(self._pipe, b"-%d\n" % pgid)

    def tell(self, child: subprocess.Popen[bytes]) -> None:
        """Ask one child and its group to end, without waiting: several that were told end at the same time.

        Once: a second signal would kill one that is ending in order and handles signals no longer.
        """
        if child.pid not in self._told and child.poll() is None:
            self._told.add(child.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
                os.killpg(child.pid, signal.SIGCONT)

    def end(self, child: subprocess.Popen[bytes], *, grace_s: float = 2.0) -> int:
        """End one child and its group: SIGTERM, then SIGKILL after ``grace_s``. Returns its exit status."""
        self.tell(child)
        await_end(child, within_s=grace_s)
        if group_exists(child.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        status = child.wait()
        self._children.pop(child.pid, None)
        self._told.discard(child.pid)
        self.disown(child.pid)
        return status

    def close(self) -> None:
        """End every child, then the guard. Idempotent."""
        if self._pipe < 0:
            return
        for child in self._children.values():
            self.tell(child)
        for child in list(self._children.values()):
            self.end(child)
        # End-of-file tells the guard to end what was adopted and is still there, and then itself.
        os.close(self._pipe)
        self._pipe = -1
        self._guard.wait()

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def await_end(child: subprocess.Popen[bytes], *, within_s: float) -> bool:
    """Wait for a child's end; whether it came. ``Popen.wait`` with a limit polls, and notices 50 ms late."""
    if child.poll() is None:
        descriptor = os.pidfd_open(child.pid)  # Nobody but this process reaps it, so the number is its own.
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(within_s * 1000.0)
        finally:
            os.close(descriptor)
    return child.poll() is not None


def end_group_mates() -> None:
    """SIGKILL the other processes of the group that this process leads: what its activities run.

    Those of a ``ProcessGroup`` lead groups of their own. A process that leads none (one of a shell's job) ends
    nothing, for the others are not its own.
    """
    if os.getpgid(0) != os.getpid():
        return
    for _ in range(50):  # They may start others until they are gone.
        mates = procfs.living_in_group(os.getpid()) - {os.getpid()}
        if not mates:
            return
        for pid in mates:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def leave(status: int) -> NoReturn:
    """End this process with all that was said, but without Python's tidying: it takes 0.1 s, and the kernel tidies
    up as well. For processes whose files are closed and whose threads hold nothing.
    """
    with contextlib.suppress(OSError):  # On a full disk, what is said is lost; how it ended is not.
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def last_line(log: Path) -> str:
    """What a process said last: usually why it ended. "no word from it" if it said nothing."""
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        lines = []
    return lines[-1] if lines else "no word from it"
