"""Processes of this machine, as the kernel lists them: who began which, who stands still, who listens where.

A trial marks its environment with its folder. What it starts inherits that, also what left its process group, its
session and its parent, so that it is found when all that belongs to the trial should have ended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TRIAL_MARK = "MONKEYPROOF_TRIAL"
_OF_AN_UNDO = "#undo"
_LISTENING = "0A"


@dataclass(frozen=True, slots=True)
class Process:
    """One that lives: neither gone nor waiting to be reaped."""

    pid: int
    parent: int
    started: int
    """In clock ticks since boot: with the pid, what no later process shares."""
    stopped: bool
    """Whether it stands still by a signal."""


def living() -> dict[int, Process]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name before it, in parentheses, may hold anything.
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                pid = int(path.parent.name)
                found[pid] = Process(pid, int(fields[1]), int(fields[19]), fields[0] == "T")
    return found


def children(table: Mapping[int, Process] | None = None) -> set[int]:
    """Living processes that this one started."""
    table = living() if table is None else table
    return {one.pid for one in table.values() if one.parent == os.getpid()}


def below(roots: Collection[int], table: Mapping[int, Process]) -> set[int]:
    """Some processes, and all that descend from them."""
    found = set(roots)
    while more := {one.pid for one in table.values() if one.parent in found} - found:
        found |= more
    return found


def mark(folder: Path) -> None:
    """From here on, what this process starts is the trial's of that folder."""
    os.environ[TRIAL_MARK] = str(folder)


def unmark() -> None:
    os.environ.pop(TRIAL_MARK, None)


def mark_undo() -> None:
    """From here on, what a trial's process starts belongs to the way back: a service, say, that was ended."""
    now = os.environ.get(TRIAL_MARK)
    if now is not None and not now.endswith(_OF_AN_UNDO):
        os.environ[TRIAL_MARK] = now + _OF_AN_UNDO


@contextlib.contextmanager
def undoing() -> Iterator[None]:
    """What is started in here belongs to the way back."""
    before = os.environ.get(TRIAL_MARK)
    mark_undo()
    try:
        yield
    finally:
        if before is not None:
            os.environ[TRIAL_MARK] = before


def of_trial(folder: Path, table: Mapping[int, Process] | None = None) -> set[int]:
    """All that carry the mark of a trial, but for this process, watchdogs, and what an undo started.

    For the process that runs the trial, or one that had it run: what is older than itself is not looked at. Of
    other users' processes nobody but root may know.
    """
    table = living() if table is None else table
    wanted, own = _marked(folder), table[os.getpid()]
    found = set()
    for one in table.values():
        if one.started >= own.started and one.pid != own.pid:
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0"):
                    found.add(one.pid)
    return {pid for pid in found if b"monkeyproof.safety.watchdog" not in words_of(pid)}


def started_by_undo(pid: int, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return _marked(folder) + _OF_AN_UNDO.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def _marked(folder: Path) -> bytes:
    return f"{TRIAL_MARK}=".encode() + os.fsencode(folder)


def words_of(pid: int) -> list[bytes]:
    """Its command line; empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def name_of(pid: int) -> str:
    """The program, or the Python module, alone: arguments may hold secrets."""
    words = words_of(pid)
    return os.fsdecode(b" ".join(words[:3] if words[1:2] == [b"-m"] else words[:1])) or "?"


def listeners(pids: Collection[int], ports: Collection[int]) -> set[int]:
    """Which of these processes hold a socket that listens on one of these ports of this machine."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(ports)}
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(path.readlink()) in wanted:
                        found.add(pid)
    return found


def _listening_inodes(ports: Collection[int]) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) in ports:
                    yield fields[9]
