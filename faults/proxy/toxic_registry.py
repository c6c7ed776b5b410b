"""All kinds of toxics, by name: every module of ``monkeyproof.faults.proxy.toxics`` may register one."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import pkgutil
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy import toxics
from monkeyproof.faults.proxy.toxic import Hook, ToxicKind
from monkeyproof.types import Json

C = TypeVar("C", bound=type[ToxicKind])
PROTOCOLS = ("tcp", "http", "redis")
_KINDS: dict[str, type[ToxicKind]] = {}
_TYPES: Mapping[Any, tuple[type | tuple[type, ...], str]] = {
    float: ((int, float), "a finite number"),
    float | None: ((int, float), "a finite number"),
    int: (int, "a whole number"),
    str: (str, "text"),
    Mapping[str, Json]: (dict, "a mapping"),
}
"""What a parameter may be: the JSON that a client sends for it, and what that is called."""


def toxic(kind: str, *, hook: Hook[Any], protocols: tuple[str, ...] = PROTOCOLS) -> Callable[[C], C]:
    """Register a frozen dataclass as a kind of toxic, which links of these protocols can have.

    Raises:
        TypeError: the name is taken, the class cannot act at the hook, or no client can send a parameter's type.
    """

    def register(made: C) -> C:
        if not issubclass(made, hook.interface):
            needs = hook.interface.__name__
            raise TypeError(f"{kind}: acts at {hook.name}, so {made.__name__} has to derive from {needs}")
        if kind in _KINDS:
            raise TypeError(f"{kind}: {_KINDS[kind].__module__} has that name already")
        hints = typing.get_type_hints(made)
        for one in dataclasses.fields(made):  # type: ignore[arg-type]
            if hints[one.name] not in _TYPES:
                raise TypeError(f"{kind}: {one.name} is none of {', '.join(map(str, _TYPES))}")
        made.kind, made.hook, made.protocols = kind, hook, protocols
        _KINDS[kind] = made
        return made

    return register


@functools.cache
def kinds() -> Mapping[str, type[ToxicKind]]:
    """Every kind of toxic by its name, in alphabetical order. Imports all of them."""
    for found in pkgutil.iter_modules(toxics.__path__, f"{toxics.__name__}."):
        importlib.import_module(found.name)
    return dict(sorted(_KINDS.items()))


def parse(kind: str, parameters: Mapping[str, Json], protocol: str) -> ToxicKind:
    """Check what a client asks for.

    Raises:
        UsageError: unknown kind or parameter, a value of the wrong type or range, or a toxic that needs a link of
            another protocol.
    """
    if kind not in kinds():
        raise UsageError(f"{kind!r}: no such toxic; there are {', '.join(kinds())}")
    wanted = kinds()[kind]
    if protocol not in wanted.protocols:
        needs = " or ".join(wanted.protocols)
        raise UsageError(f"{kind}: needs a link whose protocol is {needs}, and this one is {protocol}")
    known = {one.name: one for one in dataclasses.fields(wanted)}  # type: ignore[arg-type]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise UsageError(f"{kind}: unknown parameter {unknown[0]!r}; it takes {', '.join(known) or 'none'}")
    missing = [
        name for name, one in known.items() if one.default is dataclasses.MISSING and name not in parameters
    ]
    if missing:
        raise UsageError(f"{kind}: parameter {missing[0]!r} is missing; it takes {', '.join(known)}")
    hints = typing.get_type_hints(wanted)
    return wanted(**{name: _value(kind, name, hints[name], value) for name, value in parameters.items()})


def _value(kind: str, name: str, wanted: Any, value: Json) -> Json:
    if value is None and wanted == float | None:
        return None
    types, words = _TYPES[wanted]
    if isinstance(value, bool) or not isinstance(value, types):
        raise UsageError(f"{kind}: {name} must be {words}, not {value!r}")
    if wanted in (float, float | None):
        number = float(typing.cast(float, value))
        if not math.isfinite(number):
            raise UsageError(f"{kind}: {name} must be {words}, not {value!r}")
        return number
    return value
