"""The entries of an undo log: which faults were intended, the state before each, and how each is undone."""

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
from monkeyproof.runtime import trial_mark
from monkeyproof.targets.port import Target
from monkeyproof.types import Json
from monkeyproof.undo.moved import current_name

ROOM_OF_UNDOS = "monkeyproof.faults."


@dataclass(frozen=True, slots=True)
class Undo:
    """How to undo a fault, as data: a function ``(target, **arguments) -> str`` of the faults' room.

    The function is idempotent, checks the state that it finds, does not overwrite what another process or user
    changed since, and returns one sentence on what it did or found.
    """

    function: str
    """``monkeyproof.faults.registry:restore_champion``"""
    arguments: Mapping[str, Json]
    package: str = ""
    """The plugin that the function comes with, and its version; "" for one of this package."""

    @property
    def is_built_in(self) -> bool:
        """Whether the function belongs to this package, not to a plugin."""
        return self.function.startswith(ROOM_OF_UNDOS)

    def run(self, target: Target, target_file: Path | None = None) -> str:
        """Undo the fault. Raises whatever the undo raises: then the fault is not reverted.

        Args:
            target_file: the fault's; it may name the plugin that has the function.

        Raises:
            UsageError: there is no such undo.
        """
        function = self.resolved(target_file)
        with trial_mark.undo_mark():
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
                f"undo log: the faults' room has no undo {self.function!r}; repair manually what it names"
            )
        return found

    def __str__(self) -> str:
        return f"{self.function}({_one_line(self.arguments)})"


@dataclass(frozen=True, slots=True)
class OpenFault:
    """A fault that was intended and not reverted."""

    id: str
    fault: str
    subject: str
    undo: Undo
    target_file: str
    t0_utc: str
    prior: Mapping[str, Json] = field(default_factory=dict)
    """The state that the fault found before it acted; empty in logs of earlier versions."""
    lease_s: float | None = None
    """After how many seconds without renewal it ends by itself. None: never, or its log does not say."""

    @property
    def prior_text(self) -> str:
        return _one_line(self.prior) or "not on record"

    @property
    def lease_text(self) -> str:
        return "none" if self.lease_s is None else f"{self.lease_s:g} s"


def _one_line(values: Mapping[str, Json]) -> str:
    """The values on one line, for a message."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return ", ".join(f"{name}={value}" if value else f'{name}=""' for name, value in texts.items())


@dataclass(frozen=True, slots=True)
class LogContents:
    """The parsed contents of an undo log."""

    intents: tuple[OpenFault, ...] = ()
    """Faults with an undo, in the order in which they were intended."""
    done: frozenset[str] = frozenset()
    """Ids of those that were reverted."""
    kept: tuple[str, ...] = ()
    """One-shot acts, which are never reverted, each with why."""
    unreadable: tuple[str, ...] = ()
    """Lines that cannot be understood: file, line, why, what to do. Each may stand for an open fault."""

    @property
    def open(self) -> list[OpenFault]:
        """Intended and not reverted, newest first: the order in which to undo them."""
        return [one for one in reversed(self.intents) if one.id not in self.done]

    @property
    def end_summary(self) -> str:
        """One sentence on the injected faults of a trial that has left none open."""
        count = len(self.intents)
        words = [f"what was injected is reverted{f' ({count} faults)' if count > 1 else ''}"] if count else []
        words += [f"nothing was reverted of {one}" for one in self.kept]
        return "; ".join(words) or "nothing had been injected"


def read_open(path: Path) -> list[OpenFault]:
    """Open faults of a log, as far as it can be read; newest first."""
    return read_log(path).open


def read_log(path: Path) -> LogContents:
    """Read a log; lines that cannot be understood are in ``unreadable``.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        return parse_log(path.read_bytes(), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = error.strerror or error
        return LogContents(unreadable=(f"{path}: cannot be read ({why}); see what is wrong there",))


def parse_log(text: bytes, path: Path) -> LogContents:
    """Parse a log line by line: one bad line must not keep the faults of the others from being undone.

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
                f"{path}:{number}: cannot be understood ({why}); read it, repair the target manually, "
                f"then run 'monkeyproof revert --forget {path.stem}'"
            )
    return LogContents(tuple(intents.values()), frozenset(done), tuple(kept), tuple(unreadable))


def _intent(entry: Mapping[str, Json]) -> OpenFault:
    undo = _typed(entry["undo"], dict, "undo")
    function, arguments = current_name(_text(undo, "function"), _typed(undo["arguments"], dict, "arguments"))
    lease_s = entry.get("lease_s")
    return OpenFault(
        _text(entry, "id"),
        _text(entry, "fault"),
        _text(entry, "subject"),
        Undo(function, arguments, str(_typed(undo.get("package", ""), str, "package"))),
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
