"""Marks the processes of a trial, so that they are found when all of them should have ended.

A trial's worker sets an environment variable to the trial's folder. What it starts inherits the variable, also a
process that leaves its process group, its session and its parent.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from monkeyproof.runtime import procfs

TRIAL_MARK = "MONKEYPROOF_TRIAL"
_UNDO_SUFFIX = "#undo"


def set_mark(folder: Path) -> None:
    """Mark what this process starts from here on as the trial's of that folder."""
    os.environ[TRIAL_MARK] = str(folder)


def clear_mark() -> None:
    """Leave what this process starts from here on unmarked."""
    os.environ.pop(TRIAL_MARK, None)


def mark_undo() -> None:
    """Mark what a trial's process starts from here on as the work of an undo: a service that it restarts, say."""
    current = os.environ.get(TRIAL_MARK)
    if current is not None and not current.endswith(_UNDO_SUFFIX):
        os.environ[TRIAL_MARK] = current + _UNDO_SUFFIX


@contextlib.contextmanager
def undo_mark() -> Iterator[None]:
    """Mark what is started within the context as the work of an undo."""
    before = os.environ.get(TRIAL_MARK)
    mark_undo()
    try:
        yield
    finally:
        if before is not None:
            os.environ[TRIAL_MARK] = before


def marked_processes(folder: Path, table: Mapping[int, procfs.Process] | None = None) -> set[int]:
    """Processes with a trial's mark, except this process, watchdogs, and what an undo started.

    For the process that runs the trial, or one that started that: processes older than the caller are not read.
    Only root can read the marks of other users' processes.

    Args:
        table: the living processes, as ``procfs.living`` gives them; None: read them now.
    """
    table = procfs.living() if table is None else table
    wanted, own = _entry(folder), table[os.getpid()]
    candidates = (
        one.pid for one in table.values() if one.started_ticks >= own.started_ticks and one.pid != own.pid
    )
    found = {pid for pid in candidates if wanted in procfs.environment(pid)}
    return {pid for pid in found if b"monkeyproof.safety.watchdog" not in procfs.command_line(pid)}


def is_started_by_undo(pid: int, folder: Path) -> bool:
    """Whether an undo of that trial started the process."""
    return _entry(folder) + _UNDO_SUFFIX.encode() in procfs.environment(pid)


def _entry(folder: Path) -> bytes:
    return f"{TRIAL_MARK}=".encode() + os.fsencode(folder)
