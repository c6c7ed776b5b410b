"""The arguments of a manual injection: parsed and checked by the parameters of the fault's function."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from monkeyproof.config.user_files import problem_words
from monkeyproof.errors import UsageError
from monkeyproof.injection.fault_registry import Fault, Parameter
from monkeyproof.types import Json

UNITS = {
    "ms": "milliseconds",
    "s": "seconds",
    "kib": "KiB",
    "mib": "MiB",
    "mb": "MB",
    "bytes": "bytes",
    "share": "of all, 0 to 1",
    "per_s": "a second",
    "kib_per_s": "KiB a second",
}
"""Units, by the end of a parameter's name."""
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_LAX = ConfigDict(allow_inf_nan=False)


def described(parameter: Parameter) -> str:
    """A parameter on one line: ``low_ms=FLOAT (milliseconds; needed)``, or with its default."""
    words = "needed" if parameter.required else f"default {_shown(parameter.default)}"
    unit = unit_of(parameter.name)
    return f"{parameter.name}={parameter.kind.upper()} ({f'{unit}; ' if unit else ''}{words})"


def unit_of(name: str) -> str:
    """The unit of a parameter, by the end of its name; "" if the name has none."""
    ends = (end for end in UNITS if name == end or name.endswith(f"_{end}"))
    # The longest one is meant: "kib_per_s" ends in "s" as well.
    return UNITS.get(max(ends, key=len, default=""), "")


def parse_arguments(fault: Fault, words: Sequence[str]) -> dict[str, Json]:
    """Parse words such as ``low_ms=50``, each by the type of the function's parameter.

    Raises:
        UsageError: a word is not such a pair or names no parameter, a value has another type, or one is missing.
    """
    hints = typing.get_type_hints(fault.function)
    known = {one.name for one in fault.parameters}
    found: dict[str, Json] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise _wrong(fault, f"{word!r} is not NAME=VALUE")
        if name not in known:
            raise _wrong(fault, f"it takes no {name!r}")
        if name in found:
            raise _wrong(fault, f"{name} is given twice")
        found[name] = _value(fault, name, text, hints[name])
    _refuse_missing(fault, found)
    return found


def check_arguments(fault: Fault, arguments: Mapping[str, Json]) -> None:
    """Check values from Python against the types of the function's parameters.

    Raises:
        UsageError: an argument is unknown, missing or of another type.
    """
    hints = typing.get_type_hints(fault.function)
    known = {one.name for one in fault.parameters}
    for name, value in arguments.items():
        if name not in known:
            raise _wrong(fault, f"it takes no {name!r}")
        try:
            _adapter(hints[name], _STRICT).validate_python(value)
        except ValidationError as error:
            raise _wrong(fault, f"{name}: {problem_words(error.errors()[0])}") from None
    _refuse_missing(fault, arguments)


def _value(fault: Fault, name: str, text: str, hint: Any) -> Json:
    if hint is str:
        return text
    adapter = _adapter(hint, _LAX)
    try:
        return adapter.validate_strings(text) if hint in (int, float, bool) else _parse_json_or_text(adapter, text)
    except ValidationError as error:
        raise _wrong(fault, f"{name}: {problem_words(error.errors()[0])}") from None


def _parse_json_or_text(adapter: TypeAdapter[Json], text: str) -> Json:
    """Read a list or a mapping as JSON, and anything that is not JSON as text."""
    try:
        return adapter.validate_json(text)
    except ValidationError:
        return adapter.validate_python(text)


def _adapter(hint: Any, config: ConfigDict) -> TypeAdapter[Json]:
    kind = typing.get_origin(hint) or hint
    # A model has its own configuration.
    return TypeAdapter(hint) if inspect.isclass(kind) and _is_model(kind) else TypeAdapter(hint, config=config)


def _is_model(kind: type) -> bool:
    return hasattr(kind, "__dataclass_fields__") or hasattr(kind, "model_fields") or typing.is_typeddict(kind)


def _refuse_missing(fault: Fault, given: Collection[str]) -> None:
    missing = [one.name for one in fault.parameters if one.required and one.name not in given]
    if missing:
        raise _wrong(fault, f"it needs {', '.join(missing)}")


def _wrong(fault: Fault, what: str) -> UsageError:
    takes = ", ".join(described(one) for one in fault.parameters) or "nothing"
    return UsageError(f"{fault.name}: {what}; it takes: {takes}")


def _shown(value: Json) -> str:
    return '""' if value == "" else "none" if value is None else str(value)
