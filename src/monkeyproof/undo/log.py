"""The undo log: records a fault, and how to undo it, on disk before the fault is injected.

One file a trial, append-only JSON lines, in the harness's home while the trial runs; it moves into the trial's
folder when nothing in it is open. A file that remains in the home after its trial stands for an open fault:
``monkeyproof run`` refuses to start, and ``monkeyproof revert`` replays it.

Only the process that holds a log (a lock that ends with its holder) may undo its faults: the trial's worker for as
long as it lives, then its watchdog, its campaign or ``monkeyproof revert``, one at a time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from monkeyproof import paths
from monkeyproof.clock import Clock, SystemClock, wait_for
from monkeyproof.config.redaction import redact
from monkeyproof.errors import EXIT_REFUSED, MonkeyproofError, Refusal
from monkeyproof.record.history import write_json
from monkeyproof.types import Json
from monkeyproof.undo.entries import LogContents, OpenFault, Undo, parse_log, read_log, read_open

__all__ = [
    "LogHeld",
    "OpenFault",
    "Undo",
    "UndoLog",
    "begin",
    "describe_open",
    "open_logs",
    "read_log",
    "read_open",
    "store_experiment_copy",
    "undo_dir",
    "unwritable",
]


class LogHeld(MonkeyproofError):
    """Another process holds the log: its trial still runs, or the process is replaying it."""

    exit_code = EXIT_REFUSED


class UndoLog:
    """The log of one trial, held. Every line is synced to disk before the method returns.

    The holder keeps the contents in memory, for the file may be deleted or damaged while it is held.
    """

    def __init__(
        self, path: Path, *, begin: bool = True, held_within_s: float = 0.0, clock: Clock | None = None
    ) -> None:
        """Take hold of a log.

        Args:
            begin: whether to create the file where there is none.
            held_within_s: how long to wait for another holder.

        Raises:
            LogHeld: another process holds it all that time.
            FileNotFoundError: there is none, and ``begin`` is false.
        """
        self.path = path
        self._clock = clock or SystemClock()
        self._file = _hold(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if begin else 0), held_within_s)
        _forget_torn_line(self._file)
        _sync(path.parent)
        self._known = parse_log(self._text(), path)

    def intend(self, fault: OpenFault) -> None:
        """Record that a fault is about to be injected. Raises OSError if the record cannot be written."""
        undo = {"function": fault.undo.function, "arguments": dict(fault.undo.arguments)}
        if fault.undo.package:
            undo["package"] = fault.undo.package
        self._intent(
            fault.id,
            fault.fault,
            fault.subject,
            undo=undo,
            target_file=fault.target_file,
            prior=dict(fault.prior),
            lease_s=fault.lease_s,
            utc=fault.t0_utc,
        )
        self._known = replace(self._known, intents=(*self._known.intents, fault))

    def intend_one_shot(
        self,
        fault_id: str,
        fault: str,
        subject: str,
        *,
        why: str,
        target_file: str,
        prior: Mapping[str, Json],
        t0_utc: str,
    ) -> None:
        """Record a one-shot act that is about to be done: it is never reverted, and so never open."""
        self._intent(
            fault_id,
            fault,
            subject,
            undo=None,
            nothing_to_undo=why,
            target_file=target_file,
            prior=dict(prior),
            lease_s=None,
            utc=t0_utc,
        )
        self._known = replace(self._known, kept=(*self._known.kept, f"{fault} on {subject} ({why})"))

    def effective(self, fault_id: str, summary: str) -> None:
        """Record the evidence that a fault took effect.

        Raises:
            Refusal: the record cannot be written.
        """
        try:
            self._append({"step": "effective", "id": fault_id, "summary": redact(summary), "utc": self._utc()})
        except OSError as error:
            raise unwritable(self.path, error) from None

    def reverted(self, fault_id: str, summary: str) -> None:
        """Record that a fault was reverted, and what was done or found."""
        # Where that cannot be written, the fault is not reverted again as long as this log is held.
        self._known = replace(self._known, done=self._known.done | {fault_id})
        with contextlib.suppress(OSError):
            self._append({"step": "reverted", "id": fault_id, "summary": redact(summary), "utc": self._utc()})

    @property
    def known(self) -> LogContents:
        return self._known

    def open_faults(self) -> list[OpenFault]:
        return self._known.open

    def close(self, archive: Path | None = None) -> None:
        """Release the log. If nothing in it is open, it moves to ``archive``; without one, it is deleted."""
        try:
            if self._known.open or self._known.unreadable:
                self._restore_file()
                return
            if archive is not None and archive.parent.is_dir():
                # A copy for people: on a full disk it is left out.
                with contextlib.suppress(OSError), paths.open_private(archive) as file:
                    file.write(self._text())
            if self._is_in_place():
                self.path.unlink()
            experiment_copy(self.path).unlink(missing_ok=True)
        finally:
            os.close(self._file)

    def forget(self, kept: Path) -> None:
        """Release the log with open faults, because a user states that they are repaired; it moves to ``kept``."""
        for fault in self.open_faults():
            self.reverted(fault.id, "forgotten, not reverted: a user states that it is repaired")
        self._known = replace(self._known, unreadable=())
        self.close(kept)

    def _intent(self, fault_id: str, fault: str, subject: str, **more: Json) -> None:
        entry: dict[str, Json] = {"step": "intent", "run": self.path.stem, "id": fault_id}
        self._append({**entry, "fault": fault, "subject": subject, **more})

    def _text(self) -> bytes:
        return os.pread(self._file, os.fstat(self._file).st_size, 0)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False

    def _restore_file(self) -> None:
        """Write the file again if it was deleted while it was held: the next process must find its contents."""
        if self._is_in_place():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self.path.with_suffix(".draft")
        file = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(file, self._text())
            os.fsync(file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.dup2(file, self._file, inheritable=False)
        finally:
            os.close(file)
        draft.rename(self.path)
        _sync(self.path.parent)

    def _utc(self) -> str:
        return self._clock.utc().isoformat()

    def _append(self, entry: dict[str, Json]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        self._restore_file()
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError:
            # Half a line would merge with the next one, and neither could be read.
            os.ftruncate(self._file, size)
            raise


def _hold(path: Path, flags: int, within_s: float) -> int:
    """Open a file and lock it; returns a descriptor of the file that is at ``path`` then."""
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
            f"{path} is held by another process: its trial still runs, or its faults are being reverted; wait"
        )
    return held


def _forget_torn_line(file: int) -> None:
    """Cut off half a line, which a killed writer left: that step never happened."""
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
        f"the undo log {path} cannot be written ({error.strerror or error}), so the undo would be lost with "
        "this process",
        "make room on the disk, or move MONKEYPROOF_HOME",
    )


def undo_dir() -> Path:
    path = paths.home() / "undo"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


def experiment_copy(log: Path) -> Path:
    """Path of the copy of an external experiment that an undo needs, for as long as its log exists."""
    return log.with_suffix(".experiment.json")


def store_experiment_copy(log: Path, experiment: Json) -> Path:
    """Store an experiment, without its secrets, where no clean-up of the trial's folder deletes it; synced."""
    path = experiment_copy(log)
    write_json(path, experiment)
    for one in (path, path.parent):
        _sync(one)
    return path


def open_logs() -> list[Path]:
    """Logs of the home, by name, in which a fault is open, or may be because the log cannot be read."""
    return sorted(path for path in undo_dir().glob("*.jsonl") if (log := read_log(path)).open or log.unreadable)


def describe_open(logs: Iterable[Path]) -> str:
    """One sentence on how many faults of these logs are open, and which lines cannot be read; "" if none."""
    read = [read_log(path) for path in logs]
    left = [fault for one in read for fault in one.open]
    words = [one for contents in read for one in contents.unreadable]
    if left:
        first = f"{left[0].fault} on {left[0].subject}"
        words.insert(0, f"{len(left)} fault{'s' if len(left) > 1 else ''} may still be there ({first})")
    return "; ".join(words)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
