"""The undo log: what was about to be done is on disk before it is done, with how to take it back.

One file a trial, append-only JSON lines, in the harness's home while the trial runs; it moves into the
trial's folder when nothing in it is open. A file that is still in the home after its trial is a fault that
somebody has to look at: ``monkeyproof run`` refuses to start and ``monkeyproof revert`` replays it.

Whoever may undo what stands in a log holds it (a lock that dies with its holder): the trial's worker for as long
as it lives, then its watchdog, its campaign or ``monkeyproof revert``, one at a time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

from monkeyproof import paths
from monkeyproof.clock import Clock, SystemClock, wait_for
from monkeyproof.errors import EXIT_REFUSED, MonkeyproofError, Refusal
from monkeyproof.intents import OpenFault, Undo, read_open
from monkeyproof.redaction import redact
from monkeyproof.types import Json

__all__ = ["LogHeld", "OpenFault", "Undo", "UndoLog", "begin", "open_logs", "read_open", "undo_dir", "unwritable"]


class LogHeld(MonkeyproofError):
    """Somebody else holds the log: its trial still runs, or another process is undoing what stands in it."""

    exit_code = EXIT_REFUSED


class UndoLog:
    """The log of one trial, held. Every line is synced to disk before the method returns."""

    def __init__(
        self, path: Path, *, begin: bool = True, held_within_s: float = 0.0, clock: Clock | None = None
    ) -> None:
        """Take hold of a log.

        Args:
            begin: whether it is begun where there is none.
            held_within_s: how long to wait for another holder.

        Raises:
            LogHeld: somebody else holds it all the while.
            FileNotFoundError: there is none, and none is to be begun.
        """
        self.path = path
        self._clock = clock or SystemClock()
        self._undone: set[str] = set()
        """Taken back, but the disk did not take that: nobody has to do it again as long as this log is held."""
        self._file = _hold(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if begin else 0), held_within_s)
        _forget_torn_line(self._file)
        _sync_folder(path.parent)

    def intend(self, fault: OpenFault) -> None:
        """Record that a fault is about to be injected. Raises OSError if the disk does not take it."""
        undo = {"function": fault.undo.function, "arguments": dict(fault.undo.arguments)}
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
        """Record that something is about to be done that is never taken back; so it is never open."""
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

    def effective(self, fault_id: str, summary: str) -> None:
        """Record the evidence that a fault took effect.

        Raises:
            Refusal: the disk does not take it.
        """
        try:
            self._append({"step": "effective", "id": fault_id, "summary": redact(summary), "utc": self._utc()})
        except OSError as error:
            raise unwritable(self.path, error) from None

    def reverted(self, fault_id: str, summary: str) -> None:
        """Record that a fault was taken back, and how that was seen."""
        try:
            self._append({"step": "reverted", "id": fault_id, "summary": redact(summary), "utc": self._utc()})
        except OSError:
            self._undone.add(fault_id)

    def open_faults(self) -> list[OpenFault]:
        return [one for one in read_open(self.path) if one.id not in self._undone]

    def close(self, archive: Path | None = None) -> None:
        """Let go of it. If nothing in it is open, it moves to ``archive``, or is deleted where none is given."""
        try:
            if not self.open_faults():
                if archive is not None and archive.parent.is_dir():
                    # A copy for people: a full disk may cost it.
                    with contextlib.suppress(OSError), paths.open_private(archive) as file:
                        file.write(self.path.read_bytes())
                self.path.unlink()
        finally:
            os.close(self._file)

    def _intent(self, fault_id: str, fault: str, subject: str, **more: Json) -> None:
        entry: dict[str, Json] = {"step": "intent", "run": self.path.stem, "id": fault_id}
        self._append({**entry, "fault": fault, "subject": subject, **more})

    def _utc(self) -> str:
        return self._clock.utc().isoformat()

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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
