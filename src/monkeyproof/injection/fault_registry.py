"""The Monkey's repertoire: every fault there is, and what a person has to know of it before using it.

A fault is a function of ``monkeyproof.faults`` with the decorator ``fault``. Whatever lists faults, or injects one
without an experiment, finds them here; its parameters are those of the function.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar, cast

import numpy as np

from monkeyproof.config.target_file import Family, TargetFile
from monkeyproof.errors import UsageError
from monkeyproof.types import Json

P = ParamSpec("P")
R = TypeVar("R")

FAMILIES = tuple(
    family for family in typing.get_args(Family) if importlib.util.find_spec(f"monkeyproof.faults.{family}")
)
"""Modules of ``monkeyproof.faults`` that have faults to offer; the same words stand in ``allow_faults``."""

WHEN_SEEN = ("monkeyproof.faults.compound", "when_seen")
"""The action that injects another fault once an event is seen."""


class Draw(Protocol):
    """Chooses arguments of a fault for one target, by chance."""

    def __call__(
        self, rng: np.random.Generator, target: TargetFile, intensity: float
    ) -> Mapping[str, Json] | None: ...


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a fault; its unit is the end of its name."""

    name: str
    kind: str
    """Its type, as it is written in the code: ``float``, ``str``."""
    default: Json
    required: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """What there is to know of one fault."""

    name: str
    """``family.function``: the same in experiments, in the history and on the command line."""
    function: Callable[..., Json]
    needs: tuple[type, ...]
    """Capabilities of the target port that it asks for."""
    evidence: str
    """What proves that it took effect, in a phrase."""
    undo: str
    """What takes it back, in a phrase; or why there is nothing to take back."""
    healing: str
    """Which remedy it calls for, in a phrase."""
    draw: Draw | None
    """Arguments for ``monkeyproof unleash``, with an intensity in (0, 1]; it returns None where the target has no
    place for this fault. None: never drawn by chance."""

    @property
    def key(self) -> tuple[str, str]:
        """Module and function, as an experiment names them: where the function can be had by its name."""
        return f"monkeyproof.faults.{self.family}", self.function.__name__

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())

    def link(self, arguments: Mapping[str, Json]) -> Json:
        """The link that it is done to with these arguments: one that is not named is the function's default."""
        if (named := arguments.get("link")) is not None:
            return named
        own = inspect.signature(self.function).parameters.get("link")
        return None if own is None or own.default is own.empty else own.default

    @property
    def parameters(self) -> Sequence[Parameter]:
        hints = typing.get_type_hints(self.function)
        return [
            Parameter(
                name,
                getattr(hints[name], "__name__", str(hints[name])),
                None if one.default is one.empty else one.default,
                one.default is one.empty,
            )
            for name, one in inspect.signature(self.function).parameters.items()
            if name not in ("configuration", "secrets")  # Chaos Toolkit's own.
        ]


def fault(
    *, needs: Sequence[type] = (), evidence: str, undo: str, healing: str, draw: Draw | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a function to be a fault. The function stays as it is."""

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        family = function.__module__.removeprefix("monkeyproof.faults.").partition(".")[0]
        name = f"{family}.{function.__name__}"
        function.__fault__ = Fault(  # type: ignore[attr-defined]
            name, cast("Callable[..., Json]", function), tuple(needs), evidence, undo, healing, draw
        )
        return function

    return declare


def all_faults() -> Sequence[Fault]:
    """Every fault, by family in their order here, then by name."""
    found: list[Fault] = []
    for family in FAMILIES:
        module = importlib.import_module(f"monkeyproof.faults.{family}")
        members = (getattr(module, name) for name in module.__all__)
        faults = (getattr(one, "__fault__", None) for one in members)
        # A module may offer another family's function under its own name.
        found += sorted(
            (one for one in faults if isinstance(one, Fault) and one.family == family), key=lambda one: one.name
        )
    return found


def find(name: str) -> Fault:
    """A fault by its name.

    Raises:
        UsageError: there is none of that name.
    """
    import difflib

    known = {one.name: one for one in all_faults()}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no fault {name!r}: {hint}'monkeyproof list --faults' shows what there is")


def faults_in(document: Mapping[str, Json]) -> Iterator[Fault]:
    """The faults that an experiment's method injects, also those that wait for an event."""
    by_key = {one.key: one for one in all_faults()}
    for activity in document.get("method") or ():
        provider = activity.get("provider") or {}
        arguments = provider.get("arguments") or {}
        if (provider.get("module"), provider.get("func")) == WHEN_SEEN:
            yield find(str(arguments.get("fault")))
        elif found := by_key.get((str(provider.get("module")), str(provider.get("func")))):
            yield found
