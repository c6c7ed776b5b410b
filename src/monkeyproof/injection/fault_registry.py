"""The Monkey's repertoire: every fault there is, and what a person has to know of it before using it.

A fault is a function of ``monkeyproof.faults`` with the decorator ``fault``. Whatever lists faults, or injects one
without an experiment, finds them here; its parameters are those of the function.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar, cast

import numpy as np

from monkeyproof.config.target_file import Family, TargetFile
from monkeyproof.errors import RenamedWarning, UsageError
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
    former_names: tuple[str, ...] = ()
    """Names of the function in the version before; they work in this one, with a warning."""

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
    *,
    needs: Sequence[type] = (),
    evidence: str,
    undo: str,
    healing: str,
    draw: Draw | None = None,
    former_names: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a function to be a fault. The function stays as it is.

    Its module also gets a function for each of ``former_names``, since Chaos Toolkit only calls functions that a
    module has. Such a function warns, and is no fault of its own: no list of faults shows it.
    """

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        family = function.__module__.removeprefix("monkeyproof.faults.").partition(".")[0]
        declared = Fault(
            f"{family}.{function.__name__}",
            cast("Callable[..., Json]", function),
            tuple(needs),
            evidence,
            undo,
            healing,
            draw,
            tuple(former_names),
        )
        for name in former_names:
            function.__globals__[name] = _renamed_function(declared, name)
        function.__fault__ = declared  # type: ignore[attr-defined]
        return function

    return declare


def _renamed_function(fault: Fault, name: str) -> Callable[..., Json]:
    @functools.wraps(fault.function)
    def renamed(*args: Json, **kwargs: Json) -> Json:
        warn_renamed(f"{fault.family}.{name}", fault)
        return fault.function(*args, **kwargs)

    renamed.__name__ = renamed.__qualname__ = name
    renamed.__renamed_to__ = fault  # type: ignore[attr-defined]
    return renamed


def warn_renamed(name: str, fault: Fault, where: str = "") -> None:
    """Warn, once for each message, that a fault has another name now. ``where``: the file and line."""
    prefix = f"{where}: " if where else ""
    message = (
        f"{prefix}{name!r} is named {fault.name!r} now; use that name, for the old one works in this version only"
    )
    # The level is that of this line, whoever calls: only then are equal messages shown once.
    warnings.warn(message, RenamedWarning, stacklevel=1)


def renamed_to(module: str, function: str) -> Fault | None:
    """The fault that an imported module has under a former name; None if that name is no former one."""
    found = getattr(getattr(sys.modules.get(module), function, None), "__renamed_to__", None)
    return found if isinstance(found, Fault) else None


def collect_faults(package: str) -> None:
    """Give the package of a family (``__name__`` in its ``__init__.py``) the faults of all its modules.

    A new fault, or a new module of faults, then stands in no list. Whatever else the package offers, it imports.
    """
    family = sys.modules[package]
    public = {name for name in vars(family) if not name.startswith("_") and _belongs(family, name, package)}
    for found in pkgutil.iter_modules(family.__path__, f"{package}."):
        module = importlib.import_module(found.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == found.name and hasattr(function, "__fault__"):
                setattr(family, name, function)
                public.add(name)
            elif hasattr(function, "__renamed_to__"):
                setattr(family, name, function)
    family.__all__ = sorted(public)  # type: ignore[attr-defined]


def _belongs(family: object, name: str, package: str) -> bool:
    """Whether what a package imported is a function of one of its own modules, such as an undo."""
    member = getattr(family, name)
    return inspect.isfunction(member) and member.__module__.startswith(f"{package}.")


def all_faults() -> Sequence[Fault]:
    """Every fault, by family in their order here, then by name."""
    found: list[Fault] = []
    for family in FAMILIES:
        module = importlib.import_module(f"monkeyproof.faults.{family}")
        functions = (function for _, function in inspect.getmembers(module, inspect.isfunction))
        faults = (getattr(one, "__fault__", None) for one in functions)
        # A module may offer another family's function under its own name.
        own = {one.name: one for one in faults if isinstance(one, Fault) and one.family == family}
        found += (own[name] for name in sorted(own))
    return found


def find(name: str) -> Fault:
    """A fault by its name. A former name is found too, with a warning.

    Raises:
        UsageError: there is none of that name.
    """
    import difflib

    known = {one.name: one for one in all_faults()}
    if name in known:
        return known[name]
    if (renamed := by_former_name(name)) is not None:
        warn_renamed(name, renamed)
        return renamed
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no fault {name!r}: {hint}'monkeyproof list --faults' shows what there is")


def by_former_name(name: str) -> Fault | None:
    """The fault whose former name this is (``family.function``); None if it is no fault's."""
    family, _, function = name.partition(".")
    return next((one for one in all_faults() if one.family == family and function in one.former_names), None)


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
