"""The undo log: what was about to be done is on disk before it is done, with how to take it back.

One file a trial, append-only JSON lines, in the harness's home while the trial runs; it moves into the
trial's folder when nothing in it is open. A file that is still in the home after its trial is a fault that
somebody has to look at: ``monkeyproof run`` refuses to start and ``monkeyproof revert`` replays it.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monkeyproof import paths
from monkeyproof.errors import UsageError
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


class UndoLog:
    """The log of one trial. Every line is synced to disk before the method returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
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

    def reverted(self, fault_id: str, summary: str) -> None:
        """Record that a fault was taken back, and how that was seen."""
        self._append({"step": "reverted", "id": fault_id, "summary": redact(summary)})

    def open_faults(self) -> list[OpenFault]:
        return read_open(self.path)

    def close(self, archive: Path) -> None:
        """Move the log into the trial's folder if nothing in it is open."""
        os.close(self._file)
        if not read_open(self.path):
            archive.write_bytes(self.path.read_bytes())
            archive.chmod(0o600)
            self.path.unlink()

    def _append(self, entry: dict[str, Json]) -> None:
        os.write(self._file, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        os.fsync(self._file)


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
