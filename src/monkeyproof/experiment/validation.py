"""Checks of an experiment before Chaos Toolkit sees it: its shape, its functions and their arguments."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from monkeyproof.config.user_files import problem_words, shown
from monkeyproof.errors import UsageError
from monkeyproof.experiment.activity_roles import OWN_FAULTS
from monkeyproof.experiment.trial_steps import Place, Problem, short_form_problems
from monkeyproof.injection import fault_registry
from monkeyproof.injection.fault_registry import Fault
from monkeyproof.types import Json


def structure_problems(document: Mapping[str, Json]) -> Iterator[Problem]:
    """Deviations from the shape that Chaos Toolkit and a trial take for granted, and errors in the short form."""
    problems = list(_shape_problems(document))
    yield from problems or short_form_problems(document)


def _shape_problems(document: Mapping[str, Json]) -> Iterator[Problem]:
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
"""Optional keys of an experiment: their type, the type of their items, and both in words."""


def _is_named(activity: Json) -> bool:
    return isinstance(activity, dict) and "ref" not in activity and isinstance(activity.get("name"), str)


def activities(document: Mapping[str, Json]) -> Iterator[tuple[Place, Json]]:
    """All activities of an experiment, each with its place in the document."""
    hypothesis = document.get("steady-state-hypothesis")
    if isinstance(hypothesis, dict) and isinstance(hypothesis.get("probes"), list):
        for index, activity in enumerate(hypothesis["probes"]):
            yield ("steady-state-hypothesis", "probes", index), activity
    for key in ("method", "rollbacks"):
        if isinstance(document.get(key), list):
            for index, activity in enumerate(document[key]):
                yield (key, index), activity


def argument_problems(document: Mapping[str, Json]) -> Iterator[Problem]:
    """Errors that Chaos Toolkit does not find: missing modules and functions, wrong types of arguments."""
    for place, activity in activities(document):
        provider = activity.get("provider", {})
        if "ref" in activity or provider.get("type") != "python":
            continue
        module_name, function_name = str(provider.get("module", "")), str(provider.get("func", ""))
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # The import runs foreign code, and names may be anything.
            yield (*place, "provider", "module"), f"no module {shown(module_name)} can be imported ({error})"
            continue
        function = getattr(module, function_name, None)
        if inspect.isbuiltin(function):
            continue  # Chaos Toolkit calls built-in functions too; not all of them have a signature.
        if not inspect.isfunction(function):
            known = [name for name in getattr(module, "__all__", ()) if not name.startswith("_")]
            hint = f"; it has: {', '.join(known)}" if known else ""
            yield (*place, "provider", "func"), f"{module_name} has no function {shown(function_name)}{hint}"
            continue
        given = provider.get("arguments", {})
        found = list(_signature_problems((*place, "provider"), function, given))
        if not found and (module_name, function_name) == fault_registry.WHEN_SEEN:
            found = list(_problems_of_later_fault((*place, "provider", "arguments"), given))
        yield from found


def use_new_names(document: Mapping[str, Json]) -> Iterator[tuple[Place, str, Fault]]:
    """Replace former names of faults in a document that has the right shape. Yields the place, the former name
    and the fault for each."""
    for place, activity in activities(document):
        provider = activity.get("provider", {})
        if "ref" in activity or provider.get("type") != "python":
            continue
        module, function = str(provider.get("module", "")), str(provider.get("func", ""))
        with contextlib.suppress(Exception):  # The check that follows says what is wrong with the module.
            if module.startswith(OWN_FAULTS):
                importlib.import_module(module)
            else:  # Only a plugin's module is imported.
                fault_registry.fault_at(module, function)
        if (fault := fault_registry.renamed_to(module, function)) is not None:
            provider["func"] = fault.function.__name__
            yield (*place, "provider", "func"), f"{fault.family}.{function}", fault
        given = provider.get("arguments", {})
        if (module, function) == fault_registry.WHEN_SEEN and isinstance(given.get("fault"), str):
            name = given["fault"]
            if (fault := fault_registry.by_former_name(name)) is not None:
                given["fault"] = fault.name
                yield (*place, "provider", "arguments", "fault"), name, fault


def _problems_of_later_fault(place: Place, given: dict[str, Json]) -> Iterator[Problem]:
    """Errors in a fault that is injected later: a misspelt word must not end a trial in its middle."""
    try:
        fault = fault_registry.find(given["fault"])
    except UsageError as error:
        yield (*place, "fault"), str(error)
        return
    yield from _signature_problems(place, fault.function, given["arguments"])


def _signature_problems(place: Place, function: Any, arguments: dict[str, Json]) -> Iterator[Problem]:
    parameters = inspect.signature(function).parameters
    plumbing = {"configuration", "secrets"}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    own = function.__module__.startswith("monkeyproof.") or fault_registry.declared_as(function) is not None
    hints = typing.get_type_hints(function) if own else {}
    for name, value in arguments.items():
        where = (*place, "arguments", name)
        if name not in parameters or name in plumbing:
            if not open_ended:
                known = ", ".join(key for key in parameters if key not in plumbing) or "none"
                yield where, f"{function.__name__} takes no argument {shown(name)}; it takes: {known}"
        elif name in hints and "${" not in str(value):  # Chaos Toolkit fills in ${name} later.
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
