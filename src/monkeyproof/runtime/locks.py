"""Locks on targets, which end with their holder, however it ends.

Each belongs to an open descriptor. The worker of a trial inherits its campaign's descriptors, so a lock lasts as
long as either of the two lives: a worker that outlives its campaign still injects faults.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monkeyproof import paths
from monkeyproof.errors import MonkeyproofError, Refusal
from monkeyproof.runtime import procfs

_NAMES = "monkeyproof"
"""How the names of the abstract sockets begin. Nothing is sent over them; no two can have the same name."""
_held: set[int] = set()


class TargetHeld(MonkeyproofError):
    """Another campaign holds the target, or it cannot be known whether one does."""

    def __init__(self, why: str, what_to_do: str) -> None:
        super().__init__(f"{why}; {what_to_do}")
        self.why, self.what_to_do = why, what_to_do


@dataclass(frozen=True, slots=True)
class OtherCampaign:
    """A campaign of this user with another MONKEYPROOF_HOME."""

    pid: int
    home: str
    """Its MONKEYPROOF_HOME; "" if that cannot be read."""

    def __str__(self) -> str:
        if not procfs.is_alive(self.pid):
            return f"a trial of process {self.pid}, which has died"
        return f"process {self.pid}" + (f" with MONKEYPROOF_HOME={self.home}" if self.home else "")


def inheritable_descriptors() -> tuple[int, ...]:
    """Descriptors of all locks that this process holds, for ``pass_fds`` of a worker."""
    return tuple(sorted(_held))


@contextlib.contextmanager
def inherited_by_workers(descriptor: int) -> Iterator[None]:
    """Have workers that are started within the context inherit a descriptor."""
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)


@contextlib.contextmanager
def hold_target(target_file: Path) -> Iterator[None]:
    """Hold a target, by its file's path and by the file itself.

    Both, because an editor that saves the file replaces it and keeps the path, and a hard link is another path of
    the same file.

    Raises:
        TargetHeld: another process holds it, or it cannot be known whether one does.
    """
    taken = TargetHeld(
        f"another campaign, with another MONKEYPROOF_HOME, holds the target {target_file}",
        "wait for it, or end it with Ctrl-C or its own 'monkeyproof stop'",
    )
    unknown = f"{target_file} cannot be locked ({{}}), so another campaign could hold the target"
    digest = hashlib.sha256(os.fsencode(target_file.resolve())).hexdigest()[:32]
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_named(f"target-{digest}"))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise taken from None
            raise TargetHeld(unknown.format(error.strerror), "see what the machine lacks") from None
        try:
            file = os.open(target_file, os.O_RDONLY)
        except OSError:
            yield  # The next reader of the file reports what is wrong with it.
            return
        held.callback(os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken from None
        except OSError as error:
            what_to_do = "put the target file on a disk of this machine"
            raise TargetHeld(unknown.format(error.strerror), what_to_do) from None
        held.enter_context(inherited_by_workers(file))
        yield


@contextlib.contextmanager
def sole_campaign_on(target_file: Path) -> Iterator[None]:
    """Hold a target for one campaign, whatever homes campaigns have; others can see that this one runs.

    Raises:
        Refusal: another campaign holds the target, or it cannot be known whether one does.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold_target(target_file))
        except TargetHeld as error:
            raise Refusal(error.why, error.what_to_do) from None
        with contextlib.suppress(OSError):  # This name only informs people.
            held.enter_context(_named(f"campaign-{os.getuid()}-{_digest_of_home()}-{os.getpid()}"))
        yield


def campaigns_of_other_homes() -> list[OtherCampaign]:
    """This user's campaigns with other homes: those that run, and those whose worker still runs."""
    found = set()
    for name in procfs.abstract_socket_names():
        with contextlib.suppress(ValueError):
            prefix, kind, uid, home, pid = name.split("-")
            if prefix == _NAMES and kind == "campaign" and int(uid) == os.getuid() and home != _digest_of_home():
                found.add(int(pid))
    return [OtherCampaign(pid, _home_of(pid)) for pid in sorted(found)]


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Hold a name that only one descriptor of this machine can have. Raises OSError: it is taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        holder.bind(f"\0{_NAMES}-{name}")
        with inherited_by_workers(holder.fileno()):
            yield


def _digest_of_home() -> str:
    return hashlib.sha256(os.fsencode(paths.home())).hexdigest()[:16]


def _home_of(pid: int) -> str:
    for entry in procfs.environment(pid):
        if entry.startswith(b"MONKEYPROOF_HOME="):
            return os.fsdecode(entry.partition(b"=")[2])
    return ""
