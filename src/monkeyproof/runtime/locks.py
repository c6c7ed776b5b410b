"""Who breaks what at this moment: locks that die with their holder, however it dies.

Each belongs to an open descriptor. A campaign hands its own on to the worker of a trial, so they last as long as
either of the two lives: a worker that outlives its campaign still breaks things.
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
"""How the names of the abstract sockets begin: nothing is sent over them, but no two can have the same name."""
_held: set[int] = set()


class TargetHeld(MonkeyproofError):
    """Another campaign holds the target, or whether one does cannot be known."""

    def __init__(self, why: str, what_to_do: str) -> None:
        super().__init__(f"{why}; {what_to_do}")
        self.why, self.what_to_do = why, what_to_do


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A campaign of this user with another MONKEYPROOF_HOME."""

    pid: int
    home: str
    """"" if that cannot be read."""

    def __str__(self) -> str:
        if not procfs.is_alive(self.pid):
            return f"a trial of process {self.pid}, which has died"
        return f"process {self.pid}" + (f" with MONKEYPROOF_HOME={self.home}" if self.home else "")


def shared() -> tuple[int, ...]:
    """Descriptors of all that this process holds, for a worker."""
    return tuple(sorted(_held))


@contextlib.contextmanager
def handed_on(descriptor: int) -> Iterator[None]:
    """For as long as this process holds it, those that it starts for a trial do so as well."""
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)


@contextlib.contextmanager
def target_held(target_file: Path) -> Iterator[None]:
    """Hold a target, by its file's path and by the file itself.

    An editor that saves the file puts another one in its place, and leaves the path; a hard link is another path
    of the same file.

    Raises:
        TargetHeld: somebody else does, or whether anybody does cannot be known.
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
            yield  # Whoever reads it next says what is wrong with it.
            return
        held.callback(os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken from None
        except OSError as error:
            what_to_do = "put the target file on a disk of this machine"
            raise TargetHeld(unknown.format(error.strerror), what_to_do) from None
        held.enter_context(handed_on(file))
        yield


@contextlib.contextmanager
def sole_campaign_on(target_file: Path) -> Iterator[None]:
    """At most one campaign at a time breaks a target, whatever homes they have; others see that this one does.

    Raises:
        Refusal: another one holds the target, or whether one does cannot be known.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(target_held(target_file))
        except TargetHeld as error:
            raise Refusal(error.why, error.what_to_do) from None
        with contextlib.suppress(OSError):  # It is for people alone.
            held.enter_context(_named(f"campaign-{os.getuid()}-{_digest_of_home()}-{os.getpid()}"))
        yield


def elsewhere() -> list[Elsewhere]:
    """This user's campaigns of other homes: the living ones, and those whose worker still lives."""
    found = set()
    for name in procfs.abstract_socket_names():
        with contextlib.suppress(ValueError):
            prefix, kind, uid, home, pid = name.split("-")
            if prefix == _NAMES and kind == "campaign" and int(uid) == os.getuid() and home != _digest_of_home():
                found.add(int(pid))
    return [Elsewhere(pid, _home_of(pid)) for pid in sorted(found)]


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Hold a name that one descriptor of this machine can have, whoever's it is. Raises OSError: it is taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        holder.bind(f"\0{_NAMES}-{name}")
        with handed_on(holder.fileno()):
            yield


def _digest_of_home() -> str:
    return hashlib.sha256(os.fsencode(paths.home())).hexdigest()[:16]


def _home_of(pid: int) -> str:
    for entry in procfs.environment(pid):
        if entry.startswith(b"MONKEYPROOF_HOME="):
            return os.fsdecode(entry.partition(b"=")[2])
    return ""
