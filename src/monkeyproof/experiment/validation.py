"""What is checked of an experiment before Chaos Toolkit sees it: its shape, and that what it calls is there."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from monkeyproof.config.user_files import problem_words, shown
from monkeyproof.errors import UsageError
from monkeyproof.injection import fault_registry
from monkeyproof.types import Json

Problem = tuple[tuple[str | int, ...], str]


def structure_problems(document: Mapping[str, Json]) -> Iterator[Problem]:
    """What is not of the shape that Chaos Toolkit, or a trial, takes for granted."""
    for key in ("title", "description"):
        if not isinstance(document.get(key), str):
            yield (key,), f"{key}: missing, or not text"
    if not isinstance(document.get("method"), list) or not document.get("method"):
        yield ("method",), "method: missing, or not a list of activities"
    for key, kind, of, words in _SHAPES:
        value = document.get(key)
        if value is not None and not (isinstance(value, kind) and all(isinstance(one, of) for one in value)):
            yield (key,), f"{key}: not {words}"
    hypothesis = document.get("steady-state-hypothesis")
    if isinstance(hypothesis, dict) and not isinstance(hypothesis.get("probes", []), list):
        yield ("steady-state-hypothesis", "probes"), "probes: not a list of probes"
    names = {activity.get("name") for _, activity in activities(document) if _is_named(activity)}
    for place, activity in activities(document):
        if not isinstance(activity, dict):
            yield place, "an activity is a mapping with type, name and provider"
        elif "ref" in activity:
            if not isinstance(activity["ref"], str) or activity["ref"] not in names:
                yield (*place, "ref"), f"ref: no activity is named {shown(activity['ref'])}"
        elif not isinstance(activity.get("name", ""), str):
            yield (*place, "name"), "name: not text"
        elif not isinstance(activity.get("provider"), dict):
            yield (*place, "provider"), "provider: missing, or not a mapping"
        elif activity["provider"].get("type") == "python" and not isinstance(
            activity["provider"].get("arguments", {}), dict
        ):
            yield (*place, "provider", "arguments"), "arguments: not a mapping"


_SHAPES: tuple[tuple[str, type[list[Json]] | type[dict[str, Json]], type, str], ...] = (
    ("method", list, object, "a list of activities"),
    ("rollbacks", list, object, "a list of activities"),
    ("steady-state-hypothesis", dict, str, "a mapping with title and probes"),
    ("configuration", dict, str, "a mapping"),
    ("secrets", dict, str, "a mapping"),
    ("tags", list, str, "a list of words"),
    ("controls", list, dict, "a list of mappings"),
    ("extensions", list, dict, "a list of mappings"),
)
"""Keys that an experiment may have: what they are, and what is in them."""


def _is_named(activity: Json) -> bool:
    return isinstance(activity, dict) and "ref" not in activity and isinstance(activity.get("name"), str)


def activities(document: Mapping[str, Json]) -> Iterator[tuple[tuple[str | int, ...], Json]]:
    """All activities of an experiment, each with its place in the file."""
    hypothesis = document.get("steady-state-hypothesis")
    if isinstance(hypothesis, dict) and isinstance(hypothesis.get("probes"), list):
        for index, activity in enumerate(hypothesis["probes"]):
            yield ("steady-state-hypothesis", "probes", index), activity
    for key in ("method", "rollbacks"):
        if isinstance(document.get(key), list):
            for index, activity in enumerate(document[key]):
                yield (key, index), activity


def argument_problems(document: Mapping[str, Json]) -> Iterator[Problem]:
    """What Chaos Toolkit does not check: that modules and functions exist, and the types of arguments."""
    for place, activity in activities(document):
        provider = activity.get("provider", {})
        if "ref" in activity or provider.get("type") != "python":
            continue
        module_name, function_name = str(provider.get("module", "")), str(provider.get("func", ""))
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # It runs somebody's code, and names may be anything.
            yield (*place, "provider", "module"), f"no module {shown(module_name)} can be imported ({error})"
            continue
        function = getattr(module, function_name, None)
        if inspect.isbuiltin(function):
            continue  # Chaos Toolkit calls those too; not all of them have a signature.
        if not inspect.isfunction(function):
            known = [name for name in getattr(module, "__all__", ()) if not name.startswith("_")]
            hint = f"; it has: {', '.join(known)}" if known else ""
            yield (*place, "provider", "func"), f"{module_name} has no function {shown(function_name)}{hint}"
            continue
        given = provider.get("arguments", {})
        found = list(_signature_problems((*place, "provider"), function, given))
        if not found and (module_name, function_name) == fault_registry.WHEN_SEEN:
            found = list(_problems_of_a_fault_to_come((*place, "provider", "arguments"), given))
        yield from found


def _problems_of_a_fault_to_come(place: tuple[str | int, ...], given: dict[str, Json]) -> Iterator[Problem]:
    """Known before the first fault is injected, or a trial would end in the middle for a misspelt word."""
    try:
        fault = fault_registry.find(given["fault"])
    except UsageError as error:
        yield (*place, "fault"), str(error)
        return
    yield from _signature_problems(place, fault.function, given["arguments"])


def _signature_problems(
    place: tuple[str | int, ...], function: Any, arguments: dict[str, Json]
) -> Iterator[Problem]:
    parameters = inspect.signature(function).parameters
    plumbing = {"configuration", "secrets"}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    own = function.__module__.startswith("monkeyproof.") or hasattr(function, "__fault__")
    hints = typing.get_type_hints(function) if own else {}
    for name, value in arguments.items():
        where = (*place, "arguments", name)
        if name not in parameters or name in plumbing:
            if not open_ended:
                known = ", ".join(key for key in parameters if key not in plumbing) or "none"
                yield where, f"{function.__name__} takes no argument {shown(name)}; it takes: {known}"
        elif name in hints and "${" not in str(value):  # ${name} is filled in by Chaos Toolkit, later.
            try:
                TypeAdapter(hints[name], config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(
                    value
                )
            except ValidationError as error:
                yield where, f"{name}: {problem_words(error.errors()[0])}"
    for name, parameter in parameters.items():
        if name not in arguments and name not in plumbing and parameter.default is parameter.empty:
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            yield (*place, "arguments"), f"{function.__name__} needs the argument {name!r}"
