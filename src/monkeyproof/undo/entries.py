"""What stands in an undo log: which faults were intended, what was there before, and how each is taken back."""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

from monkeyproof.errors import UsageError
from monkeyproof.runtime import procfs
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
    package: str = ""
    """The plugin that the function comes with, and its version; "" for one of this package."""

    @property
    def is_built_in(self) -> bool:
        return self.function.startswith(ROOM_OF_UNDOS)

    def run(self, target: Target, target_file: Path | None = None) -> str:
        """Take the fault back. Raises whatever the undo raises: then it is not taken back.

        Args:
            target_file: the fault's; it may name the plugin that has the function.

        Raises:
            UsageError: there is no such undo.
        """
        function = self.resolved(target_file)
        with procfs.undoing():
            return str(function(target, **self.arguments))

    def resolved(self, target_file: Path | None = None) -> Callable[..., object]:
        """The function itself.

        Raises:
            UsageError: it is neither one of the faults' room nor an undo of a plugin.
        """
        module, _, name = self.function.partition(":")
        if not self.is_built_in:
            from monkeyproof.undo.plugin_undo import resolve

            return resolve(self.function, target_file, self.package)
        if not name.isidentifier():
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


@dataclass(frozen=True, slots=True)
class Contents:
    """What stands in a log."""

    intents: tuple[OpenFault, ...] = ()
    """Faults with an undo, in the order in which they were intended."""
    done: frozenset[str] = frozenset()
    """Ids of those that were taken back."""
    kept: tuple[str, ...] = ()
    """What is never taken back, each with why, in words."""
    unreadable: tuple[str, ...] = ()
    """Lines that cannot be understood: file, line, why, what to do. Each may be a fault that nobody knows of."""

    @property
    def open(self) -> list[OpenFault]:
        """Intended and not reverted, newest first: the order in which to undo them."""
        return [one for one in reversed(self.intents) if one.id not in self.done]

    @property
    def end_words(self) -> str:
        """What became of what was injected, for a trial that has left nothing open."""
        count = len(self.intents)
        words = [f"what was injected is reverted{f' ({count} faults)' if count > 1 else ''}"] if count else []
        words += [f"nothing was taken back of {one}" for one in self.kept]
        return "; ".join(words) or "nothing had been injected"


def read_open(path: Path) -> list[OpenFault]:
    """Faults of a log that are open, as far as it can be read."""
    return read_log(path).open


def read_log(path: Path) -> Contents:
    """What can be read of a log, and what cannot.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        return parse_log(path.read_bytes(), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = error.strerror or error
        return Contents(unreadable=(f"{path}: cannot be read ({why}); see what is wrong there",))


def parse_log(text: bytes, path: Path) -> Contents:
    """One bad line must not keep the others from being undone.

    A torn last line is an intent that never reached its injection, so it is left out.
    """
    intents: dict[str, OpenFault] = {}
    done: set[str] = set()
    kept: list[str] = []
    unreadable: list[str] = []
    for number, line in enumerate(text.split(b"\n")[:-1], start=1):
        try:
            entry = _typed(json.loads(line), dict, "the line")
            step, fault_id = _text(entry, "step"), _text(entry, "id")
            if step == "intent" and entry["undo"] is not None:
                intents[fault_id] = _intent(entry)
                done.discard(fault_id)
            elif step == "intent":
                why = entry.get("nothing_to_undo") or "its log does not say why"
                kept.append(f"{_text(entry, 'fault')} on {_text(entry, 'subject')} ({why})")
            elif step == "reverted":
                done.add(fault_id)
            elif step != "effective":
                raise ValueError(f"no step is called {step!r}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            unreadable.append(
                f"{path}:{number}: cannot be understood ({why}); look at it, mend the target by hand, "
                f"then say 'monkeyproof revert --forget {path.stem}'"
            )
    return Contents(tuple(intents.values()), frozenset(done), tuple(kept), tuple(unreadable))


def _intent(entry: Mapping[str, Json]) -> OpenFault:
    undo = _typed(entry["undo"], dict, "undo")
    lease_s = entry.get("lease_s")
    return OpenFault(
        _text(entry, "id"),
        _text(entry, "fault"),
        _text(entry, "subject"),
        Undo(
            _text(undo, "function"),
            _typed(undo["arguments"], dict, "arguments"),
            str(_typed(undo.get("package", ""), str, "package")),
        ),
        _text(entry, "target_file"),
        _text(entry, "utc"),
        _typed(entry.get("prior") or {}, dict, "prior"),
        None if lease_s is None else float(_typed(lease_s, int | float, "lease_s")),
    )


def _text(entry: Mapping[str, Json], name: str) -> str:
    return str(_typed(entry[name], str, name))


def _typed(value: Json, kind: type | UnionType, name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {json.dumps(value)[:40]}")
    return value
