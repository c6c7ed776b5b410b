"""What stands in an undo log: which faults were intended, what was there before, and how each is taken back."""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monkeyproof import processes
from monkeyproof.errors import UsageError
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
            UsageError: there is no such undo.
        """
        function = self.resolved()
        with processes.undoing():
            return str(function(target, **self.arguments))

    def resolved(self) -> Callable[..., object]:
        """The function itself.

        Raises:
            UsageError: it is not one of the faults' room.
        """
        module, _, name = self.function.partition(":")
        if not module.startswith(ROOM_OF_UNDOS) or not name.isidentifier():
            raise UsageError(f"undo log: {self.function!r} is not an undo of the faults' room")
        found: object = None
        with contextlib.suppress(ImportError):
            found = getattr(importlib.import_module(module), name, None)
        if not callable(found):
            raise UsageError(
                f"undo log: the faults' room has no undo {self.function!r}; mend by hand what it names"
            )
        return found

    def __str__(self) -> str:
        return f"{self.function}({_words(self.arguments)})"


@dataclass(frozen=True, slots=True)
class OpenFault:
    """An intent without a revert."""

    id: str
    fault: str
    subject: str
    undo: Undo
    target_file: str
    t0_utc: str
    prior: Mapping[str, Json] = field(default_factory=dict)
    """What the fault found before it acted; empty in logs of earlier versions, which did not say."""
    lease_s: float | None = None
    """After how long without renewal it ends by itself. None: it does not, or its log does not say."""

    @property
    def before_words(self) -> str:
        return _words(self.prior) or "not on record"

    @property
    def lease_words(self) -> str:
        return "none" if self.lease_s is None else f"{self.lease_s:g} s"


def _words(values: Mapping[str, Json]) -> str:
    """On one line, for a person."""
    told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return ", ".join(f"{name}={value}" if value else f'{name}=""' for name, value in told.items())


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
            if entry["step"] == "intent" and entry["undo"] is not None:
                intents[entry["id"]] = OpenFault(
                    entry["id"],
                    entry["fault"],
                    entry["subject"],
                    Undo(entry["undo"]["function"], entry["undo"]["arguments"]),
                    entry["target_file"],
                    entry["utc"],
                    dict(entry.get("prior") or {}),
                    None if entry.get("lease_s") is None else float(entry["lease_s"]),
                )
            elif entry["step"] == "reverted":
                intents.pop(entry["id"], None)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}:{number}: cannot be understood ({error}); look at it, mend the target by hand, "
                "then delete the file"
            ) from None
    return list(reversed(intents.values()))
