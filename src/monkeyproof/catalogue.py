"""Experiments: finding them, and checking them before anything is started.

An experiment is a plain Chaos Toolkit file. What is ours stands in its ``extensions``:

    extensions:
      - name: monkeyproof
        expect: {elephant: [healed], none: [fault_removed]}

An experiment with faults of somebody else's names what injects, what proves it and what undoes it:

        inject: stop-the-server
        evidence: server-is-stopped
        undo: continue-the-server
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from monkeyproof import paths, roles
from monkeyproof.config import line_of, load_yaml, problem_words, read_text
from monkeyproof.errors import UsageError
from monkeyproof.roles import Named
from monkeyproof.types import Json, Outcome

EXTENSION = "monkeyproof"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Extension:
    """What an experiment says to this harness."""

    name: str
    expect: Mapping[str, tuple[Outcome, ...]] = field(default_factory=dict)
    """Outcomes that the author expects, by arm."""
    inject: str = ""
    """Name of the activity that injects, where that is not one of this harness's faults."""
    evidence: str = ""
    """Name of the probe that proves that it took effect."""
    undo: str = ""
    """Name of the activity that undoes it."""
    sham: bool = False
    """Whether nothing is broken, so that whatever a healer does is a false heal."""

    @property
    def named(self) -> Named:
        return Named(self.inject, self.evidence, self.undo)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One checked experiment file."""

    name: str
    path: Path
    title: str
    description: str
    tags: tuple[str, ...]
    document: Mapping[str, Json]
    """As read. Chaos Toolkit changes what it runs, so hand it a deep copy."""
    sha256: str
    extension: Extension


def names() -> list[str]:
    """Names in the catalogue: ``latency-spike``, ``kubernetes/pod-kill``, in alphabetical order."""
    root = paths.experiments()
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))


def default_names() -> list[str]:
    """What runs when nothing is named: everything that the embedded target can do."""
    return [name for name in names() if "/" not in name and name != "sham"]


def find(name: str, named: Named | None = None) -> Experiment:
    """An experiment by its name in the catalogue, or by the path of a file.

    Args:
        named: its activities that inject, prove and undo, where the file does not say it, or says it otherwise.

    Raises:
        UsageError: there is none, or it is not valid; with file and line.
    """
    if name in names():
        return read(paths.experiments() / f"{name}.yaml", name, named)
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json") or path.exists():
        return read(path, path.stem, named)
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no experiment {name!r}: {hint}'monkeyproof list' shows what there is")


def read(path: Path, name: str, named: Named | None = None) -> Experiment:
    """Read and check one experiment file; imports what it names, changes nothing.

    Raises:
        UsageError: it cannot be read or run; with file and line.
    """
    text = read_text(path)
    node, document = load_yaml(text, str(path))
    if not isinstance(document, dict):
        raise UsageError(f"{path}:1: an experiment is a mapping with title, description and method")
    problems = list(_structure_problems(document)) or list(_argument_problems(document))
    if problems:
        raise UsageError("\n".join(f"{path}:{line_of(node, place)}: {words}" for place, words in problems))
    _ask_chaos_toolkit(path, document)
    extension = _extension(path, node, document)
    if named is not None:
        meant = named.over(extension.named)
        extension = replace(extension, inject=meant.inject, evidence=meant.evidence, undo=meant.undo)
    _check_names(path, node, document, extension, named or Named())
    return Experiment(
        name=name,
        path=path.resolve(),
        title=document["title"],
        description=" ".join(str(document["description"]).split()),
        tags=tuple(document.get("tags") or ()),
        document=document,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        extension=extension,
    )


def _check_names(
    path: Path, node: yaml.Node | None, document: Mapping[str, Json], extension: Extension, flags: Named
) -> None:
    """Raises: UsageError: a name is no activity's that could play that part; with file and line, or the option."""
    wrong = []
    for role, words in roles.problems(document, extension.named):
        if role in flags.given():
            where = f"{path}: --{role}"
        else:
            place = _place_of_extension(document)
            where = f"{path}:{line_of(node, (*place, role))}: {role}"
        wrong.append(f"{where}: {words}")
    if wrong:
        raise UsageError("\n".join(wrong))


def _place_of_extension(document: Mapping[str, Json]) -> tuple[str | int, ...]:
    for index, extension in enumerate(document.get("extensions") or ()):
        if isinstance(extension, dict) and extension.get("name") == EXTENSION:
            return "extensions", index
    return ()


Problem = tuple[tuple[str | int, ...], str]


def _structure_problems(document: dict[str, Json]) -> typing.Iterator[Problem]:
    for key in ("title", "description"):
        if not isinstance(document.get(key), str):
            yield (key,), f"{key}: missing, or not text"
    if not isinstance(document.get("method"), list) or not document.get("method"):
        yield ("method",), "method: missing, or not a list of activities"
    for place, activity in activities(document):
        if not isinstance(activity, dict):
            yield place, "an activity is a mapping with type, name and provider"
        elif "ref" in activity:
            continue  # Chaos Toolkit looks it up.
        elif not isinstance(activity.get("provider"), dict):
            yield (*place, "provider"), "provider: missing, or not a mapping"
        elif activity["provider"].get("type") == "python" and not isinstance(
            activity["provider"].get("arguments", {}), dict
        ):
            yield (*place, "provider", "arguments"), "arguments: not a mapping"


def activities(document: Mapping[str, Json]) -> typing.Iterator[tuple[tuple[str | int, ...], Json]]:
    """All activities of an experiment, each with its place in the file."""
    hypothesis = document.get("steady-state-hypothesis")
    if isinstance(hypothesis, dict) and isinstance(hypothesis.get("probes"), list):
        for index, activity in enumerate(hypothesis["probes"]):
            yield ("steady-state-hypothesis", "probes", index), activity
    for key in ("method", "rollbacks"):
        if isinstance(document.get(key), list):
            for index, activity in enumerate(document[key]):
                yield (key, index), activity


def _argument_problems(document: dict[str, Json]) -> typing.Iterator[Problem]:
    """What Chaos Toolkit does not check: that modules and functions exist, and the types of arguments."""
    for place, activity in activities(document):
        provider = activity.get("provider", {})
        if provider.get("type") != "python":
            continue
        module_name, function_name = str(provider.get("module", "")), str(provider.get("func", ""))
        try:
            module = importlib.import_module(module_name)
        except (ImportError, ValueError) as error:
            yield (*place, "provider", "module"), f"no module {module_name!r} can be imported ({error})"
            continue
        function = getattr(module, function_name, None)
        if inspect.isbuiltin(function):
            continue  # Chaos Toolkit calls those too; not all of them have a signature.
        if not inspect.isfunction(function):
            known = [name for name in getattr(module, "__all__", ()) if not name.startswith("_")]
            hint = f"; it has: {', '.join(known)}" if known else ""
            yield (*place, "provider", "func"), f"{module_name} has no function {function_name!r}{hint}"
            continue
        yield from _signature_problems((*place, "provider"), function, provider.get("arguments", {}))


def _signature_problems(
    place: tuple[str | int, ...], function: Any, arguments: dict[str, Json]
) -> typing.Iterator[Problem]:
    parameters = inspect.signature(function).parameters
    plumbing = {"configuration", "secrets"}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = typing.get_type_hints(function) if function.__module__.startswith("monkeyproof.") else {}
    for name, value in arguments.items():
        where = (*place, "arguments", name)
        if name not in parameters or name in plumbing:
            if not open_ended:
                known = ", ".join(key for key in parameters if key not in plumbing) or "none"
                yield where, f"{function.__name__} takes no argument {name!r}; it takes: {known}"
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


def _ask_chaos_toolkit(path: Path, document: dict[str, Json]) -> None:
    import copy

    from chaoslib.exceptions import ChaosException
    from chaoslib.experiment import ensure_experiment_is_valid

    try:
        ensure_experiment_is_valid(copy.deepcopy(document))
    except (ChaosException, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{path}: not a valid Chaos Toolkit experiment: {error}") from None


def name_of(document: Mapping[str, Json]) -> str:
    """The catalogue's name of an experiment that Chaos Toolkit has loaded; else one made of its title."""
    title = str(document.get("title", ""))
    for name in names():
        path = paths.experiments() / f"{name}.yaml"
        if load_yaml(path.read_text(encoding="utf-8"), str(path))[1]["title"] == title:
            return name
    words = "".join(letter if letter.isalnum() else " " for letter in title.lower()).split()
    return "-".join(words)[:60] or "untitled"


def extension_of(document: Mapping[str, Json]) -> Extension:
    """What a loaded experiment says to this harness.

    Raises:
        UsageError: its extension says something that is not understood.
    """
    return _extension(Path(str(document.get("title", "experiment"))), None, document)


def _extension(path: Path, node: yaml.Node | None, document: Mapping[str, Json]) -> Extension:
    place = _place_of_extension(document)
    if not place:
        return Extension(EXTENSION)
    try:
        return TypeAdapter(Extension).validate_python(document["extensions"][place[1]])
    except ValidationError as error:
        problem = error.errors()[0]
        words = ".".join(str(part) for part in problem["loc"])
        where = f"{path}:{line_of(node, (*place, *problem['loc']))}"
        raise UsageError(f"{where}: {words}: {problem_words(problem)}") from None
