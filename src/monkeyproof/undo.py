"""The undo log: what was about to be done is on disk before it is done, with how to take it back.

One file a trial, append-only JSON lines, in the harness's home while the trial runs; it moves into the
trial's folder when nothing in it is open. A file that is still in the home after its trial is a fault that
somebody has to look at: ``monkeyproof run`` refuses to start and ``monkeyproof revert`` replays it.

Whoever may undo what stands in a log holds it (a lock that dies with its holder): the trial's worker for as long
as it lives, then its watchdog, its campaign or ``monkeyproof revert``, one at a time.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.errors import EXIT_REFUSED, MonkeyproofError, Refusal, UsageError
from monkeyproof.redaction import redact
from monkeyproof.targets.port import Target
from monkeyproof.types import Json

ROOM_OF_UNDOS = "monkeyproof.faults."


@dataclass(frozen=True, slots=True)
class Undo:
    """How to take a fault back, as data: a function ``(target, **arguments) -> str`` of the faults' room.

    The function is idempotent, checks what it finds, does not overwrite a state that somebody else changed
    since, and returns one sentence on what it did or found.
    """

    function: str
    """``monkeyproof.faults.registry:restore_champion``"""
    arguments: Mapping[str, Json]

    def run(self, target: Target) -> str:
        """Take the fault back. Raises whatever the undo raises: then it is not taken back.

        Raises:
            UsageError: the function is not one of the faults' room.
        """
        module, _, name = self.function.partition(":")
        if not module.startswith(ROOM_OF_UNDOS) or not name.isidentifier():
            raise UsageError(f"undo log: {self.function!r} is not an undo of the faults' room")
        function = getattr(importlib.import_module(module), name)
        return str(function(target, **self.arguments))


@dataclass(frozen=True, slots=True)
class OpenFault:
    """An intent without a revert."""

    id: str
    fault: str
    subject: str
    undo: Undo
    target_file: str
    t0_utc: str


class LogHeld(MonkeyproofError):
    """Somebody else holds the log: its trial still runs, or another process is undoing what stands in it."""

    exit_code = EXIT_REFUSED


class UndoLog:
    """The log of one trial, held. Every line is synced to disk before the method returns."""

    def __init__(self, path: Path, *, begin: bool = True, held_within_s: float = 0.0) -> None:
        """Take hold of a log.

        Args:
            begin: whether it is begun where there is none.
            held_within_s: how long to wait for another holder.

        Raises:
            LogHeld: somebody else holds it all the while.
            FileNotFoundError: there is none, and none is to be begun.
        """
        self.path = path
        self._file = _hold(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if begin else 0), held_within_s)
        _forget_torn_line(self._file)
        _sync_folder(path.parent)

    def intend(self, fault: OpenFault) -> None:
        """Record that a fault is about to be injected. Raises OSError if the disk does not take it."""
        self._append(
            {
                "step": "intent",
                "id": fault.id,
                "fault": fault.fault,
                "subject": fault.subject,
                "undo": {"function": fault.undo.function, "arguments": dict(fault.undo.arguments)},
                "target_file": fault.target_file,
                "utc": fault.t0_utc,
            }
        )

    def effective(self, fault_id: str, summary: str) -> None:
        """Record the evidence that a fault took effect."""
        self._append({"step": "effective", "id": fault_id, "summary": summary})

    def reverted(self, fault_id: str, summary: str) -> None:
        """Record that a fault was taken back, and how that was seen."""
        self._append({"step": "reverted", "id": fault_id, "summary": redact(summary)})

    def open_faults(self) -> list[OpenFault]:
        return read_open(self.path)

    def close(self, archive: Path | None = None) -> None:
        """Let go of it. If nothing in it is open, it moves to ``archive``, or is deleted where none is given."""
        try:
            if not read_open(self.path):
                if archive is not None and archive.parent.is_dir():
                    archive.write_bytes(self.path.read_bytes())
                    archive.chmod(0o600)
                self.path.unlink()
        finally:
            os.close(self._file)

    def _append(self, entry: dict[str, Json]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError:
            # Half a line would make one with the next, and neither could be read.
            os.ftruncate(self._file, size)
            raise


def _hold(path: Path, flags: int, within_s: float) -> int:
    """Open a file and lock it; a descriptor of the file that stands at ``path`` then."""
    held = -1

    def taken() -> bool:
        nonlocal held
        file = os.open(path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have moved it away between the two calls.
            if os.path.samestat(os.fstat(file), path.stat()):
                held, file = file, -1
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            if file >= 0:
                os.close(file)
        return held >= 0

    if not wait_for(taken, within_s=within_s):
        raise LogHeld(
            f"{path} is held by another process: its trial still runs, or what it left is being undone; wait"
        )
    return held


def _forget_torn_line(file: int) -> None:
    """A writer that was killed in the middle of a line left half of it: that step never happened."""
    size = os.fstat(file).st_size
    text = os.pread(file, size, 0)
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        os.ftruncate(file, whole)


def begin(path: Path) -> UndoLog:
    """Begin the log of a trial.

    Raises:
        Refusal: it cannot be written, so nothing may be injected.
        LogHeld: another trial of that name runs.
    """
    try:
        return UndoLog(path)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> Refusal:
    return Refusal(
        f"the undo log {path} cannot be written ({error.strerror or error}), so the way back would be lost with "
        "this process",
        "make room on the disk, or move MONKEYPROOF_HOME",
    )


def undo_dir() -> Path:
    path = paths.home() / "undo"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


def open_logs() -> list[Path]:
    """Logs of the home in which something is open, oldest first."""
    return sorted(path for path in undo_dir().glob("*.jsonl") if read_open(path))


def read_open(path: Path) -> list[OpenFault]:
    """Faults of a log that were intended and not reverted, newest first: the order in which to undo them.

    A torn last line is an intent that never reached its injection, so it is left out.

    Raises:
        UsageError: a whole line cannot be understood; with file and line.
    """
    intents: dict[str, OpenFault] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            if entry["step"] == "intent":
                intents[entry["id"]] = OpenFault(
                    entry["id"],
                    entry["fault"],
                    entry["subject"],
                    Undo(entry["undo"]["function"], entry["undo"]["arguments"]),
                    entry["target_file"],
                    entry["utc"],
                )
            elif entry["step"] == "reverted":
                intents.pop(entry["id"], None)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}:{number}: cannot be understood ({error}); look at it, mend the target by hand, "
                "then delete the file"
            ) from None
    return list(reversed(intents.values()))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
