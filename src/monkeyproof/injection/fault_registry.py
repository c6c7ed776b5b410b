"""The fault registry: every fault there is, and what a user has to know of it before using it.

A fault is a function with the decorator ``fault``, in a module of ``monkeyproof.faults`` or of a plugin (see
``monkeyproof.plugins``). Every list of faults, and every injection without an experiment, finds them here. The
parameters of a fault are those of its function.
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
from dataclasses import dataclass, replace
from types import ModuleType
from typing import ParamSpec, Protocol, TypeVar, cast

import numpy as np

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import RenamedWarning, UsageError
from monkeyproof.plugins import registry as plugins
from monkeyproof.types import Json

P = ParamSpec("P")
R = TypeVar("R")

BUILT_IN = "monkeyproof.faults."
FAMILIES = tuple(family for family in plugins.BUILT_IN_FAMILIES if importlib.util.find_spec(f"{BUILT_IN}{family}"))
"""Modules of ``monkeyproof.faults`` that have faults; ``allow_faults`` in a target file names the same."""

WHEN_SEEN = ("monkeyproof.faults.compound", "when_seen")
"""The action that injects another fault when an event occurs."""


class Draw(Protocol):
    """Draws a fault's arguments for one target by chance."""

    def __call__(
        self, rng: np.random.Generator, target: TargetFile, intensity: float
    ) -> Mapping[str, Json] | None: ...


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a fault; the end of its name is its unit."""

    name: str
    kind: str
    """Its type, as the code writes it: ``float``, ``str``."""
    default: Json
    required: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """Everything that a fault declares about itself."""

    name: str
    """``family.function``: the same in experiments, in the history and on the command line."""
    function: Callable[..., Json]
    needs: tuple[type, ...]
    """Capabilities of the target port that it needs."""
    evidence: str
    """What proves that it took effect, in a phrase."""
    undo: str
    """What undoes it, in a phrase; or why there is nothing to undo."""
    healing: str
    """Which remedy fits it, in a phrase."""
    draw: Draw | None
    """Draws arguments for ``monkeyproof unleash``, with an intensity in (0, 1]; returns None where the target has
    no place for this fault. None: the fault is never drawn by chance."""
    former_names: tuple[str, ...] = ()
    """Names of the function in the version before; they work in this one, with a warning."""
    module: str = ""
    """The plugin's module that has the function; "" for the family's module of ``monkeyproof.faults``."""

    @property
    def key(self) -> tuple[str, str]:
        """Module and function, as an experiment names them."""
        return self.module or f"{BUILT_IN}{self.family}", self.function.__name__

    @property
    def origin(self) -> str:
        """Where it comes from, for people: ``built in``, or the plugin's package or module."""
        plugin = plugins.families().get(self.family) if self.module else None
        return plugin.origin if plugin is not None else self.module or "built in"

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())

    def link(self, arguments: Mapping[str, Json]) -> Json:
        """The link that the fault acts on with these arguments, or by default; None if it has none."""
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
    """Declare a function to be a fault; the function itself stays as it is.

    Args:
        needs: capabilities of the target port that the fault needs.
        evidence, undo, healing: phrases for people; see ``Fault``.
        draw: draws arguments for a randomised schedule.
        former_names: names of the function in the version before. The function's module gets a function for each,
            since Chaos Toolkit only calls functions that a module has. Such a function warns, and is no fault of
            its own: no list of faults shows it.
    """

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        family, module = _home_of(function.__module__)
        declared = Fault(
            f"{family}.{function.__name__}",
            cast("Callable[..., Json]", function),
            tuple(needs),
            evidence,
            undo,
            healing,
            draw,
            tuple(former_names),
            module,
        )
        for name in former_names:
            function.__globals__[name] = _renamed_function(function, name)
        function.__fault__ = declared  # type: ignore[attr-defined]
        return function

    return declare


def _renamed_function(function: Callable[..., Json], name: str) -> Callable[..., Json]:
    @functools.wraps(function)
    def renamed(*args: Json, **kwargs: Json) -> Json:
        fault = cast("Fault", declared_as(renamed))
        warn_renamed(f"{fault.family}.{name}", fault)
        return fault.function(*args, **kwargs)

    renamed.__name__ = renamed.__qualname__ = name
    renamed.__renamed_to__ = function  # type: ignore[attr-defined]
    return renamed


def declared_as(function: object) -> Fault | None:
    """The fault that a function is declared to be, also under a former name; None if it is no fault."""
    # A plugin's fault is declared anew once its family is known, so a former name leads to the function.
    found = getattr(getattr(function, "__renamed_to__", function), "__fault__", None)
    return found if isinstance(found, Fault) else None


def warn_renamed(name: str, fault: Fault, where: str = "") -> None:
    """Warn, once for each message, that a fault has another name now. ``where``: the file and line."""
    prefix = f"{where}: " if where else ""
    message = (
        f"{prefix}{name!r} is named {fault.name!r} now; use that name, for the old one works in this version only"
    )
    # The level is that of this line, for every caller: only then are equal messages shown once.
    warnings.warn(message, RenamedWarning, stacklevel=1)


def renamed_to(module: str, function: str) -> Fault | None:
    """The fault that an imported module has under a former name; None if that name is no former one."""
    found = getattr(sys.modules.get(module), function, None)
    return declared_as(found) if hasattr(found, "__renamed_to__") else None


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


def _home_of(module: str) -> tuple[str, str]:
    """The family of a function that stands in a module, and the plugin's module that it is found in, if any."""
    if module.startswith(BUILT_IN):
        return module.removeprefix(BUILT_IN).partition(".")[0], ""
    if (plugin := plugins.holder_of_fault(module)) is not None:
        return plugin.name, plugin.module
    # Imported before a target file that names it is read: ``_plugin_faults`` sees to it then.
    return module.rpartition(".")[2], module


def built_in_faults() -> Sequence[Fault]:
    """Every fault of this package, by family in the order of ``FAMILIES``, then by name."""
    found: list[Fault] = []
    for family in FAMILIES:
        found += _faults_of(importlib.import_module(f"{BUILT_IN}{family}"), family)
    return found


def all_faults() -> Sequence[Fault]:
    """Every fault, those of plugins last. Imports all plugins that may have faults.

    Raises:
        UsageError: a plugin cannot be imported, or the name of its family is taken.
    """
    return [*built_in_faults(), *(one for name in plugins.families() for one in _plugin_faults(name))]


def _plugin_faults(family: str) -> Sequence[Fault]:
    plugin = plugins.families()[family]
    module = plugin.imported()
    for _, function in inspect.getmembers(module, inspect.isfunction):
        declared = getattr(function, "__fault__", None)
        if isinstance(declared, Fault) and declared.module and plugin.holds(function.__module__):
            here = replace(declared, name=f"{family}.{function.__name__}", module=plugin.module)
            if here != declared:  # It was imported before a target file named the plugin.
                function.__fault__ = here  # type: ignore[attr-defined]
    return _faults_of(module, family)


def _faults_of(module: ModuleType, family: str) -> Sequence[Fault]:
    """The faults that a module offers, without former names. It may offer another family's function as well."""
    faults = (getattr(one, "__fault__", None) for _, one in inspect.getmembers(module, inspect.isfunction))
    own = {one.name: one for one in faults if isinstance(one, Fault) and one.family == family}
    return [own[name] for name in sorted(own)]


def fault_at(module: str, function: str) -> Fault | None:
    """The fault that an experiment names by module and function, also by a former name; None if that is no fault.

    Imports the module only if it is a family's or a plugin's.

    Raises:
        UsageError: it is a plugin's, and that cannot be imported.
    """
    family = module.removeprefix(BUILT_IN) if module.startswith(BUILT_IN) else ""
    if family in FAMILIES:
        found = declared_as(getattr(importlib.import_module(module), function, None))
        return found if found is not None and found.family == family else None
    if (plugin := plugins.holder_of_fault(module)) is None:
        return None
    _plugin_faults(plugin.name)
    return declared_as(getattr(plugin.imported(module), function, None))


def find(name: str) -> Fault:
    """A fault by its name. A former name is found too, with a warning.

    Raises:
        UsageError: there is none of that name.
    """
    import difflib

    known = {one.name: one for one in _faults_beside(name.partition(".")[0])}
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
    return next(
        (one for one in _faults_beside(family) if one.family == family and function in one.former_names), None
    )


def _faults_beside(family: str) -> Sequence[Fault]:
    """Faults among which one of a family is found, or else what it is mistaken for. A broken plugin hides only its
    own faults."""
    if family in FAMILIES:
        return built_in_faults()
    return _plugin_faults(family) if family in plugins.families() else all_faults()


def faults_in(document: Mapping[str, Json]) -> Iterator[Fault]:
    """The faults that an experiment's method injects, also those that wait for an event."""
    for activity in document.get("method") or ():
        provider = activity.get("provider") or {}
        arguments = provider.get("arguments") or {}
        where = (str(provider.get("module")), str(provider.get("func")))
        if where == WHEN_SEEN:
            yield find(str(arguments.get("fault")))
        elif (found := fault_at(*where)) is not None:
            yield found
